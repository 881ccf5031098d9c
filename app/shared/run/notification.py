"""Desktop notifications for a user who is looking at another window. Failures are ignored.

On Linux they are sent with `notify-send` or `gdbus` if there is a session bus: QtDBus cannot send the unsigned
integers of the protocol from Python, and a tray icon would appear for a single message. Elsewhere, with a tray icon.
"""

from __future__ import annotations

import os
import shutil
import sys

from PySide6.QtCore import QCoreApplication, QProcess, Qt, QTimer
from PySide6.QtGui import QGuiApplication, QIcon
from PySide6.QtWidgets import QApplication, QSystemTrayIcon

from app.shared.run.record import RunRecord
from app.theme import ICONS
from core.report.verdict import judge

_ICON = ICONS / "bitwright.svg"
_SHOWN_MS = 10_000


def words(record: RunRecord) -> tuple[str, str]:
    """Return title and text for a run that has ended."""
    model = record.started.model if record.started is not None else record.spec.model if record.spec else ""
    if record.state == "done":
        return _tr("{model} is ready").format(model=model or _tr("The model")), judge(record.report).sentence
    failed = record.last
    message = getattr(failed, "message", "")
    return _tr("The run did not finish"), f"{model}: {message}" if model else message


def show(title: str, text: str) -> bool:
    """Show a notification unless the user is looking at this program; return whether one was requested."""
    if QGuiApplication.applicationState() == Qt.ApplicationState.ApplicationActive:
        return False
    for window in QApplication.topLevelWidgets():
        if window.isVisible() and window.isWindow():
            QApplication.alert(window)
            break
    command = _command(title, text)
    if command:
        return _start(command)
    return _by_tray(title, text)


def _start(command: list[str]) -> bool:
    """Start a detached program with its output discarded."""
    process = QProcess()
    process.setProgram(command[0])
    process.setArguments(command[1:])
    process.setStandardOutputFile(QProcess.nullDevice())
    process.setStandardErrorFile(QProcess.nullDevice())
    return bool(process.startDetached())


def _command(title: str, text: str) -> list[str]:
    """Return the command line that shows a notification; empty if there is no suitable program."""
    if not sys.platform.startswith("linux") or not _has_bus():
        return []
    name = QCoreApplication.applicationName() or "Bitwright"
    if sender := shutil.which("notify-send"):
        return [sender, f"--app-name={name}", f"--icon={_ICON}", "--", title, text]
    if sender := shutil.which("gdbus"):
        service = "org.freedesktop.Notifications"
        where = ["--session", "--dest", service, "--object-path", "/org/freedesktop/Notifications"]
        method = ["--method", f"{service}.Notify"]
        values = [_quoted(name), "0", _quoted(str(_ICON)), _quoted(title), _quoted(text), "[]", "{}", "-1"]
        return [sender, "call", *where, *method, "--", *values]
    return []


def _quoted(text: str) -> str:
    """Return a string in GVariant text format, as gdbus expects it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _has_bus() -> bool:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return bool(os.environ.get("DBUS_SESSION_BUS_ADDRESS")) or bool(runtime and os.path.exists(f"{runtime}/bus"))


def _by_tray(title: str, text: str) -> bool:
    if not QSystemTrayIcon.isSystemTrayAvailable() or not QSystemTrayIcon.supportsMessages():
        return False
    icon = QIcon(str(_ICON))
    tray = QSystemTrayIcon(icon, QApplication.instance())
    tray.show()
    tray.showMessage(title, text, icon, _SHOWN_MS)
    QTimer.singleShot(_SHOWN_MS, tray, tray.deleteLater)
    return True


def _tr(text: str) -> str:
    return QCoreApplication.translate("Notification", text)
