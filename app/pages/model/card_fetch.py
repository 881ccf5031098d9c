"""Download of the card of the current model. Depends on QtCore only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.pages.model.card import fit_card
from core.errors import BitwrightError
from core.hub.records import ModelCard
from core.service.messages import FetchCard

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls


class CardFetch(QObject):
    """One card at a time.

    `text` is the card (Markdown, "" for a model without one), `error` the reason why it could not be fetched; both are
    None during the download. `license` is the license of the model, and `stated_by` its source; "" if unknown.

    Signals:
        changed: the model changed, or its card or an error arrived.
    """

    changed = Signal()

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._call: Call | None = None
        self.name = ""
        self.text: str | None = None
        self.license = self.stated_by = ""
        self.error: BitwrightError | None = None

    def fetch(self, name: str) -> None:
        """Fetch the card of a model, unless it was fetched last."""
        if name == self.name:
            return
        self.forget()
        self.name = name
        self._call = self._calls.start(
            FetchCard(name),
            on_success=lambda card: self._came(name, card),
            on_failure=lambda error: self._failed(name, error),
        )
        self.changed.emit()

    def forget(self) -> None:
        """Discard the card and cancel a download."""
        call, self._call = self._call, None
        self.name, self.text, self.error = "", None, None
        self.license = self.stated_by = ""
        if call is not None:
            call.stop()

    def _came(self, name: str, card: ModelCard) -> None:
        if name == self.name:
            self._call = None
            self.text = fit_card(card.text)
            self.license, self.stated_by = card.license, card.stated_by
            self.changed.emit()

    def _failed(self, name: str, error: BitwrightError) -> None:
        if name == self.name:
            self._call = None
            self.error = error
            self.changed.emit()
