"""Stands in for `app.shared.calls.calls.Calls` where a test decides what the service answers, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RecordedCall:
    """One call that was started; a test plays the service by calling the callables."""

    name: str
    arguments: dict[str, Any]
    on_success: Callable[[Any], object]
    on_failure: Callable[[Any], object]
    on_event: Callable[[Any], object]
    stopped: bool = False

    def stop(self) -> None:
        """What `Call.stop` is; the answers of a stopped call may still be played, as if they had been on their way."""
        self.stopped = True


@dataclass
class RecordedCalls:
    """Notes what is started and answers nothing by itself."""

    started: list[RecordedCall] = field(default_factory=list)

    def start(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        on_success: Callable[[Any], object],
        on_failure: Callable[[Any], object] | None = None,
        on_event: Callable[[Any], object] | None = None,
    ) -> RecordedCall:
        """As `Calls.start`."""
        call = RecordedCall(name, arguments, on_success, on_failure or _nobody, on_event or _nobody)
        self.started.append(call)
        return call

    def is_on(self, name: str) -> bool:
        """As `Calls.is_on`."""
        return any(call.name == name and not call.stopped for call in self.started)

    def of(self, name: str) -> list[RecordedCall]:
        """The calls of one kind, the first one first."""
        return [call for call in self.started if call.name == name]


def _nobody(_value: Any) -> None:
    """Where a page did not want to know."""
