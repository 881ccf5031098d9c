"""Tests of the choice of a runner and of the reasons given for the others."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from core.errors import MissingDependency
from core.events import Event, Log
from core.inference.backends import llama_cpp
from core.inference.loader import LoadedRunner, load_runner
from core.inference.native import library
from core.inference.runners import native
from tests.core.formats.gguf import gguf_files
from tests.core.tiny_model import save_model

IDS = list(range(5, 25))


def rows(loaded: LoadedRunner) -> dict[str, tuple[int, str]]:
    return {row.name: (row.layers, row.why_not) for row in loaded.rows}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the native kernels are available."""
    monkeypatch.setattr(library, "why_not", lambda: "")


@pytest.mark.usefixtures("compiled")
def test_an_architecture_without_a_native_program_runs_as_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "refusal", lambda skeleton: "The native program does not know this architecture.")
    loaded = load_runner(str(save_model(tmp_path / "model")), "cpu", dtype="float32")
    assert loaded.runner.name == "module"
    assert rows(loaded)["native"] == (0, "The native program does not know this architecture.")


@pytest.mark.usefixtures("compiled")
def test_a_native_program_that_fails_to_load_is_replaced_by_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MissingDependency("The compiler is gone.", "")

    monkeypatch.setattr(native, "build", fail)
    loaded = load_runner(str(save_model(tmp_path / "model")), "cpu", dtype="float32")
    assert (loaded.runner.name, rows(loaded)["native"]) == ("module", (0, "The compiler is gone."))
    assert loaded.runner.extend(IDS).shape == (288,)


@pytest.mark.parametrize(("backend", "warnings"), [("auto", 0), ("native", 1)])
def test_a_missing_native_program_is_logged_only_if_it_was_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, warnings: int
) -> None:
    monkeypatch.setattr(library, "why_not", lambda: "There is no compiler.")
    events: list[Event] = []
    load_runner(str(save_model(tmp_path / "model")), "cpu", backend, "float32", emit=events.append)
    logged = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert logged == ["The native program is not used. There is no compiler."] * warnings


@pytest.mark.parametrize("name", ["dense", "portable", "int4pack"])
def test_a_requested_backend_is_not_replaced_by_the_native_program(tmp_path: Path, name: str) -> None:
    assert load_runner(str(save_model(tmp_path / "model")), "cpu", name, "float32").runner.name == "module"


def test_llama_cpp_does_not_run_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "missing", lambda device: None)
    monkeypatch.setattr(library, "why_not", lambda: "There is no compiler.")
    loaded = load_runner(str(save_model(tmp_path / "model")), "cpu", "llama.cpp", "float32")
    assert loaded.runner.name == "module"
    assert "runs GGUF files" in rows(loaded)["llama.cpp"][1]


@pytest.mark.parametrize("backend", ["portable", "int4pack", "dense"])
@pytest.mark.usefixtures("own_home")
def test_a_gguf_file_runs_as_modules(tmp_path: Path, backend: str) -> None:
    original = gguf_files.build("llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    path = gguf_files.write(tmp_path / "m.gguf", "llama", original, kind=kind)
    exact = load_runner(str(path), "cpu", "dense", "float32").runner.extend(IDS)
    found = load_runner(str(path), "cpu", backend, "float32").runner.extend(IDS)
    assert float((found - exact).norm() / exact.norm()) < (0.03 if backend == "int4pack" else 1e-5)
