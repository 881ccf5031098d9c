"""Controller of the Rules view: the effect of each rule, and every edit as one undoable step.

The effects are computed in a thread, and only while the view is visible, as that takes long for large models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from app.pages.layers.rules.panel import RulesPanel
from app.pages.layers.rules.selection_pattern import pattern_of
from app.pages.layers.selection import Selection
from app.shared.calls.background import Background
from app.shared.rule_words import counted
from core.allocation import map_rules
from core.allocation.map_rules import RuleEffect
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError
from core.schemes import LayerScheme

if TYPE_CHECKING:
    from app.shared.context import Context

_PATIENCE = 120
"""Delay in milliseconds after an edit before the effects of the rules are computed."""


class RulesControl(QObject):
    """Controller that connects a `RulesPanel` with the draft."""

    def __init__(
        self, context: Context, selection: Selection, panel: RulesPanel, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._context, self._selection, self._panel = context, selection, panel
        self._seen = False
        self._stale = True
        self._effects: Sequence[RuleEffect] | None = None
        self._background = Background(self, patience=_PATIENCE)
        self._background.done.connect(self._take)
        self._background.failed.connect(lambda error: context.report(error, None))
        draft = context.draft
        draft.model_replaced.connect(self._forget)
        for signal in (draft.model_changed, draft.bits_map_changed, draft.formats_changed):
            signal.connect(self._renew)
        selection.changed.connect(self.refresh)
        panel.typed.connect(self._count)
        panel.rule_added.connect(self._add)
        panel.rule_changed.connect(self._change)
        panel.list.remove_wanted.connect(self.remove)
        panel.list.moved.connect(self.move)
        panel.from_selection_wanted.connect(self.from_selection)

    def set_seen(self, seen: bool) -> None:
        """Set whether the panel is visible; refresh it."""
        self._seen = seen
        self.refresh()

    def refresh(self) -> None:
        """Show the rules of the draft."""
        if not self._seen:
            return
        draft, bits_map = self._context.draft, self._context.draft.choices.bits_map
        if self._stale:
            self._stale, known = False, self._effects
            self._effects = known if known is not None and len(known) == len(bits_map.rules) else None
            tree = draft.model.tree if draft.model is not None else None
            if tree is not None and draft.plans and bits_map.rules:
                self._background.ask(lambda: map_rules.effects(tree, bits_map))
            else:
                self._background.forget()
        some = bool(self._selection.layers)
        self._panel.show_rules(bits_map.rules, self._effects, len(bits_map.layers), some_selected=some)

    def _forget(self) -> None:
        """Clear the effects of the previous model."""
        self._effects = None

    def _renew(self) -> None:
        """Show the rules of the draft, and compute their effects."""
        self._stale = True
        self.refresh()

    def remove(self, place: int) -> None:
        """Remove a rule."""
        bits_map = self._context.draft.choices.bits_map
        if 0 <= place < len(bits_map.rules):
            text = self.tr("Delete rule {}").format(bits_map.rules[place].match)
            self._edit(lambda: map_rules.remove(bits_map, place), text)

    def move(self, place: int, to: int) -> None:
        """Move a rule to another position."""
        bits_map = self._context.draft.choices.bits_map
        text = self.tr("Move rule {}").format(bits_map.rules[place].match)
        if not self._edit(lambda: map_rules.move(bits_map, place, to), text):
            self.refresh()

    def from_selection(self) -> None:
        """Open the editor with a pattern for exactly the selected layers; set them by name if no pattern matches."""
        draft, layers = self._context.draft, self._selection.layers
        if draft.model is None or not draft.plans or not layers:
            return
        pattern = pattern_of(draft.model.tree, layers)
        if pattern:
            rule = _said({draft.plans[layer].scheme for layer in layers}, draft.choices.bits_map.default)
            rules = draft.choices.bits_map.rules
            self._panel.write(len(rules), replace(rule, match=pattern))
            return
        named = self._named(layers)
        if draft.choices.bits_map == named:
            self._context.show_message(self.tr("These layers are already set by name."))
        else:
            draft.edit_map(named, self.tr("Name {}").format(counted(len(layers))))
            self._context.show_message(
                self.tr("No pattern matches exactly these layers, so each layer was added by name.")
            )

    def _named(self, layers: Iterable[int]) -> BitsMap:
        """Return the map with these layers set by name to their current settings."""
        draft = self._context.draft
        bits_map = draft.choices.bits_map
        plans = [draft.plans[layer] for layer in layers if layer < len(draft.plans)]
        by_hand = {rule.match: rule for rule in bits_map.layers}
        for plan in plans:
            name = plan.linear.name
            rule = _said(
                {bits_map.resolve(name, exact_only=plan.linear.block < 0 or bool(plan.linear.kept)).scheme},
                bits_map.default,
            )
            by_hand[name] = replace(rule, match=name)
        return replace(bits_map, layers=tuple(by_hand.values()))

    def _add(self, rule: Rule) -> None:
        bits_map = self._context.draft.choices.bits_map
        done = self._edit(lambda: self._with_rule(bits_map, rule), self.tr("Add rule {}").format(rule.match))
        if done:
            self._panel.list.setCurrentRow(len(bits_map.rules))

    def _with_rule(self, bits_map: BitsMap, rule: Rule) -> BitsMap:
        """Return the map with another rule; if it is for the selected layers, their settings by name are removed."""
        tree = self._context.draft.model.tree if self._context.draft.model is not None else None
        added = map_rules.add(bits_map, rule)
        if tree is None or not bits_map.by_hand:
            return added
        chosen = {tree.nameable[layer].name for layer in self._selection.layers}
        if set(map_rules.matches(tree, rule)) != chosen:
            return added
        return replace(added, layers=tuple(one for one in bits_map.layers if one.match not in chosen))

    def _change(self, place: int, rule: Rule) -> None:
        bits_map = self._context.draft.choices.bits_map
        self._edit(lambda: map_rules.change(bits_map, place, rule), self.tr("Change rule {}").format(rule.match))

    def _edit(self, make: Callable[[], BitsMap], text: str) -> bool:
        """Apply an edit and return whether it changed the map."""
        draft = self._context.draft
        before = draft.choices.bits_map
        try:
            draft.edit_map(make(), text)
        except BitwrightError as error:
            self._context.report(error, None)
        return draft.choices.bits_map is not before

    def _count(self, pattern: str) -> None:
        draft, editor = self._context.draft, self._panel.editor
        if editor is None or draft.model is None:
            return
        try:
            editor.show_count(len(map_rules.matches(draft.model.tree, Rule(pattern, 4))))
        except BitwrightError as error:
            editor.show_error(error.message)

    def _take(self, effects: Sequence[RuleEffect]) -> None:
        self._effects = effects
        self.refresh()


def _said(schemes: set[LayerScheme], default: LayerScheme) -> Rule:
    """Return a rule with the settings that all `schemes` share and that differ from the default; shared bits always."""
    keys = {
        key: next(iter(values))
        for key in ("bits", "group_size", "sym")
        if len(values := {getattr(scheme, key) for scheme in schemes}) == 1
        and (key == "bits" or values != {getattr(default, key)})
    }
    if keys.get("bits") == 16:
        keys = {"bits": 16}
    return Rule("given", **(keys or {"bits": default.bits}))
