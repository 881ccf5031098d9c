"""The Budget view: the limit of the output, and the map with the smallest predicted loss increase within it.

Shows values and emits requests; `BudgetControl` measures and computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.pages.layers.budget.amount import BudgetAmount
from app.pages.layers.budget.pareto_plot import ParetoPlot
from app.pages.layers.budget.pattern_field import PatternField
from app.widgets.note import Note
from app.widgets.segmented import Option, Toggles
from app.widgets.tinted_label import TintedLabel
from app.widgets.transfer_bar import TransferBar
from app.widgets.wheel_guard import WheelGuard
from core.model.fused import FusedModules
from core.schemes import BITS, UNTOUCHED
from core.sensitivity.spec import MEASURES

if TYPE_CHECKING:
    from app.state import State
    from app.theme import Theme

_KIND, _CHOICES, _FUSED = "layers/budget", "layers/choices", "layers/fused"
_FUSED_NAMES: Final = ("fuse_qkv", "fuse_gate_up", "experts")


class BudgetPanel(QScrollArea):
    """The Budget view of the side panel.

    Signals:
        kind_chosen(str): the selected kind of budget; its steps must be shown.
        changed: The choices, fused modules, fixed layers or minimum bits changed.
        measure_chosen(str): the method to predict the loss increase.
        measuring_wanted, keep_wanted, allocate_wanted: The button was pressed.
    """

    kind_chosen = Signal(str)
    changed = Signal()
    measure_chosen = Signal(str)
    measuring_wanted = Signal()
    keep_wanted = Signal()
    allocate_wanted = Signal()

    def __init__(self, theme: Theme, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._known, self._blocked = False, ""
        inner = QWidget()
        self._make_upper(theme, inner)
        self._make_lower(theme, inner)
        self._lay_out(theme, inner)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(inner)
        self._connect()
        self.show_measuring(on=False)

    def _make_upper(self, theme: Theme, inner: QWidget) -> None:
        self.amount = BudgetAmount(theme, self._state.value(_KIND, "bpw"), inner)
        self.allocate = QPushButton(self.tr("Allocate"), inner)
        self.allocate.setObjectName("allocate")
        self.result = Note(theme, role="", parent=inner)
        self.result.setObjectName("budget_result")
        self.measure = QComboBox(inner)
        self.measure.setObjectName("measure")
        self.measure.setAccessibleName(self.tr("Method to predict the loss increase"))
        for measure in MEASURES:
            self.measure.addItem(measure.title, measure.name)
        WheelGuard(self.measure)
        self._about = Note(theme, parent=inner)
        self._about.setObjectName("measure_about")
        self.start = QPushButton(self.tr("Measure sensitivity"), inner)
        self.start.setObjectName("measure_start")
        stages = {"prepare": self.tr("Reading the calibration text"), "analyse": self.tr("Measuring the sensitivity")}
        self.measuring = TransferBar(theme, inner, stages=stages)
        self.problem = Note(theme, role="bad", parent=inner)
        self.problem.setObjectName("measure_problem")
        self.plot_place = QVBoxLayout()
        self.plot = ParetoPlot(theme, inner)

    def _make_lower(self, theme: Theme, inner: QWidget) -> None:
        options = [
            Option(n, str(n), self.tr("Allow {} bits").format(n), theme.bits_color(n)) for n in (*BITS, UNTOUCHED)
        ]
        self.bits = Toggles(theme, options, inner)
        self.bits.setObjectName("budget_choices")
        self.bits.set_values(self._state.value(_CHOICES, list(BITS)) or BITS)
        self._fused_title = TintedLabel(theme, self.tr("Fused modules"), bold=True, parent=inner)
        texts = (self.tr("q, k, v"), self.tr("gate, up"), self.tr("experts"))
        remembered: dict[str, bool] = self._state.value(_FUSED, {})
        self.fused_boxes: dict[str, QCheckBox] = {}
        for name, text in zip(_FUSED_NAMES, texts, strict=True):
            box = self.fused_boxes[name] = QCheckBox(text, inner)
            box.setObjectName(f"fused_{name}")
            box.setChecked(bool(remembered.get(name, True)))
        self.min_bits = PatternField(theme, "min_bits", self.tr("At least"), "*.down_proj = 4", inner)
        self.pins = PatternField(theme, "pins", self.tr("Fixed"), "lm_head = 8", inner)
        self.keep = QPushButton(self.tr("Fix selected layers"), inner)
        self.keep.setObjectName("keep_selection")
        self.keep.setToolTip(self.tr("Add the selected layers to the fixed layers with their current settings"))

    @property
    def choices(self) -> tuple[int, ...]:
        """The numbers of bits that may be allocated."""
        return self.bits.values

    @property
    def fused(self) -> FusedModules:
        """The kinds of fused modules whose layers get the same scheme."""
        return FusedModules(**{name: box.isChecked() for name, box in self.fused_boxes.items()})

    def show_fused(self, reasons: dict[str, str]) -> None:
        """Show the kinds of fused modules of this model, by the names of `FusedModules`, with their reasons."""
        for name, box in self.fused_boxes.items():
            reason = reasons.get(name, "")
            box.setVisible(bool(reason))
            sentence = f"{reason[:1].upper()}{reason[1:]}." if reason else ""
            box.setToolTip(sentence)
            box.setAccessibleDescription(sentence)
        self._fused_title.setVisible(bool(reasons))

    def show_measure(self, measure: str, *, known: bool) -> None:
        """Show the method and whether this model was measured with it."""
        place = max(0, self.measure.findData(measure))
        self.measure.setCurrentIndex(place)
        self._about.set_text(MEASURES[place].about)
        self._known = known
        self._enable()

    def show_measuring(self, *, on: bool, problem: str = "") -> None:
        """Show that a measurement is in progress, or why the last one failed."""
        self.measuring.setVisible(on)
        self._enable()
        self.measure.setEnabled(not on)
        self.problem.set_text(problem, "bad")
        if on:
            self.measuring.begin(self.tr("Opening the model"))

    def show_problem(self, problem: str) -> None:
        """Show why there is no curve; "" if there is one."""
        self.problem.set_text(problem, "bad")

    def show_ready(self, reason: str) -> None:
        """Show why allocation is not possible; "" if it is."""
        self.allocate.setEnabled(not reason)
        self.allocate.setToolTip(reason)

    def clear(self) -> None:
        """Clear the rules for single layers: another model has other layer names."""
        self.pins.text.clear()
        self.min_bits.text.clear()
        self.show_problem("")

    def set_blocked(self, reason: str) -> None:
        """Show why measuring is not possible now; "" if it is."""
        self._blocked = reason
        self._enable()

    def show_result(self, text: str, role: str = "") -> None:
        """Show the result of an allocation."""
        self.result.set_text(text, role)

    def _enable(self) -> None:
        self.start.setVisible(not self._known and self.measuring.isHidden())
        self.start.setEnabled(not self._blocked)
        self.start.setToolTip(self._blocked)

    def _lay_out(self, theme: Theme, inner: QWidget) -> None:
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 4, 0)
        column.setSpacing(8)
        column.addWidget(self.amount)
        column.addLayout(_row(self.allocate))
        column.addWidget(self.result)
        column.addWidget(TintedLabel(theme, self.tr("Predicted loss increase"), bold=True, parent=inner))
        column.addWidget(self.measure)
        column.addWidget(self._about)
        column.addLayout(_row(self.start))
        column.addWidget(self.measuring)
        column.addWidget(self.problem)
        column.addLayout(self.plot_place)
        column.addWidget(TintedLabel(theme, self.tr("Allowed bits"), bold=True, parent=inner))
        column.addWidget(self.bits)
        column.addWidget(self._fused_title)
        for box in self.fused_boxes.values():
            column.addWidget(box)
        column.addWidget(self.min_bits)
        column.addWidget(self.pins)
        column.addLayout(_row(self.keep))
        column.addStretch(1)

    def _connect(self) -> None:
        self.amount.kind_chosen.connect(self._choose_kind)
        self.amount.entered.connect(self.allocate.click)
        self.allocate.clicked.connect(self.allocate_wanted)
        self.measure.activated.connect(lambda _index: self.measure_chosen.emit(self.measure.currentData()))
        self.start.clicked.connect(self.measuring_wanted)
        self.keep.clicked.connect(self.keep_wanted)
        self.bits.changed.connect(self._changed)
        for box in self.fused_boxes.values():
            box.clicked.connect(self._changed)
        self.min_bits.changed.connect(self.changed)
        self.pins.changed.connect(self.changed)

    def _choose_kind(self, kind: str) -> None:
        self._state.set_value(_KIND, kind)
        self.kind_chosen.emit(kind)

    def _changed(self) -> None:
        self._state.set_value(_CHOICES, list(self.choices))
        self._state.set_value(_FUSED, {name: box.isChecked() for name, box in self.fused_boxes.items()})
        self.changed.emit()


def _row(button: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addWidget(button)
    row.addStretch(1)
    return row
