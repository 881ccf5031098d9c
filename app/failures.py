"""Handling of uncaught exceptions: they are logged and shown, and the window stays open.

Also keeps the crash log, to which Python writes the stack of each thread if the process crashes. Depends on QtCore
only.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from PySide6.QtCore import QObject, Signal

from core.errors import BitwrightError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log = logging.getLogger(__name__)


class Failures(QObject):
    """Replacement for Python's hooks for uncaught exceptions.

    Signals:
        happened: the error (a `BitwrightError` that can be shown to the user) and its traceback. Emitted in any thread.
    """

    happened = Signal(object, str)

    def install(self) -> None:
        """Handle all uncaught exceptions from now on: in slots, in threads and in destructors."""
        sys.excepthook = self._of_slot
        threading.excepthook = self._of_thread
        sys.unraisablehook = self._of_destructor

    def uninstall(self) -> None:
        """Restore Python's own hooks."""
        sys.excepthook = sys.__excepthook__
        threading.excepthook = threading.__excepthook__
        sys.unraisablehook = sys.__unraisablehook__

    def _of_slot(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        details = "".join(traceback.format_exception(kind, error, trace))
        _log.error("Uncaught exception\n%s", details)
        if isinstance(error, BitwrightError):
            self.happened.emit(error, details)
        elif isinstance(error, Exception):
            self.happened.emit(inside_error(), details)

    def _of_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            self._of_slot(args.exc_type, args.exc_value, args.exc_traceback)

    def _of_destructor(self, args: UnraisableHookArgs) -> None:
        error = args.exc_value
        details = "".join(traceback.format_exception(error)) if error is not None else ""
        _log.warning("%s %r\n%s", args.err_msg or "Exception ignored in", args.object, details)


def inside_error() -> BitwrightError:
    """Return the error that is shown for a bug in Bitwright."""
    return BitwrightError(
        "Something went wrong inside Bitwright.",
        "The window stays open. Your last action may not have taken effect. See the log for details.",
        code="internal",
    )


def take_crash_log(path: Path) -> str:
    """Remove the crash log of the previous session and return its text; "" if that session ended regularly."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        path.unlink()
    except OSError:
        return ""
    return text


def watch_crashes(path: Path) -> TextIO | None:
    """Have Python write to `path`, which stays open, if the process crashes; None if the file cannot be opened."""
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError:
        return None
    faulthandler.enable(stream)
    return stream


def end_watch(path: Path, stream: TextIO) -> None:
    """Stop watching for crashes and remove the crash log, at a regular exit."""
    faulthandler.disable()
    stream.close()
    path.unlink(missing_ok=True)
