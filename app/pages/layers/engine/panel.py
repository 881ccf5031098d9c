"""The Engine view: the target inference engine, the layers that it does not support, and a button to repair them.

Shows marks and emits requests; `EngineControl` checks and repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.shared.engine_words import engine_line
from app.shared.rule_words import counted
from app.widgets.note import Note
from core.formats import engines
from core.formats.engines import EngineIssue

if TYPE_CHECKING:
    from app.theme import Theme

_REASON: Final = Qt.ItemDataRole.UserRole


class EnginePanel(QWidget):
    """The Engine view of the side panel.

    Signals:
        engine_chosen(str): one of `core.formats.engines`, or "" for any.
        reason_chosen(str, str): the severity and reason whose layers are to be selected.
        repair_wanted: The repair button was pressed.
    """

    engine_chosen = Signal(str)
    reason_chosen = Signal(str, str)
    repair_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        label = QLabel(self.tr("Target inference &engine"), self)
        self.choice = QComboBox(self)
        self.choice.setObjectName("engine")
        self.choice.addItem(self.tr("Any"), "")
        for engine in engines.ENGINES:
            self.choice.addItem(engines.title(engine), engine)
        label.setBuddy(self.choice)
        self._summary = Note(theme, role="", parent=self)
        self._summary.setObjectName("engine_summary")
        self.reasons = QListWidget(self)
        self.reasons.setObjectName("engine_reasons")
        self.reasons.setAccessibleName(self.tr("Unsupported and slow layers"))
        self.reasons.setToolTip(self.tr("Click or press Enter to select these layers"))
        self.reasons.setWordWrap(True)
        self.reasons.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.reasons.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.repair = QPushButton(self.tr("Repair"), self)
        self.repair.setObjectName("repair")
        self.repair.setToolTip(self.tr("Change only the layers that the engine cannot load"))
        ending = QHBoxLayout()
        ending.addWidget(self.repair)
        ending.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for widget in (label, self.choice, self._summary):
            column.addWidget(widget)
        column.addWidget(self.reasons, 1)
        column.addLayout(ending)
        self._rest = column
        column.addStretch(0)
        self.choice.activated.connect(lambda _index: self.engine_chosen.emit(self.choice.currentData()))
        self.reasons.itemClicked.connect(self._choose)
        self.reasons.itemActivated.connect(self._choose)
        self.repair.clicked.connect(self.repair_wanted)
        self.show_marks("", [])

    def show_marks(self, engine: str, marks: Sequence[EngineIssue]) -> None:
        """Show the problems of an engine with the map."""
        self.choice.setCurrentIndex(max(0, self.choice.findData(engine)))
        whole = [mark for mark in marks if not mark.layer]
        layers = [mark for mark in marks if mark.layer]
        text, role = engine_line(engine, marks)
        hint = self.tr("Layers that the engine cannot load or runs slowly are marked on the map.")
        self._summary.set_text(text or hint, role or "muted")
        counts = Counter((mark.severity, mark.reason) for mark in layers)
        entries = [(mark.severity, mark.reason, 0) for mark in whole]
        entries += [(*key, number) for key, number in sorted(counts.items(), key=lambda one: (one[0][0], -one[1]))]
        self._show_reasons(entries)
        self.repair.setVisible(any(mark.cannot and mark.repair is not None for mark in layers))

    def _show_reasons(self, entries: Sequence[tuple[str, str, int]]) -> None:
        self.reasons.clear()
        self.reasons.setVisible(bool(entries))
        self._rest.setStretch(self._rest.count() - 1, 0 if entries else 1)
        for severity, reason, number in entries:
            text = f"{reason}: {counted(number)}" if number else reason
            item = QListWidgetItem(self._theme.icon("warning", "bad" if severity == "cannot" else "warning"), text)
            item.setData(_REASON, (severity, reason) if number else None)
            heard = self.tr("cannot load") if severity == "cannot" else self.tr("slow")
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{heard}: {text}")
            self.reasons.addItem(item)

    def _choose(self, item: QListWidgetItem) -> None:
        key = item.data(_REASON)
        if key:
            self.reason_chosen.emit(*key)
