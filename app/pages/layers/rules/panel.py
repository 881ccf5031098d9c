"""The Rules view: the list of rules with an editor in place of the edited rule, and buttons.

Shows rules and emits requests; `RulesControl` edits the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.pages.layers.rules.rule_editor import RuleEditor
from app.pages.layers.rules.rule_list import RuleList, RuleRow
from app.shared.rule_words import counted, done, given
from app.widgets.note import Note
from core.allocation.map_rules import RuleEffect
from core.bitsmap import Rule

if TYPE_CHECKING:
    from app.theme import Theme


class RulesPanel(QWidget):
    """The Rules view of the side panel.

    Signals:
        typed(str): the pattern in the editor; the owner counts its layers and calls `editor`.
        rule_added(object): the `Rule` to append.
        rule_changed(int, object): the position and the new `Rule`.
        from_selection_wanted: The button for a rule of the selected layers was pressed.
    """

    typed = Signal(str)
    rule_added = Signal(object)
    rule_changed = Signal(int, object)
    from_selection_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rules: Sequence[Rule] = ()
        self._place = -1
        self._head = Note(theme, parent=self)
        self._head.setObjectName("rules_head")
        self.list = RuleList(theme, self)
        self._by_hand = Note(theme, parent=self)
        self._by_hand.setObjectName("by_hand")
        self.add = QPushButton(self.tr("Add rule"), self)
        self.add.setObjectName("add_rule")
        self.of_selection = QPushButton(self.tr("Add from selection"), self)
        self.of_selection.setObjectName("rule_of_selection")
        self.of_selection.setToolTip(
            self.tr("Add a rule for exactly the selected layers; without a matching pattern they are set by name")
        )
        self.remove = QPushButton(self.tr("Delete"), self)
        self.remove.setObjectName("remove_rule")
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        for button in (self.add, self.of_selection, self.remove):
            buttons.addWidget(button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._head)
        column.addWidget(self.list, 1)
        column.addWidget(self._by_hand)
        column.addLayout(buttons)
        column.addStretch(0)
        self._column = column
        self.add.clicked.connect(lambda: self.write(len(self._rules), None))
        self.of_selection.clicked.connect(self.from_selection_wanted)
        self.remove.clicked.connect(lambda: self.list.remove_wanted.emit(self.list.currentRow()))
        self.list.edit_wanted.connect(lambda place: self.write(place, self._rules[place]))
        self.list.currentRowChanged.connect(lambda _row: self._refresh())
        self.show_rules((), None, 0, some_selected=False)

    @property
    def editor(self) -> RuleEditor | None:
        """The editor; None if no rule is edited."""
        found = self.list.editor
        return found if isinstance(found, RuleEditor) else None

    def show_rules(
        self, rules: Sequence[Rule], effects: Sequence[RuleEffect] | None, by_hand: int, *, some_selected: bool
    ) -> None:
        """Show the rules, their effects (None: not known yet), and the number of layers that are set by name."""
        self._rules = rules
        rows = []
        for place, rule in enumerate(rules):
            effect = effects[place] if effects is not None else None
            does = done(effect) if effect is not None else ""
            rows.append(RuleRow(rule.match, given(rule), does, effect is not None and bool(effect.idle), rule.bits))
        self.list.show_rows(rows)
        said = self.tr("{} set by name, which overrides all rules.").format(counted(by_hand)) if by_hand else ""
        self._by_hand.set_text(said)
        self.of_selection.setEnabled(some_selected)
        self._refresh()

    def write(self, place: int, rule: Rule | None) -> None:
        """Open the editor for the rule at `place`, or, after the last, for a new rule that starts as `rule`."""
        editor = RuleEditor(self._theme, rule)
        if place >= len(self._rules):
            editor.save.setText(self.tr("Add"))
        self._place = place
        self.list.show()  # otherwise the row of the editor has no width
        self.list.begin_edit(place, editor)
        QWidget.setTabOrder(self.list, editor.field)
        editor.typed.connect(self.typed)
        editor.saved.connect(self._save)
        editor.cancelled.connect(self._leave)
        if rule is not None:
            self.typed.emit(rule.match)
        editor.field.setFocus()
        self._refresh()

    def _save(self, rule: Rule) -> None:
        place = self._place
        self._leave()
        if place >= len(self._rules):
            self.rule_added.emit(rule)
        elif rule != self._rules[place]:
            self.rule_changed.emit(place, rule)

    def _leave(self) -> None:
        self.list.setFocus()
        self.list.end_edit()
        self._refresh()

    def _refresh(self) -> None:
        writing = self.list.editor is not None
        text = self.tr("The last rule that matches a layer is used.")
        if not self._rules and not writing:
            text = self.tr("No rules: each layer has the default of the Recipe page or its own settings.")
        self._head.set_text(text)
        empty = not self._rules and not writing
        self.list.setVisible(not empty)
        self._column.setStretch(self._column.count() - 1, 1 if empty else 0)
        self.add.setEnabled(not writing)
        self.remove.setEnabled(not writing and 0 <= self.list.currentRow() < len(self._rules))
