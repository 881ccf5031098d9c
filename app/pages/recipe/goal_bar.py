"""The goals: fit into memory, best quality, or fast; each button sets the recipe.

Shows the result in one line. The page applies the goals.
"""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.wheel_guard import WheelGuard


class GoalBar(QWidget):
    """The three goals.

    Signals:
        fit: the memory limit in bytes.
        best: The best quality at the current bits is requested.
        fast: A short run is requested.
    """

    fit = Signal(float)
    best = Signal()
    fast = Signal()

    def __init__(self, theme: Theme, room: float, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fit = QPushButton(self.tr("Fit into"), self)
        self._fit.setObjectName("goal-fit")
        tip = self.tr("Use the most bits that fit into this memory, for engines that keep weights packed")
        self._fit.setToolTip(tip)
        self._room = QDoubleSpinBox(self)
        self._room.setObjectName("room")
        self._room.setRange(0.1, 9999.0)
        self._room.setDecimals(1)
        self._room.setSuffix(" GB")
        self._room.setValue(room)
        self._room.setAccessibleName(self.tr("Memory limit of the quantized model"))
        self._room.lineEdit().returnPressed.connect(self._fit.click)
        WheelGuard(self._room)
        self._best = QPushButton(self.tr("Best quality"), self)
        self._best.setObjectName("goal-best")
        self._best.setToolTip(self.tr("Keep the bits and use the recipe with the most text and steps"))
        self._fast = QPushButton(self.tr("Fast run"), self)
        self._fast.setObjectName("goal-fast")
        self._fast.setToolTip(self.tr("Keep the bits and use the fastest recipe"))
        self._hint = self.tr("Optional: select a goal to set the options below.")
        self._answer = Note(theme, self._hint, parent=self)
        self._answer.setObjectName("answer")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._fit)
        row.addWidget(self._room)
        row.addSpacing(16)
        row.addWidget(self._best)
        row.addSpacing(16)
        row.addWidget(self._fast)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(row)
        column.addWidget(self._answer)
        self._fit.clicked.connect(lambda: self.fit.emit(self.room * 1e9))
        self._best.clicked.connect(self.best)
        self._fast.clicked.connect(self.fast)
        for button in (self._fit, self._best, self._fast):
            button.setAutoDefault(False)

    @property
    def room(self) -> float:
        """The memory limit in GB."""
        return self._room.value()

    def answer(self, text: str, role: str = "") -> None:
        """Show what was set and why; "" shows the hint."""
        self._answer.set_text(text or self._hint, role if text else "muted")
