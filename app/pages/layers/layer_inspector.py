"""The settings of the selected layers, the buttons that change them, and the problems of these settings.

Shows a `SelectionSummary` and emits the requested changes. Does not change the bits map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QBoxLayout,
    QFrame,
    QGridLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from app.pages.layers.layer_sheet import LayerSheet, SelectionSummary
from app.shared.formats import words as format_words
from app.widgets.note import Note
from app.widgets.segmented import Option, Segmented
from app.widgets.tinted_label import TintedLabel
from core.formats.engines import EngineIssue
from core.formats.names import mix_of
from core.schemes import BITS, UNTOUCHED
from core.wording import figure, human

if TYPE_CHECKING:
    from app.theme import Theme

_GROUPS: Final = (32, 64, 128)
_MOST_LINES: Final = 3
"""Number of reasons that are listed individually."""
_ARROW: Final = "\N{RIGHTWARDS ARROW}"


class LayerInspector(QFrame):
    """The view of the side panel that shows and changes the selected layers.

    Signals:
        wanted: a new value for the selected layers: `bits`, `group_size` or `sym`, and the value.
    """

    wanted = Signal(str, object)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("layer_inspector")
        self._title = TintedLabel(theme, bold=True, wrap=True, parent=self)
        self._title.setObjectName("selection_title")
        self._title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._help = Note(theme, parent=self)
        self.bits = self._choice(theme, "bits", self._bits_options(theme))
        self.group = self._choice(theme, "group_size", self._group_options())
        self.sym = self._choice(theme, "sym", self._sym_options())
        self._mixed = {name: Note(theme, parent=self) for name in ("bits", "group_size", "sym")}
        self._why = Note(theme, role="", parent=self)
        self._why.setObjectName("why")
        self._size = Note(theme, role="", parent=self)
        self._size.setObjectName("selection_size")
        self._part = Note(theme, role="", parent=self)
        self._part.setObjectName("stored_in")
        self._fallback = Note(theme, role="warning", parent=self)
        self._fallback.setObjectName("fallback")
        self._loss_increase = Note(theme, role="", parent=self)
        self._loss_increase.setObjectName("selection_loss_increase")
        self._marks = Note(theme, role="bad", parent=self)
        self._marks.setObjectName("selection_marks")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._upper(theme), 1)
        self.show_selection(None, None)

    def show_selection(
        self, sheet: LayerSheet | None, summary: SelectionSummary | None, layers: Collection[int] = ()
    ) -> None:
        """Show the settings of the selected layers; if there are none, how to select some."""
        some = sheet is not None and summary is not None and summary.count > 0
        for choice in (self.bits, self.group, self.sym):
            choice.setEnabled(some)
        for label in (self._why_label, self._size_label):
            label.setVisible(some)
        if sheet is None or summary is None or not some:
            self._title.setText(self.tr("No layer selected"))
            self._help.set_text(
                self.tr(
                    "Click or drag on the map, click a title or a block number, or press Ctrl+A. Then 2, 3, 4 or 8."
                )
            )
            for choice in (self.bits, self.group, self.sym):
                choice.set_value(None)
            self._loss_increase_label.hide()
            self._part_label.hide()
            for note in (
                *self._mixed.values(),
                self._why,
                self._part,
                self._size,
                self._fallback,
                self._loss_increase,
                self._marks,
            ):
                note.set_text("")
            return
        self._show_names(sheet, layers)
        self._show_schemes(summary, format_words.title(sheet.format_name) if mix_of(sheet.format_name) else "")
        self._why.set_text(breakable(_lines(summary.whys, summary.count)), "")
        self._fallback.set_text(_lines(summary.fallbacks, summary.count), "warning")
        self._size.set_text(f"{human(summary.before)} {_ARROW} {human(summary.after)}", "")
        self._size.setToolTip(f"{summary.before:,} {_ARROW} {summary.after:,} bytes")
        self._show_loss_increase(summary)

    def show_marks(self, marks: Iterable[EngineIssue], selected: int) -> None:
        """Show the problems that the target inference engine has with the selected layers."""
        found = list(marks)
        reasons = Counter(mark.reason for mark in found)
        self._marks.set_text(_lines(reasons, selected), "bad" if any(mark.cannot for mark in found) else "warning")

    def _show_names(self, sheet: LayerSheet, layers: Collection[int]) -> None:
        """Show the name and the shape of the only layer, or of the experts of a module, and where they are stored."""
        first, module = min(layers), sheet.module_of(layers)
        shape = f"{sheet.shape(first)}, {sheet.linear(first).dtype}"
        if len(layers) == 1:
            title, about = breakable(sheet.linear(first).name), shape
        elif module:
            title, about = breakable(module), self.tr("{0} experts, {1} each").format(f"{len(layers):,}", shape)
        else:
            title, about = self.tr("{} layers selected").format(f"{len(layers):,}"), ""
        self._title.setText(title)
        self._help.set_text(about)
        stored = sheet.stored_in(layers)
        self._part.set_text(breakable(stored), "")
        self._part_label.setVisible(bool(stored))

    def _show_loss_increase(self, summary: SelectionSummary) -> None:
        now, most = summary.loss_increase_now, summary.loss_increase_before
        self._loss_increase_label.setVisible(now is not None)
        if now is None or most is None:
            self._loss_increase.set_text("")
            return
        self._loss_increase.set_text(self.tr("{0} of {1} at the fewest bits").format(figure(now), figure(most)), "")
        self._loss_increase.setToolTip(self.tr("Predicted loss increase in nats per token, before tuning"))

    def _show_schemes(self, summary: SelectionSummary, decided_by: str) -> None:
        """Show bits, group size and symmetry; the last two cannot be changed if the output format fixes them."""
        schemes: tuple[tuple[str, Segmented, Mapping[Any, int]], ...] = (
            ("bits", self.bits, summary.bits),
            ("group_size", self.group, summary.groups),
            ("sym", self.sym, summary.syms),
        )
        for name, choice, counts in schemes:
            values = sorted(counts)
            choice.set_value(values[0] if len(values) == 1 else None)
            choice.setEnabled(name == "bits" or (bool(values) and not decided_by))
            if len(values) == 1:
                said = "" if choice.value is not None else self.tr("Now {}").format(self._worded(name, values[0]))
            else:
                parts = [self.tr("{0:,} at {1}").format(counts[value], self._worded(name, value)) for value in values]
                said = self.tr("Mixed: {}").format(", ".join(parts)) if parts else ""
            if decided_by and name == "sym":
                said = " ".join(
                    filter(None, (said, self.tr("Group size and symmetry are set by {}.").format(decided_by)))
                )
            self._mixed[name].set_text(said)

    def _worded(self, name: str, value: Any) -> str:
        if name == "sym":
            return self.tr("symmetric") if value else self.tr("asymmetric")
        return self.tr("row") if value == -1 else str(value)

    def _choice(self, theme: Theme, name: str, options: list[Option]) -> Segmented:
        choice = Segmented(theme, options, self)
        choice.setObjectName(f"selected_{name}")
        choice.chosen.connect(lambda value: self.wanted.emit(name, value))
        return choice

    def _bits_options(self, theme: Theme) -> list[Option]:
        options = [Option(n, str(n), self.tr("{n} bits").format(n=n), theme.bits_color(n)) for n in BITS]
        left = self.tr("Keep in 16 bits")
        return [*options, Option(UNTOUCHED, str(UNTOUCHED), left, theme.bits_color(UNTOUCHED))]

    def _group_options(self) -> list[Option]:
        sizes = [Option(size, str(size), self.tr("Groups of {n} weights").format(n=size)) for size in _GROUPS]
        return [*sizes, Option(-1, self.tr("row"), self.tr("One group per row"))]

    def _sym_options(self) -> list[Option]:
        return [
            Option(True, self.tr("Symmetric"), self.tr("Symmetric: no zero point, supported by most engines")),
            Option(False, self.tr("Asymmetric"), self.tr("Asymmetric: with a zero point for each group")),
        ]

    def _upper(self, theme: Theme) -> QWidget:
        self._why_label = TintedLabel(theme, self.tr("Why"), role="muted", parent=self)
        self._size_label = TintedLabel(theme, self.tr("Size"), role="muted", parent=self)
        upper = QVBoxLayout()
        upper.setSpacing(4)
        upper.addWidget(self._title)
        upper.addWidget(self._help)
        for text, choice, name in (
            (self.tr("&Bits"), self.bits, "bits"),
            (self.tr("&Group size"), self.group, "group_size"),
            (self.tr("S&ymmetry"), self.sym, "sym"),
        ):
            label = QLabel(text, self)
            label.setBuddy(choice)
            upper.addSpacing(8)
            upper.addWidget(label)
            upper.addWidget(choice)
            upper.addWidget(self._mixed[name])
        facts = QGridLayout()
        facts.setColumnStretch(1, 1)
        facts.setHorizontalSpacing(8)
        facts.setVerticalSpacing(4)
        self._loss_increase_label = TintedLabel(theme, self.tr("Loss increase"), role="muted", parent=self)
        self._part_label = TintedLabel(theme, self.tr("Slice of"), role="muted", parent=self)
        pairs = (
            (self._part_label, self._part),
            (self._why_label, self._why),
            (self._size_label, self._size),
            (self._loss_increase_label, self._loss_increase),
        )
        for number, (about, note) in enumerate(pairs):
            facts.addWidget(about, number, 0, Qt.AlignmentFlag.AlignTop)
            facts.addWidget(note, number, 1)
        upper.addSpacing(8)
        upper.addLayout(facts)
        upper.addWidget(self._fallback)
        upper.addWidget(self._marks)
        upper.addStretch(1)
        return _scrolled(upper)


def breakable(name: str) -> str:
    """Return `name` with zero-width spaces after its dots, so that lines can break there."""
    return name.replace(".", ".\N{ZERO WIDTH SPACE}")


def _lines(counts: Mapping[Any, int], total: int) -> str:
    """Return the most frequent reasons, each with its number of layers unless it applies to all of them."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    lines = [text if count == total else f"{text} ({count:,})" for text, count in ordered[:_MOST_LINES]]
    rest = len(ordered) - _MOST_LINES
    return "\n".join([*lines, f"and {rest} more"] if rest > 0 else lines)


def _scrolled(layout: QBoxLayout) -> QScrollArea:
    """Return a scroll area around `layout` that scrolls only if the window is too low for it."""
    inner = QWidget()
    layout.setContentsMargins(0, 0, 4, 0)
    inner.setLayout(layout)
    area = QScrollArea()
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidgetResizable(True)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(inner)
    return area
