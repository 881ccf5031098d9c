"""Calls with a timeout and a stop callback, for functions of libraries that may block indefinitely."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from core.control import ShouldStop
from core.errors import Cancelled

LOOKUP_SECONDS: Final = 12.0
"""Timeout for the first response of the Hub. A name server that drops packets can block far longer than the timeout of
a connection, so the request runs in a thread that is abandoned."""

_T = TypeVar("_T")


def _nothing() -> None:
    """Do nothing; the default of the callbacks."""


def bounded(
    call: Callable[[], _T],
    should_stop: ShouldStop,
    seconds: float | None = LOOKUP_SECONDS,
    *,
    tick: Callable[[], None] = _nothing,
    leave: Callable[[], None] = _nothing,
) -> _T:
    """Run `call` in a thread and return its result, unless it is stopped or times out.

    Args:
        call: function without arguments.
        should_stop: called about five times a second.
        seconds: timeout; None for no timeout.
        tick: called about five times a second in the waiting thread.
        leave: called before the running thread is abandoned; may signal it to end.

    Raises:
        Cancelled: `should_stop` returned true.
        TimeoutError: the call took more than `seconds`.
        Exception: raised by `call`.
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
