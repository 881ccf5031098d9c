"""The editor of a rule: its pattern with the number of matching layers, and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.shared.rule_words import counted
from app.widgets.tinted_label import TintedLabel
from app.widgets.wheel_guard import WheelGuard
from core.bitsmap import Rule
from core.errors import BadInput
from core.schemes import BITS, UNTOUCHED

if TYPE_CHECKING:
    from app.theme import Theme


class RuleEditor(QWidget):
    """The editor, which is shown in place of the edited rule.

    Signals:
        typed(str): the changed pattern; the owner calls `show_count` or `show_error`.
        saved(object): the `Rule` to save.
        cancelled: The user cancelled the edit.
    """

    typed = Signal(str)
    saved = Signal(object)
    cancelled = Signal()

    def __init__(self, theme: Theme, rule: Rule | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAutoFillBackground(True)
        self.field = QLineEdit(rule.match if rule else "", self)
        self.field.setObjectName("rule_pattern")
        self.field.setAccessibleName(self.tr("Pattern of the rule"))
        self.field.setPlaceholderText(self.tr("Pattern, such as *.down_proj"))
        self.field.setToolTip(self.tr("A pattern for the whole name with * and ?, or a regular expression in slashes."))
        self.field.setAcceptDrops(False)
        self._count = TintedLabel(theme, role="muted", parent=self)
        self._count.setObjectName("rule_count")
        self.bits = self._combo(
            "rule_bits",
            self.tr("Bits"),
            [(self.tr("same bits"), None), *((self.tr("{} bits").format(n), n) for n in (*BITS, UNTOUCHED))],
        )
        groups: list[tuple[str, Any]] = [(self.tr("group {}").format(size), size) for size in (32, 64, 128)]
        self.group = self._combo(
            "rule_group", self.tr("Group size"), [(self.tr("same group"), None), *groups, (self.tr("group row"), -1)]
        )
        self.sym = self._combo(
            "rule_sym",
            self.tr("Range"),
            [(self.tr("same range"), None), (self.tr("symmetric"), True), (self.tr("asymmetric"), False)],
        )
        self.save = QPushButton(self.tr("Keep") if rule else self.tr("Add"), self)
        self.save.setObjectName("rule_save")
        self.leave = QPushButton(self.tr("Cancel"), self)
        self.leave.setObjectName("rule_cancel")
        self._lay_out()
        self._fill(rule)
        self.field.textChanged.connect(self._type)
        self.field.returnPressed.connect(self._save)
        for combo in (self.bits, self.group, self.sym):
            combo.currentIndexChanged.connect(self._check)
        self.save.clicked.connect(self._save)
        self.leave.clicked.connect(self.cancelled)
        self._matches = 0
        self._check()

    def show_count(self, count: int) -> None:
        """Show how many layers the pattern matches."""
        self._matches = count
        self._count.set_role("muted" if count else "warning")
        self._count.setText(counted(count) if count else self.tr("No layer matches this pattern"))
        self._check()

    def show_error(self, message: str) -> None:
        """Show the error of the pattern."""
        self._matches = 0
        self._count.set_role("bad")
        self._count.setText(self.tr("Invalid pattern"))
        self._count.setToolTip(message)
        self._check()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc (cancel) and Enter (save); do not pass keys on to the page."""
        if event.key() == Qt.Key.Key_Escape:
            self.cancelled.emit()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._save()
        elif not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.accept()
        else:
            super().keyPressEvent(event)

    def rule(self) -> Rule | None:
        """Return the edited rule; None if it is invalid."""
        try:
            found = Rule(
                self.field.text().strip(), self.bits.currentData(), self.group.currentData(), self.sym.currentData()
            )
        except BadInput:
            return None
        return found if found.overrides() else None

    def _type(self, text: str) -> None:
        self._matches = 0
        if text.strip():
            self.typed.emit(text.strip())
        else:
            self._count.setText("")
            self._check()

    def _save(self) -> None:
        rule = self.rule()
        if rule is not None and self._matches:
            self.saved.emit(rule)

    def _check(self) -> None:
        self.save.setEnabled(bool(self._matches) and self.rule() is not None)

    def _fill(self, rule: Rule | None) -> None:
        if rule is None:
            self.bits.setCurrentIndex(self.bits.findData(8))
            return
        for combo, value in ((self.bits, rule.bits), (self.group, rule.group_size), (self.sym, rule.sym)):
            if value is not None and combo.findData(value) < 0:
                combo.addItem(str(value), value)
            combo.setCurrentIndex(0 if value is None else combo.findData(value))

    def _combo(self, name: str, about: str, entries: list[tuple[str, Any]]) -> QComboBox:
        combo = QComboBox(self)
        combo.setObjectName(name)
        combo.setAccessibleName(about)
        combo.setToolTip(about)
        combo.setMinimumContentsLength(4)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for text, value in entries:
            combo.addItem(text, value)
        WheelGuard(combo)
        return combo

    def _lay_out(self) -> None:
        gives = QHBoxLayout()
        gives.setSpacing(4)
        for combo in (self.bits, self.group, self.sym):
            gives.addWidget(combo, 1)
        ending = QHBoxLayout()
        ending.setSpacing(8)
        ending.addWidget(self._count, 1)
        ending.addWidget(self.leave)
        ending.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 6, 4, 6)
        column.setSpacing(6)
        column.addWidget(self.field)
        column.addLayout(gives)
        column.addLayout(ending)
        self.setTabOrder(self.sym, self.save)
        self.setTabOrder(self.save, self.leave)
