"""A fake of `app.shared.calls.calls.Calls` that records calls; the test delivers their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.service.messages import Request


@dataclass
class RecordedCall:
    """A started call; a test replaces the child process by calling its callables."""

    request: Any
    on_success: Callable[[Any], object]
    on_failure: Callable[[Any], object]
    on_event: Callable[[Any], object]
    stopped: bool = False

    def stop(self) -> None:
        """Replace `Call.stop`; the result of a stopped call can still be delivered."""
        self.stopped = True


@dataclass
class RecordedCalls:
    """Replacement of `Calls` that records calls and returns no results by itself."""

    started: list[RecordedCall] = field(default_factory=list)

    def start(
        self,
        request: Request[Any],
        *,
        on_success: Callable[[Any], object],
        on_failure: Callable[[Any], object] | None = None,
        on_event: Callable[[Any], object] | None = None,
        prepare: Callable[[Any], Any] | None = None,
    ) -> RecordedCall:
        """Record a call; `on_success` of the record takes what `prepare` would return."""
        call = RecordedCall(request, on_success, on_failure or _ignore, on_event or _ignore)
        self.started.append(call)
        return call

    def is_on(self, request: type[Request[Any]]) -> bool:
        """Replace `Calls.is_on`."""
        return any(isinstance(call.request, request) and not call.stopped for call in self.started)

    def of(self, request: type[Request[Any]]) -> list[RecordedCall]:
        """Return the calls with requests of one class, the first one first."""
        return [call for call in self.started if isinstance(call.request, request)]


def _ignore(_value: Any) -> None:
    """Do nothing, in place of a missing callable."""
