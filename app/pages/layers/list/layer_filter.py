"""The layer filter: a text field, the number of matches, and a button that selects them.

Emits the text; the owner sets the number of matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QLineEdit, QPushButton, QWidget

from app.widgets.tinted_label import TintedLabel

if TYPE_CHECKING:
    from app.theme import Theme


class LayerFilter(QWidget):
    """The filter in one line.

    Signals:
        changed: the text, "" for no filter.
        select_wanted: The matches are to be selected.
    """

    changed = Signal(str)
    select_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.field = QLineEdit(self)
        self.field.setObjectName("filter")
        self.field.setPlaceholderText(self.tr("Filter, such as down"))
        self.field.setAccessibleName(self.tr("Filter layers by name"))
        self.field.setToolTip(
            self.tr(
                "Part of a name, a pattern for the whole name with * and ?, or a regular expression between slashes"
            )
        )
        self.field.setClearButtonEnabled(True)
        for button in self.field.findChildren(QAbstractButton):
            button.setAccessibleName(self.tr("Clear the filter"))
        self.field.setMinimumWidth(6 * self.fontMetrics().averageCharWidth())
        self.field.setMaximumWidth(60 * self.fontMetrics().averageCharWidth())
        self._count = TintedLabel(theme, role="muted", parent=self)
        self._count.setObjectName("match_count")
        self._count.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        # Fixed to the width for most models, so that nothing moves during typing.
        self._count.setMinimumWidth(self.fontMetrics().horizontalAdvance(self.tr("{} layers").format("999")))
        self.select = QPushButton(self.tr("Select"), self)
        self.select.setAccessibleName(self.tr("Select matches"))
        self.select.setObjectName("select_matches")
        self.select.setToolTip(self.tr("Select the matching layers (Enter in the filter)"))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.field, 1000)
        row.addWidget(self._count)
        row.addWidget(self.select)
        row.addStretch(1)
        self.field.textChanged.connect(self.changed)
        self.field.returnPressed.connect(self.select_wanted)
        self.select.clicked.connect(self.select_wanted)

    def show_count(self, count: int, filtered: bool) -> None:
        """Show the number of matching layers, or of all layers without a filter."""
        text = self.tr("1 layer") if count == 1 else self.tr("{} layers").format(f"{count:,}")
        self._set_status(text, "muted" if count or not filtered else "warning")
        self.select.setEnabled(filtered and count > 0)

    def show_error(self, message: str) -> None:
        """Show that the text is not a valid pattern."""
        self._set_status(self.tr("invalid pattern"), "bad")
        self._count.setToolTip(message)
        self.select.setEnabled(False)

    def _set_status(self, text: str, role: str) -> None:
        self._count.set_role(role)
        self._count.setText(text)
        self._count.setToolTip("")
        self.field.setAccessibleDescription(text)
