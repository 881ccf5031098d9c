"""Work in background threads whose results are delivered in the thread of the window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal

from core.errors import BitwrightError

_Failed = Callable[[BitwrightError], object]


class BackgroundWork(QObject):
    """A pool of threads that belongs to `parent`.

    Args:
        threads: number of threads; with one, work is done in the order in which it was started.
        name: prefix of the names of the threads.
    """

    _done = Signal(object)

    def __init__(self, threads: int, name: str, parent: QObject) -> None:
        super().__init__(parent)
        self._threads, self._name = threads, name
        self._pool = self._new_pool()
        self._done.connect(self._call_back, Qt.ConnectionType.QueuedConnection)

    def start(self, work: Callable[[], Any], then: Callable[[Any], object], failed: _Failed) -> None:
        """Call `work` in a thread, and then `then` or `failed` with its result or its `BitwrightError`."""

        def finished(future: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the window is closed; the work was done
                self._done.emit((future, then, failed))

        self._pool.submit(work).add_done_callback(finished)

    def wait(self) -> None:
        """Wait until everything that was started is done; the results are delivered by the event loop."""
        self._pool.shutdown()
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)

    def _call_back(self, done: tuple[Future[Any], Callable[[Any], object], _Failed]) -> None:
        future, then, failed = done
        error = future.exception()
        if error is None:
            then(future.result())
        elif isinstance(error, BitwrightError):
            failed(error)
        else:
            raise error
