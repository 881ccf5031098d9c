"""Conversion of a function that emits events into a generator that yields them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.control import ShouldStop, never
from core.events import Emit, Event

Value = TypeVar("Value")
_POLL_SECONDS = 0.2
"""Timeout of a wait on the queue, in seconds: on Windows a wait without a timeout blocks Ctrl-C."""


@dataclass(frozen=True)
class _End(Generic[Value]):
    value: Value


def stream(work: Callable[[Emit, ShouldStop], Value], should_stop: ShouldStop = never) -> Generator[Event, None, Value]:
    """Run `work(emit, should_stop)` in a thread and yield the events that it emits.

    Returns its value and raises its exception. Closing the generator makes `should_stop()` true for the work and waits
    until it ends.
    """
    box: queue.SimpleQueue[Event | BaseException | _End[Value]] = queue.SimpleQueue()
    closed = threading.Event()

    def run() -> None:
        try:
            box.put(_End(work(box.put, lambda: closed.is_set() or should_stop())))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            box.put(error)

    thread = threading.Thread(target=run, name="bitwright-work", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = box.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return item.value
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
