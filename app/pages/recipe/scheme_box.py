"""Default bits, group size and symmetry of the layers, and the output formats.

Shows the values that it is given and emits changes.
"""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from app.pages.recipe.format_box import FitOf, FormatBox
from app.shared.formats import words as format_words
from app.shared.formats.fit import own_grids
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.segmented import Option, Segmented
from core.schemes import BITS, LayerScheme


class SchemeBox(QWidget):
    """Three rows of options for the layers, and the formats.

    Signals:
        scheme_chosen: the new scheme and the text of the change for undo.
        formats_chosen: the names of the selected formats.
    """

    scheme_chosen = Signal(object, str)
    formats_chosen = Signal(tuple)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scheme = LayerScheme()
        self._bits = Segmented(
            theme,
            [Option(n, str(n), self.tr("{n} bits").format(n=n), color=theme.bits_color(n)) for n in BITS],
            self,
        )
        self._bits.setObjectName("bits")
        self._size = Note(theme, parent=self)
        self._size.setObjectName("size")
        sizes = [Option(size, str(size), self.tr("Groups of {n} weights").format(n=size)) for size in (32, 64, 128)]
        row = Option(-1, self.tr("row"), self.tr("One group per row"))
        self._group = Segmented(theme, [*sizes, row], self)
        self._group.setObjectName("group")
        self._group_note = Note(theme, parent=self)
        self._group_note.setObjectName("group-note")
        self._sym = Segmented(
            theme,
            (
                Option(True, self.tr("Symmetric"), tip=self.tr("No zero point, supported by most engines")),
                Option(False, self.tr("Asymmetric"), tip=self.tr("With a zero point for each group")),
            ),
            self,
        )
        self._sym.setObjectName("sym")
        self._sym_note = Note(theme, parent=self)
        self.formats = FormatBox(theme, self)
        self.formats.chosen.connect(self.formats_chosen)
        self._bits.chosen.connect(lambda bits: self._choose(replace(self._scheme, bits=bits), f"{bits} bits"))
        self._group.chosen.connect(self._choose_group)
        self._sym.chosen.connect(
            lambda sym: self._choose(replace(self._scheme, sym=sym), "symmetric" if sym else "asymmetric")
        )
        self._lay_out()

    def show_values(self, scheme: LayerScheme, formats: tuple[str, ...], fit: FitOf, size: str) -> None:
        """Show the scheme and the formats; `size` is a line about the output size, `fit` the result for each format."""
        self._scheme = scheme
        self._bits.set_value(scheme.bits)
        self._group.set_value(scheme.group_size)
        self._sym.set_value(scheme.sym)
        self._size.set_text(size)
        self.formats.show_formats(formats, fit)
        grids = own_grids(formats)
        for field in (self._bits, self._group, self._sym):
            field.setEnabled(not grids)
        if grids:
            words = self.tr(
                "Bits, group size and symmetry are set by {}. Bits of single layers, set on the map, still apply."
            )
            self._group_note.set_text(words.format(format_words.title(grids[0])))
            self._sym_note.set_text("")
            return
        self._group_note.set_text(
            self.tr("Number of weights that share a scale. Smaller groups are more accurate and need more space.")
        )
        self._sym_note.set_text(
            self.tr("Without a zero point; supported by most engines.")
            if scheme.sym
            else self.tr("With a zero point, which helps at 2 bits; supported by fewer engines.")
        )

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        rows = (
            (self.tr("Bits"), self._bits, self._size),
            (self.tr("Group size"), self._group, self._group_note),
            (self.tr("Range"), self._sym, self._sym_note),
        )
        for number, (text, field, note) in enumerate(rows):
            label = QLabel(text, self)
            label.setBuddy(field)
            grid.addWidget(label, 3 * number, 0)
            grid.addWidget(field, 3 * number, 1)
            grid.addWidget(note, 3 * number + 1, 1)
            grid.setRowMinimumHeight(3 * number + 2, 8)
        label = QLabel(self.tr("Formats"), self)
        label.setBuddy(self.formats)
        label.setContentsMargins(0, 5, 0, 0)  # aligned with the first row
        grid.addWidget(label, 3 * len(rows), 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(self.formats, 3 * len(rows), 1)

    def _choose(self, scheme: LayerScheme, text: str) -> None:
        self.scheme_chosen.emit(scheme, text)

    def _choose_group(self, size: int) -> None:
        self._choose(replace(self._scheme, group_size=size), "one group per row" if size == -1 else f"group {size}")
