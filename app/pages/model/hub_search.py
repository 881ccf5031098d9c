"""A search of the Hub that follows what is typed: it waits for a pause, keeps one call under way, and can be stopped.

Depends on QtCore only.
"""

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
"""How long typing must rest before anything is asked of the Hub."""
SHORTEST = 2
"""Letters that make a query."""
LIMIT = 50


@dataclass(frozen=True)
class Query:
    """What is looked for; `sort` is one of `core.hub.search.SORTS`."""

    text: str = ""
    sort: str = "downloads"
    hide_quantized: bool = True


class HubSearch(QObject):
    """One search at a time.

    `state` is `idle` (too little to look for), `waiting` (for a pause), `searching`, `found`, `offline` (the Hub did
    not answer; `models` are those in the cache), `stopped` or `failed` (see `error`). While a new query is under way,
    `models` are still those of the one before, so that the list does not flicker.

    Signals:
        changed: the state or the models are others now.
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
        """Search for this after a pause; a text that is too short ends the search."""
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
        """Search now for what was last given; also what `Try again` does."""
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
        """End the search that is under way, if any."""
        if self.state in ("waiting", "searching"):
            self._pause.stop()
            self._drop_call()
            self._set("stopped")

    def _drop_call(self) -> None:
        # The number of the turn keeps an answer out that was under way when its question became an old one.
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
