"""The house rules that a linter does not know: who may import whom, how large things get, what must be said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for folder in ("core", "app", "packaging") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "core")]
APP = [path for path in MODULES if path.is_relative_to(ROOT / "app")]

MAX_LINES = 800
MAX_FUNCTION_LINES = 60

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli", "service"),
    ("api",),
    ("allocation", "conversion"),
    ("jobs", "sensitivity"),
    ("quant", "serving"),
    ("inference", "report"),
    ("estimation",),
    ("spec",),
    ("formats",),
    ("calibration", "hub"),
    ("model",),
    ("bitsmap", "recipes"),
    ("schemes", "staging"),
    ("claim", "compiled", "model_id", "private_files", "threads"),
    ("block_types", "control", "files", "lock", "pace", "pictures"),
    ("errors", "events", "home", "wording"),
    ("codec",),
)
"""The parts of `core`, the highest first. A part imports only from layers below its own."""

WINDOW_LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("application",),
    ("frame", "machine_probe"),
    ("pages.chat", "pages.convert", "pages.layers", "pages.model", "pages.recipe", "pages.run"),
    ("shared",),
    ("widgets",),
    ("failures", "logs", "qt_libraries", "single_instance", "state", "theme"),
)
"""The parts of `app`, the highest first, held in the same way; pages do not import each other."""

QT = {"PySide6", "PyQt6", "shiboken6", "pyqtgraph"}
TORCH = {"torch", "transformers"}
TORCH_FREE = (
    "core", "core.allocation.request", "core.allocation.map_rules", "core.allocation.pareto", "core.allocation.problem",
    "core.api", "core.api.chats", "core.api.conversion", "core.api.endpoint", "core.api.estimation",
    "core.api.evaluation", "core.api.inspection", "core.api.machine", "core.api.planning", "core.api.runs",
    "core.api.speed", "core.bitsmap", "core.block_types", "core.calibration.preview", "core.calibration.text",
    "core.cli", "core.codec", "core.control", "core.conversion.survey", "core.errors", "core.estimation.costs",
    "core.estimation.goals", "core.estimation.memory_plan", "core.estimation.preflight", "core.estimation.run_bytes",
    "core.estimation.sizes", "core.events", "core.files",
    "core.formats.dequantized.detection", "core.formats.dequantized.settings", "core.formats.dequantized.source",
    "core.formats.dequantized.stored_weight", "core.formats.engines", "core.formats.gguf.mixes",
    "core.formats.gguf.types", "core.formats.grids", "core.formats.holding", "core.formats.limits",
    "core.formats.map_exchange", "core.formats.names", "core.formats.packing", "core.formats.patterns",
    "core.formats.quantized_headers", "core.formats.settings", "core.hub.card", "core.hub.download",
    "core.hub.patience", "core.hub.records", "core.hub.remote", "core.hub.search", "core.hub.source",
    "core.inference.backends.backend", "core.inference.cards", "core.inference.devices", "core.inference.figures",
    "core.inference.generation.message", "core.inference.generation.reply", "core.inference.generation.settings",
    "core.inference.machine",
    "core.inference.native.build", "core.inference.native.model_spec", "core.jobs.adopt", "core.jobs.child",
    "core.jobs.failure", "core.jobs.following", "core.jobs.inline", "core.jobs.process", "core.jobs.steering",
    "core.jobs.store", "core.jobs.stream", "core.jobs.worker", "core.model.architectures.config",
    "core.model.architectures.rope", "core.model.architectures.table", "core.model.folder", "core.model.fused",
    "core.model.headers", "core.model.refusals", "core.model.tree", "core.model_id", "core.pace",
    "core.pictures.opening", "core.recipes",
    "core.report.command_line", "core.report.loading_snippets", "core.report.model_card", "core.report.verdict",
    "core.schemes", "core.sensitivity.cache", "core.sensitivity.spec", "core.sensitivity.table", "core.service.calls",
    "core.service.chat_calls", "core.service.child", "core.service.client", "core.service.messages",
    "core.serving.summary", "core.spec", "core.threads", "core.wording",
)  # fmt: skip


def name_of(path: Path) -> str:
    """`core/model/tree.py` for people."""
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of all that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def modules_imported(tree: ast.Module) -> set[str]:
    """Full names of all that a module imports, wherever in it; `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(name: str, parts: set[str]) -> str:
    """The part of a layer table that a module's name without `core.` or `app.` belongs to; "" for none."""
    while name and name not in parts:
        name = name.rpartition(".")[0]
    return name


def upward_imports(top: str, layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Each import in a top folder that does not go to a lower layer, as `module -> part`."""
    level = {part: number for number, parts in enumerate(reversed(layers)) for part in parts}
    found = []
    for path in sorted((ROOT / top).rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        here = part_of(module.removeprefix(f"{top}."), set(level))
        for name in modules_imported(tree_of(path)):
            there = part_of(name.removeprefix(f"{top}."), set(level)) if name.startswith(f"{top}.") else ""
            if here and there and there != here and level[there] >= level[here]:
                found.append(f"{module} -> {there}")
    return sorted(found)


@pytest.mark.parametrize(("top", "layers"), [("core", LAYERS), ("app", WINDOW_LAYERS)])
def test_imports_go_down_the_layers(top: str, layers: tuple[tuple[str, ...], ...]) -> None:
    assert upward_imports(top, layers) == []


@pytest.mark.parametrize(("top", "layers"), [("core", LAYERS), ("app", WINDOW_LAYERS)])
def test_every_module_has_a_layer(top: str, layers: tuple[tuple[str, ...], ...]) -> None:
    parts = {part for layer in layers for part in layer}
    modules = (path.relative_to(ROOT / top).with_suffix("").as_posix() for path in (ROOT / top).rglob("*.py"))
    names = (name.replace("/", ".").removesuffix(".__init__") for name in modules)
    assert sorted(name for name in names if name not in ("__init__", "pages") and not part_of(name, parts)) == []


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_core_never_imports_qt_or_the_window() -> None:
    found = {name_of(path): imported(tree_of(path)) & (QT | {"app"}) for path in CORE}
    assert {name: names for name, names in found.items() if names} == {}


def test_the_window_never_imports_torch() -> None:
    found = {name_of(path): imported(tree_of(path)) & TORCH for path in APP}
    assert {name: names for name, names in found.items() if names} == {}


def test_core_never_prints() -> None:
    """The command line and the terminal demo are what a person reads; everything else reports by events."""
    speakers = (ROOT / "core" / "cli",)
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in CORE
        if not any(path.is_relative_to(speaker) for speaker in speakers)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)")
    assert [name_of(path) for path in (*MODULES, *TESTS) if drawers.search(path.stem)] == []


def test_files_stay_short_enough_to_read() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in (*MODULES, *TESTS)}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_functions_stay_short_enough_to_read() -> None:
    lengths = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in (*MODULES, *TESTS)
        for node in functions(tree_of(path))
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_no_star_imports() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in (*MODULES, *TESTS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert found == []


def test_every_module_says_what_it_does() -> None:
    """An empty `__init__.py` has nothing to say."""
    silent = [
        name_of(path) for path in (*MODULES, *TESTS) if tree_of(path).body and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


def test_every_public_function_and_class_says_what_it_does() -> None:
    silent = [
        f"{name_of(path)}:{node.name}"
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_core_has_no_folder_that_is_only_a_namespace() -> None:
    """Without `__init__.py` another package called `core` anywhere on the path would win over ours."""
    folders = {path.parent for path in (*CORE, *APP)}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_our_packaging_folder_does_not_hide_the_packaging_library() -> None:
    assert not (ROOT / "packaging" / "__init__.py").exists()


BLOCKED = """
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "PySide6"}:
            raise ImportError(f"{name} is imported")
sys.meta_path.insert(0, Block())
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{name}: {error}")
sys.exit("\\n".join(failed) or 0)
"""


def test_modules_that_the_window_needs_start_without_torch() -> None:
    """A second of start-up and 300 MB, for every `--help` and in the window's own process."""
    command = [sys.executable, "-c", BLOCKED, *TORCH_FREE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_the_block_above_does_block() -> None:
    command = [sys.executable, "-c", BLOCKED, "torch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "torch is imported" in done.stderr
