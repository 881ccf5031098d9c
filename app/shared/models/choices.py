"""The list of models for chat and conversion: outputs of runs first, then original models, then opened folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from app.shared.formats.words import title
from core.service.messages import OutputModel
from core.wording import day

Kind = Literal["run", "original", "folder"]


@dataclass(frozen=True)
class ModelChoice:
    """An entry of the list.

    Attributes:
        name: the name to open it with; label: short name for display; detail: one line about it.
        kind: where it comes from.
    """

    name: str
    label: str
    detail: str
    kind: Kind


def from_outputs(outputs: Iterable[OutputModel]) -> list[ModelChoice]:
    """Return a choice for each checkpoint of a finished run."""
    found = []
    for output in outputs:
        folder = output.folder
        label = f"{folder.parent.name} ({title(output.format)})" if output.format else folder.name
        created = datetime.fromtimestamp(output.created)  # noqa: DTZ006 - the user's own time
        detail = f"{output.scheme}, from {short_name(output.model)}, {day(created)} {created:%H:%M}"
        found.append(ModelChoice(str(folder), label, detail, "run"))
    return found


def original(name: str, label: str, download_bytes: int = 0) -> ModelChoice:
    """Return the entry of the original, unquantized model `name`."""
    from core.wording import human

    detail = f"Original model, {human(download_bytes)} to download" if download_bytes else "Original model"
    return ModelChoice(name, label or short_name(name), detail, "original")


def folder(path: str) -> ModelChoice:
    """Return the entry of a model folder or a GGUF file that the user opened."""
    return ModelChoice(path, short_name(path), path, "folder")


def short_name(name: str) -> str:
    """Return the last part of a path or of a Hub id."""
    return Path(name).name or name


def merged(*groups: Iterable[ModelChoice]) -> list[ModelChoice]:
    """Return all entries in order, each model once."""
    found: dict[str, ModelChoice] = {}
    for group in groups:
        for choice in group:
            found.setdefault(choice.name, choice)
    return list(found.values())
