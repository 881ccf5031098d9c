"""The amount of the budget: its kind, a slider over the possible values, and a number field.

Shows the steps that it is given.
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
    """Three widgets that show one amount.

    Signals:
        kind_chosen(str): the selected kind of budget; the owner calls `show_steps`.
        changed: The user changed the amount.
        entered: The user pressed Enter in the number field.
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
                Option("bpw", self.tr("Bits"), self.tr("Average bits per weight")),
                Option("bytes", self.tr("File size"), self.tr("Size of the output files")),
                Option("ram", self.tr("Memory"), self.tr("Memory for inference: weights, context and program")),
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
        self.field.setAccessibleName(self.tr("Amount of the budget"))
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
        """The amount in bits or bytes; None if there are no steps."""
        return self._value if self._steps.values else None

    def budget(self) -> Budget | None:
        """Return the amount as a `Budget`; None if there are no steps."""
        return Budget(self._steps.kind, self.value) if self.value else None

    def show_steps(self, steps: BudgetSteps, start: float) -> None:
        """Set the possible amounts; show the amount that the user set, or `start` if there is none."""
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
        # Rounded outwards, so that both ends of the range can be entered.
        margin = 10.0**-unit.decimals
        self.field.setRange(steps.values[0] / unit.scale - margin, steps.values[-1] / unit.scale + margin)
        for widget in (self.slider, self.field):
            widget.blockSignals(False)
        self._set(value)

    def show_start(self, start: float) -> None:
        """Show `start` unless the user set an amount."""
        if self._steps.values and self._steps.kind not in self._meant:
            self._set(min(max(start, self._steps.values[0]), self._steps.values[-1]))

    def set_value(self, value: float) -> None:
        """Set the amount in bits or bytes."""
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
