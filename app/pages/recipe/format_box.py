"""The output formats: a row per family with a list of its types, and why a format does not support the bits map.

Shows the values that it is given and emits the selection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QGridLayout, QWidget

from app.shared.formats import words as format_words
from app.shared.formats.fit import FormatFit, own_grids
from app.shared.formats.words import Family
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from app.widgets.wheel_guard import WheelGuard
from core.wording import human

FitOf = Callable[[str], FormatFit]
_AT_ONCE = 0.04
"""Maximum time in seconds to compute sizes before a list opens."""
_LETTERS = 26
"""Width of the list of types in characters."""


class FormatBox(QWidget):
    """A row for each family of formats, of which at least one is checked.

    Signals:
        chosen: the names of the selected formats, in the order of the families.
    """

    chosen = Signal(tuple)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._formats: tuple[str, ...] = ()
        self._fit: FitOf = _unknown
        self._rows = [_Row(theme, family, self) for family in format_words.families()]
        self._note = Note(theme, role="warning", parent=self)
        self._note.setObjectName("format-note")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(2, 1)
        for number, row in enumerate(self._rows):
            row.tick.clicked.connect(self._choose)
            grid.addWidget(row.tick, 3 * number, 0)
            grid.addWidget(row.size, 3 * number, 2)
            grid.addWidget(row.note, 3 * number + 1, 1, 1, 2)
            grid.setRowMinimumHeight(3 * number + 2, 4)
            grid.addWidget(row.types or row.only, 3 * number, 1)
            if row.types is not None:
                row.types.activated.connect(lambda _index, row=row: self._choose_type(row))
                row.types.opened.connect(lambda row=row: row.set_sizes(self._fit))
        grid.addWidget(self._note, 3 * len(self._rows), 0, 1, 3)
        self.setFocusProxy(self._rows[0].tick)

    def show_formats(self, formats: Sequence[str], fit: FitOf) -> None:
        """Show these formats as selected; `fit` returns how a format stores the layers."""
        self._formats, self._fit = tuple(formats), fit
        self._note.set_text("")
        for row in self._rows:
            mine = [name for name in formats if name in row.family.formats]
            row.tick.setChecked(bool(mine))
            if mine:
                row.set_format(mine[0])
            row.show_fit(fit(row.format), self._rival(row))

    def _rival(self, row: _Row) -> str:
        """Return the selected format of another family that prescribes its own quantization grid."""
        grids = own_grids(self._formats)
        return next((name for name in grids if name not in row.family.formats), "")

    def _choose_type(self, row: _Row) -> None:
        """Handle another type of a family: selecting a type also checks the family."""
        row.tick.setChecked(True)
        self._choose()

    def _choose(self) -> None:
        picked = tuple(row.format for row in self._rows if row.tick.isChecked())
        if picked:
            self._note.set_text("")
            self.chosen.emit(picked)
            return
        for row in self._rows:
            row.tick.setChecked(any(name in row.family.formats for name in self._formats))
        self._note.set_text(self.tr("A run writes at least one format."), "warning")


class _Row:
    """The widgets of one family."""

    def __init__(self, theme: Theme, family: Family, box: FormatBox) -> None:
        self.family = family
        self.tick = QCheckBox(family.title, box)
        self.tick.setObjectName(f"format-{family.id}")
        self.tick.setToolTip(family.about)
        self.types = _types(family, box) if len(family.formats) > 1 else None
        self.only = TintedLabel(theme, format_words.variant(family.formats[0]), role="muted", parent=box)
        self.only.setVisible(self.types is None)
        self.size = TintedLabel(theme, role="muted", parent=box)
        self.size.setObjectName(f"format-size-{family.id}")
        self.note = Note(theme, parent=box)
        self.note.setObjectName(f"format-note-{family.id}")

    @property
    def format(self) -> str:
        """The format that is written if the family is checked."""
        return self.types.currentData() if self.types is not None else self.family.formats[0]

    def set_format(self, name: str) -> None:
        """Select this type in the list."""
        if self.types is not None:
            self.types.setCurrentIndex(self.types.findData(name))

    def set_sizes(self, fit: FitOf) -> None:
        """Show the size of each type in the open list, if it can be computed in time."""
        until = time.monotonic() + _AT_ONCE
        for name in self.family.formats:
            size = fit(name).size if self.types is not None and time.monotonic() < until else 0
            if self.types is not None and size:
                text = f"{format_words.variant(name)}, {human(size)}"
                self.types.setItemText(self.types.findData(name), text)

    def show_fit(self, fit: FormatFit, rival: str) -> None:
        """Show how this format stores the layers.

        Args:
            rival: a selected format that prescribes the quantization grid, "" for none.
        """
        ticked = self.tick.isChecked()
        self.size.setText(human(fit.size) if fit.size else "")
        self.size.setToolTip(f"{fit.size:,} bytes" if fit.size else "")
        why = format_words.obstacle(fit, rival)
        if why and not (rival and not ticked):  # the rival itself shows that it excludes others
            self.note.set_text(why, "bad" if ticked else "muted")
        else:
            self.note.set_text(" ".join((format_words.about(self.format), *fit.notes)) if ticked else "")
        self.note.setToolTip("\n".join(fit.problems))
        self.tick.setAccessibleDescription(why or self.note.text() or self.family.about)


class _TypeBox(ElidedBox):
    """A list of types that shows their sizes while it is open.

    Signals:
        opened: The list is about to be shown.
    """

    opened = Signal()

    def showPopup(self) -> None:
        self.opened.emit()
        self.fit_list()
        super().showPopup()

    def hidePopup(self) -> None:
        super().hidePopup()
        for place in range(self.count()):
            if self.itemData(place):
                self.setItemText(place, format_words.variant(self.itemData(place)))


def _unknown(_name: str) -> FormatFit:
    return FormatFit()


def _types(family: Family, parent: QWidget) -> _TypeBox:
    box = _TypeBox(parent)
    box.setObjectName(f"format-type-{family.id}")
    box.setAccessibleName(parent.tr("Type of {}").format(family.title))
    box.setMinimumContentsLength(_LETTERS)
    box.setMaxVisibleItems(20)
    for number, group in enumerate(family.groups):
        if number:
            box.insertSeparator(box.count())
        for name in group:
            box.addItem(format_words.variant(name), name)
            box.setItemData(box.count() - 1, format_words.about(name), Qt.ItemDataRole.ToolTipRole)
    box.fit_list()
    WheelGuard(box)
    return box
