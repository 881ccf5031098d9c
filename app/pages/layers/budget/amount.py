"""How much may be spent: what is counted, a slider over what is possible, and the same as a number.

Knows steps, no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QVBoxLayout, QWidget

from app.pages.layers.budget.steps import BudgetSteps
from app.widgets.segmented import Option, Segmented
from app.widgets.wheel_guard import WheelGuard
from core.allocation.request import KINDS, Budget, BudgetKind

if TYPE_CHECKING:
    from app.theme import Theme


class BudgetAmount(QWidget):
    """Three widgets that say one thing.

    Signals:
        kind_chosen(str): another thing is counted; answer with `show_steps`.
        changed: the user wants another amount.
        entered: Enter in the field.
    """

    kind_chosen = Signal(object)
    changed = Signal()
    entered = Signal()

    def __init__(self, theme: Theme, kind: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._steps = BudgetSteps("bpw")
        self._value = 0.0
        self._meant: dict[BudgetKind, float] = {}
        self.kind = Segmented(
            theme,
            (
                Option("bpw", self.tr("Bits"), self.tr("Average bits of a weight")),
                Option("bytes", self.tr("File size"), self.tr("Size of all files of the output")),
                Option("ram", self.tr("Memory"), self.tr("Memory to run it, with a conversation and the program")),
            ),
            self,
        )
        self.kind.setObjectName("budget_kind")
        self.kind.set_value(kind if kind in KINDS else "bpw")
        self.slider = QSlider(Qt.Orientation.Horizontal, self)
        self.slider.setObjectName("budget_slider")
        self.slider.setAccessibleName(self.tr("Budget"))
        WheelGuard(self.slider)
        self.field = QDoubleSpinBox(self)
        self.field.setObjectName("budget_field")
        self.field.setAccessibleName(self.tr("Budget as a number"))
        self.field.setKeyboardTracking(False)
        self.field.lineEdit().setAcceptDrops(False)
        WheelGuard(self.field)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.slider, 1)
        row.addWidget(self.field)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.kind)
        column.addLayout(row)
        self.kind.chosen.connect(self.kind_chosen)
        self.slider.valueChanged.connect(self._slid)
        self.field.valueChanged.connect(self._typed)
        self.field.lineEdit().returnPressed.connect(self.entered)

    @property
    def value(self) -> float | None:
        """The amount in bits or bytes; None while nothing is possible."""
        return self._value if self._steps.values else None

    def budget(self) -> Budget | None:
        """The same as a value of core."""
        return Budget(self._steps.kind, self.value) if self.value else None

    def show_steps(self, steps: BudgetSteps, start: float) -> None:
        """Offer these amounts, and show the one that the user means, or `start` as long as none was meant."""
        self._steps = steps
        enabled = len(steps.values) > 1
        self.slider.setEnabled(enabled)
        self.field.setEnabled(enabled)
        if not steps.values:
            return
        value = min(max(self._meant.get(steps.kind, start), steps.values[0]), steps.values[-1])
        unit = steps.unit
        for widget in (self.slider, self.field):
            widget.blockSignals(True)
        self.slider.setRange(0, len(steps.values) - 1)
        self.slider.setPageStep(max(1, len(steps.values) // 20))
        self.field.setDecimals(unit.decimals)
        self.field.setSuffix(f" {unit.suffix}")
        self.field.setSingleStep(0.1 if steps.kind == "bpw" or unit.suffix == "GB" else 1.0)
        # Rounded outwards, or the ends that are possible could not be typed.
        margin = 10.0**-unit.decimals
        self.field.setRange(steps.values[0] / unit.scale - margin, steps.values[-1] / unit.scale + margin)
        for widget in (self.slider, self.field):
            widget.blockSignals(False)
        self._set(value)

    def show_start(self, start: float) -> None:
        """Show `start`, as long as the user has meant no amount."""
        if self._steps.values and self._steps.kind not in self._meant:
            self._set(min(max(start, self._steps.values[0]), self._steps.values[-1]))

    def set_value(self, value: float) -> None:
        """Mean an amount, in bits or bytes."""
        self._meant[self._steps.kind] = value
        self._set(value)

    def _set(self, value: float) -> None:
        self._value = value
        self.slider.blockSignals(True)
        self.field.blockSignals(True)
        self.slider.setValue(self._steps.place(value))
        self.field.setValue(value / self._steps.unit.scale)
        self.slider.blockSignals(False)
        self.field.blockSignals(False)

    def _slid(self, place: int) -> None:
        self.set_value(self._steps.values[place])
        self.changed.emit()

    def _typed(self, shown: float) -> None:
        if not self._steps.values:
            return
        wanted = shown * self._steps.unit.scale
        low, high = self._steps.values[0], self._steps.values[-1]
        self.set_value(min(max(wanted, low), high))
        self.changed.emit()
