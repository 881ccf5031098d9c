"""Which models can be talked to, and which one is picked.

Keeps the pick in line with the models that there are (`app.pages.chat.known_models`). Knows no widget, and nothing of
loading.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QObject, Signal

from app.pages.chat.known_models import KnownModels
from app.shared import chat_choices
from app.shared.chat_choices import ChatChoice
from app.shared.context import Context

_PICKED: Final = "chat/picked"


class Offers(QObject):
    """The models, and the picked one.

    Signals:
        changed: there are others, or another one is picked.
    """

    changed = Signal()

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._known = KnownModels(context, self)
        self._picked = context.state.value(_PICKED, "")
        self.choices: list[ChatChoice] = []
        self.settled = False
        """Whether something was begun with the picked model, so that it must not be changed for a better one."""
        context.draft.changed.connect(self.refresh)
        self._known.found.connect(self.refresh)

    @property
    def model(self) -> str:
        """What `chat_open` takes; "" where there is no model at all."""
        return self._picked

    @property
    def current(self) -> ChatChoice | None:
        """The picked one."""
        return next((choice for choice in self.choices if choice.name == self._picked), None)

    @property
    def label(self) -> str:
        """Short name of the picked one."""
        choice = self.current
        return choice.label if choice is not None else chat_choices.short_name(self._picked)

    def look(self) -> None:
        """Look for what runs made."""
        self._known.look()

    def pick(self, name: str) -> None:
        """Pick a model."""
        self._picked = name
        self._context.state.set_value(_PICKED, name)
        self.refresh()
        self.changed.emit()

    def add_folder(self, path: str) -> None:
        """Offer a folder that the user opened, unless it is offered already."""
        if self._known.add_folder(path):
            self.refresh()

    def refresh(self) -> None:
        """Find what there is now. Nothing is offered before the first look, or the pick would change under the user."""
        before = self.choices, self._picked
        choices = self._known.choices if self._known.looked or self._picked else []
        known = any(choice.name == self._picked for choice in choices)
        if not known and self._known.looked and not self.settled:
            self._picked = choices[0].name if choices else ""
        elif not known and self._picked:
            choices.append(chat_choices.folder(self._picked))
        self.choices = choices
        if (choices, self._picked) != before:
            self.changed.emit()
