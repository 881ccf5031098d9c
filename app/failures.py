"""What happens with errors that nobody caught: they are logged and told, and the window stays.

Also keeps the crash log, into which Python writes where the threads stood when the whole process is brought down. Knows
no widget: it emits a signal, and somebody shows it.
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
    """Takes the place of the hooks that Python calls with an error that nobody caught.

    Signals:
        happened: the error (a `BitwrightError` that the user can be told) and its traceback, in any thread.
    """

    happened = Signal(object, str)

    def install(self) -> None:
        """Be told of every error from now on: in slots, in threads, in destructors."""
        sys.excepthook = self._of_slot
        threading.excepthook = self._of_thread
        sys.unraisablehook = self._of_destructor

    def uninstall(self) -> None:
        """Give Python its own hooks back."""
        sys.excepthook = sys.__excepthook__
        threading.excepthook = threading.__excepthook__
        sys.unraisablehook = sys.__unraisablehook__

    def _of_slot(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        details = "".join(traceback.format_exception(kind, error, trace))
        _log.error("An error that nobody caught\n%s", details)
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
        _log.warning("%s %r\n%s", args.err_msg or "An error was passed over in", args.object, details)


def inside_error() -> BitwrightError:
    """The sentence for an error that is Bitwright's fault."""
    return BitwrightError(
        "Something went wrong inside Bitwright.",
        "The window goes on. What you did last may not have taken effect; the log has the details.",
        code="internal",
    )


def take_crash_log(path: Path) -> str:
    """What the process before this one wrote when it was brought down, "" if it ended well; the file is removed."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        path.unlink()
    except OSError:
        return ""
    return text


def watch_crashes(path: Path) -> TextIO | None:
    """Have Python write to `path`, which stays open, if the process is brought down; None where that is impossible."""
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError:
        return None
    faulthandler.enable(stream)
    return stream


def end_watch(path: Path, stream: TextIO) -> None:
    """The process ends well: stop watching and leave no crash log."""
    faulthandler.disable()
    stream.close()
    path.unlink(missing_ok=True)
