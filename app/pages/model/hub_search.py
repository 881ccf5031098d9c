"""Search of the Hub while the user types: starts after a pause, one call at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from core.errors import BitwrightError
from core.hub.records import FoundModel, SearchResults
from core.service.messages import SearchHub

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls

PAUSE_MS = 350
"""Pause after typing before the Hub is searched."""
SHORTEST = 2
"""Minimum number of characters of a query."""
LIMIT = 50


@dataclass(frozen=True)
class Query:
    """A search query; `sort` is one of `core.hub.search.SORTS`."""

    text: str = ""
    sort: str = "downloads"
    hide_quantized: bool = True


class HubSearch(QObject):
    """One search at a time.

    `state` is `idle` (the query is too short), `waiting` (for a pause), `searching`, `found`, `offline` (the Hub is not
    reachable; `models` are those in the cache), `stopped` or `failed` (see `error`). During a new search, `models` are
    the results of the previous one, so that the list does not flicker.

    Signals:
        changed: the state or the models changed.
    """

    changed = Signal()

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._call: Call | None = None
        self._turn = 0
        self._pause = QTimer(self, interval=PAUSE_MS, singleShot=True)
        self._pause.timeout.connect(self.ask)
        self.query = Query()
        self.state = "idle"
        self.models: list[FoundModel] = []
        self.error: BitwrightError | None = None

    def search(self, query: Query) -> None:
        """Search after a pause in typing; a query that is too short ends the search."""
        if query == self.query and self.state != "stopped":
            return
        self._drop_call()
        self.query = query
        if len(query.text) < SHORTEST:
            self._pause.stop()
            self.models = []
            self._set("idle")
        else:
            self._pause.start()
            self._set("waiting")

    def ask(self) -> None:
        """Start the last query now, also for `Try again`."""
        self._pause.stop()
        self._drop_call()
        if len(self.query.text) < SHORTEST:
            return
        turn = self._turn
        self._set("searching")
        self._call = self._calls.start(
            SearchHub(self.query.text, LIMIT, self.query.sort, self.query.hide_quantized),
            on_success=lambda result: self._found(turn, result),
            on_failure=lambda error: self._failed(turn, error),
        )

    def stop(self) -> None:
        """Stop an active search."""
        if self.state in ("waiting", "searching"):
            self._pause.stop()
            self._drop_call()
            self._set("stopped")

    def _drop_call(self) -> None:
        # The turn number identifies late results of replaced calls, which are dropped.
        self._turn += 1
        call, self._call = self._call, None
        if call is not None:
            call.stop()

    def _found(self, turn: int, result: SearchResults) -> None:
        if turn == self._turn:
            self._call = None
            self.models = list(result.models)
            self._set("offline" if result.offline else "found")

    def _failed(self, turn: int, error: BitwrightError) -> None:
        if turn == self._turn:
            self._call = None
            self.models, self.error = [], error
            self._set("failed")

    def _set(self, state: str) -> None:
        self.state = state
        if state != "failed":
            self.error = None
        self.changed.emit()
