"""What helps when a model could not be loaded, or its process is gone: the button beside the sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.shared.context import Remedy
from core.errors import BitwrightError, DeviceProblem, MissingDependency, ModelNotFound, OutOfMemory


@dataclass(frozen=True)
class RecoveryActions:
    """What can be done; each loads again where it makes sense to."""

    again: Callable[[], object]
    on_cpu: Callable[[], object]
    automatic: Callable[[], object]
    other_folder: Callable[[], object]


def remedy_for(error: BitwrightError, device: str, backend: str, ways: RecoveryActions) -> Remedy:
    """The one button for an error.

    Args:
        error: what happened.
        device, backend: that were asked for.
        ways: what can be done.
    """
    if isinstance(error, ModelNotFound):
        return Remedy(_tr("Open folder\N{HORIZONTAL ELLIPSIS}"), ways.other_folder)
    if isinstance(error, OutOfMemory | DeviceProblem) and device not in ("cpu", ""):
        return Remedy(_tr("Load on the CPU"), ways.on_cpu)
    if isinstance(error, MissingDependency) and backend not in ("auto", ""):
        return Remedy(_tr("Use the automatic backend"), ways.automatic)
    return Remedy(_tr("Load again"), ways.again)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Remedies", text)
