"""One window per user: the first process holds a lock and listens, a later one passes its model on and exits.

The lock is a file in Bitwright's home; it stays correct after a crash and if two processes start at the same moment.
A local socket carries the message. Both are per user and per BITWRIGHT_HOME. Depends on QtCore and QtNetwork only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QLockFile, QObject, QThread, Signal

if TYPE_CHECKING:
    from PySide6.QtNetwork import QLocalServer, QLocalSocket

_LONGEST: Final = 65536
_OK: Final = b"ok\n"


class SingleInstance(QObject):
    """The lock and the socket of this process.

    Signals:
        asked(str): another process asks this window to come to the front; the model to open, or "".
    """

    asked = Signal(str)

    def __init__(self, home: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._home = home
        self._lock: QLockFile | None = None
        self._server: QLocalServer | None = None

    def claim(self) -> bool:
        """Try to get the lock. If the home is not writable, return true: two windows are better than none."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
        except OSError:
            return True
        lock = QLockFile(str(self._home / "window.lock"))
        lock.setStaleLockTime(0)  # stale once its process has ended, whatever its age
        if lock.tryLock(0):
            self._lock = lock
            return True
        return lock.error() is not QLockFile.LockError.LockFailedError

    def listen(self) -> bool:
        """Accept messages of later processes from now on; call it after `claim`."""
        from PySide6.QtNetwork import QLocalServer

        if self._lock is None:
            return False
        name = server_name(self._home, os.environ)
        QLocalServer.removeServer(name)  # left over from a killed process, as the lock was free
        server = QLocalServer(self)
        server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        server.newConnection.connect(self._welcome)
        self._server = server
        return server.listen(name)

    def hand_over(self, model: str, patience: float = 3.0) -> bool:
        """Send `model` (or "") to the first window; False if it does not accept it within `patience` seconds."""
        import json

        from PySide6.QtNetwork import QLocalSocket

        deadline = time.monotonic() + patience
        message = {"open": model, "token": os.environ.get("XDG_ACTIVATION_TOKEN", "")}
        while time.monotonic() < deadline:
            socket = QLocalSocket()
            socket.connectToServer(server_name(self._home, os.environ))
            if socket.waitForConnected(500):
                socket.write(json.dumps(message).encode() + b"\n")
                left = max(1, round((deadline - time.monotonic()) * 1000))
                return socket.waitForReadyRead(left) and bytes(socket.readAll().data()).startswith(_OK)
            QThread.msleep(100)  # the first process may not be listening yet
        return False

    def close(self) -> None:
        """Stop listening and release the lock."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._lock is not None:
            self._lock.unlock()
            self._lock = None

    def _welcome(self) -> None:
        while self._server is not None and (socket := self._server.nextPendingConnection()) is not None:
            socket.readyRead.connect(self._read)
            socket.disconnected.connect(socket.deleteLater)

    def _read(self) -> None:
        socket: QLocalSocket = self.sender()  # type: ignore[assignment]
        if not socket.canReadLine():
            if socket.bytesAvailable() > _LONGEST:
                socket.abort()
            return
        model, token = _parsed(bytes(socket.readLine(_LONGEST).data()))
        socket.write(_OK)
        socket.flush()
        socket.disconnectFromServer()
        if token:
            os.environ["XDG_ACTIVATION_TOKEN"] = token  # Qt shows it to a Wayland compositor when the window is raised
        self.asked.emit(model)


def server_name(home: Path, variables: Mapping[str, str]) -> str:
    """Return the name of the socket: one per user and home, in the user's runtime folder if there is one."""
    import getpass
    import hashlib

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "user"
    digest = hashlib.sha256(f"{user}\0{home}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    runtime = variables.get("XDG_RUNTIME_DIR", "")
    name = f"bitwright-{digest}"
    # the path of a local socket is limited to about 100 bytes
    return os.path.join(runtime, name) if len(os.fsencode(runtime)) < 64 and os.path.isdir(runtime) else name


def _parsed(line: bytes) -> tuple[str, str]:
    """Return model and activation token of a message; empty if it is malformed."""
    import json

    try:
        value = json.loads(line)
        model, token = value["open"], value.get("token", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    return (model, token) if isinstance(model, str) and isinstance(token, str) else ("", "")
