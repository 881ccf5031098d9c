"""The button beside an error when a model could not be loaded, or its process has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.shared.context import Remedy
from core.errors import BitwrightError, DeviceProblem, MissingDependency, ModelNotFound, OutOfMemory


@dataclass(frozen=True)
class RecoveryActions:
    """The possible actions; each loads the model again where that makes sense."""

    again: Callable[[], object]
    on_cpu: Callable[[], object]
    automatic: Callable[[], object]
    other_folder: Callable[[], object]


def remedy_for(error: BitwrightError, device: str, backend: str, ways: RecoveryActions) -> Remedy:
    """Return the button for an error.

    Args:
        error: the error.
        device, backend: the requested device and backend.
        ways: the possible actions.
    """
    if isinstance(error, ModelNotFound):
        return Remedy(_tr("Open folder\N{HORIZONTAL ELLIPSIS}"), ways.other_folder)
    if isinstance(error, OutOfMemory | DeviceProblem) and device not in ("cpu", ""):
        return Remedy(_tr("Load on CPU"), ways.on_cpu)
    if isinstance(error, MissingDependency) and backend not in ("auto", ""):
        return Remedy(_tr("Use automatic backend"), ways.automatic)
    return Remedy(_tr("Load again"), ways.again)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Remedies", text)
