"""Waiting for a call that may never come back, without being held by it. Knows threads and nothing of the Hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from core.control import ShouldStop
from core.errors import Cancelled

LOOKUP_SECONDS: Final = 12.0
"""Patience for the first answer. A name server that drops packets can hold a process far longer than any timeout
of the connection, so the look-up runs in a thread that is left behind."""

_T = TypeVar("_T")


def _nothing() -> None:
    """For callers who have nothing to do meanwhile."""


def bounded(
    call: Callable[[], _T],
    should_stop: ShouldStop,
    seconds: float | None = LOOKUP_SECONDS,
    *,
    tick: Callable[[], None] = _nothing,
    leave: Callable[[], None] = _nothing,
) -> _T:
    """The result of `call`, which runs in a thread so that a stop or the end of patience ends the wait.

    Args:
        seconds: longest wait; None for none.
        tick: called about five times a second, here and not in the thread.
        leave: called before the thread is left behind; may tell it to end.

    Raises:
        Cancelled: `should_stop` said so.
        TimeoutError: `seconds` have passed.
        Exception: whatever `call` raised.
    """
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True, name="hub")
    thread.start()
    deadline = None if seconds is None else time.monotonic() + seconds
    while thread.is_alive():
        thread.join(0.2)
        tick()
        if should_stop():
            leave()
            raise Cancelled("Stopped while waiting for the Hub.")
        if deadline is not None and time.monotonic() > deadline and thread.is_alive():
            leave()
            raise TimeoutError("the Hub did not answer")
    if failures:
        raise failures[0]
    return results[0]
