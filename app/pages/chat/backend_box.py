"""The choice of the backend: automatic or forced, the backend in use, and the reasons against the others.

The choice is kept between sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.pages.chat.backend_rows import computing
from app.pages.chat.unused_backends import UnusedBackends
from app.shared.rule_words import counted
from app.state import State
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.inference.backends.backend import BackendRow

AUTO: Final = "auto"
_KEY: Final = "chat/backend"


class BackendBox(QWidget):
    """A combo box with a few lines of text.

    Signals:
        picked(str): the user selected the backend of this name, or `auto`.
    """

    picked = Signal(str)

    def __init__(self, theme: Theme, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._rows: tuple[BackendRow, ...] = ()
        self._wanted = state.value(_KEY, AUTO)
        label = TintedLabel(theme, self.tr("&Backend"), bold=True, parent=self)
        self._box = ElidedBox(self)
        self._box.setObjectName("chat_backend_pick")
        self._box.setToolTip(self.tr("Layers that this backend does not support use the next one that does"))
        self._box.activated.connect(self._activate)
        label.setBuddy(self._box)
        self._used = Note(theme, parent=self)
        self._used.setObjectName("chat_backend")
        self._others = UnusedBackends(theme, self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (label, self._box, self._used, self._others):
            column.addWidget(widget)
        self._fill()

    @property
    def current(self) -> str:
        """The selected name, or `auto`."""
        return self._wanted

    def set_rows(self, rows: Sequence[BackendRow]) -> None:
        """Set the backends of the device, or of the loaded model."""
        if tuple(rows) != self._rows:
            self._rows = tuple(rows)
            self._fill()

    def set_used(self, text: str) -> None:
        """Set the text about the backends in use."""
        self._used.set_text(text)

    def use_automatic(self) -> None:
        """Select the automatic backend."""
        self._choose(AUTO)
        self._box.setCurrentIndex(0)

    def _fill(self) -> None:
        self._box.clear()
        self._box.addItem(self.tr("Automatic"), AUTO)
        for row in self._rows:
            if row.usable:
                self._box.addItem(row.title or row.name, row.name)
                self._box.setItemData(self._box.count() - 1, self._tip(row), Qt.ItemDataRole.ToolTipRole)
        if self._box.findData(self._wanted) < 0:
            known = bool(self._rows)
            words = self.tr("{name} (not available)") if known else "{name}"
            self._box.addItem(words.format(name=self._wanted), self._wanted)
        self._box.fit_list()
        self._box.setCurrentIndex(self._box.findData(self._wanted))
        self._others.show_rows([row for row in self._rows if not row.layers and (row.why_not or not row.usable)])

    def _tip(self, row: BackendRow) -> str:
        return self.tr("{name}: supports {what}").format(name=row.name, what=row.takes) if row.takes else row.name

    def _activate(self, index: int) -> None:
        name = str(self._box.itemData(index))
        if name != self._wanted:
            self._choose(name)
            self.picked.emit(name)

    def _choose(self, name: str) -> None:
        self._wanted = name
        self._state.set_value(_KEY, name)


def words_of(rows: Sequence[BackendRow], runner: str = "") -> str:
    """Return the backends that compute the model: `compiled kernels (208 layers), plain torch (2 layers)`.

    Args:
        rows: the backends of the loaded model.
        runner: the runner of the whole model, used if no layers are counted.
    """
    parts = [f"{row.title or row.name} ({counted(row.layers)})" for row in computing(rows)]
    whole = [row.title or row.name for row in rows if row.name == runner]
    return ", ".join(parts or whole)
