"""A cache on disk for sensitivity tables, keyed by everything that a table depends on."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from core.errors import BitwrightError, OutputProblem
from core.files import expanded, read_json, write_json
from core.home import home
from core.sensitivity.spec import AnalysisSpec
from core.sensitivity.table import SensitivityTable, from_json

_MAX_TABLES = 200


def find(spec: AnalysisSpec, folder: Path) -> SensitivityTable | None:
    """Return the saved table for the same model, text and settings, or None if there is none or it is damaged.

    Args:
        folder: Folder of the model.
    """
    path = _path(spec, folder)
    if not path.is_file():
        return None
    try:
        return from_json(read_json(path))
    except BitwrightError:
        return None


def save(spec: AnalysisSpec, folder: Path, table: SensitivityTable) -> None:
    """Save a table and remove the oldest ones. A table that cannot be written is not saved."""
    path = _path(spec, folder)
    with contextlib.suppress(OSError, BitwrightError):
        writable_folder()
        write_json(path, table.to_json())
        _remove_old(path.parent)


def writable_folder() -> Path:
    """Return the folder for tables and temporary files of measurements, and create it if necessary.

    Raises:
        OutputProblem: It cannot be created.
    """
    path = _folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputProblem(
            f"{path} cannot be created: {error.strerror}.", "Set BITWRIGHT_HOME to a writable folder."
        ) from error
    return path


def _folder() -> Path:
    return home() / "sensitivity"


def _path(spec: AnalysisSpec, folder: Path) -> Path:
    return _folder() / f"{spec.key(_stamp(spec, folder))}.json"


def _stamp(spec: AnalysisSpec, folder: Path) -> str:
    """Return a hash of the names, sizes and modification times of the files of the model and of the text."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    text = expanded(spec.calibration)
    if text.is_file():
        files.append(text)
    stamps = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            stamps.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join([str(folder.resolve()), *stamps]).encode()).hexdigest()


def _remove_old(folder: Path) -> None:
    """Remove all but the newest tables."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in files[_MAX_TABLES:]:
        path.unlink(missing_ok=True)
