"""Texts that describe a rule or an edit of a bits map, and its effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

if TYPE_CHECKING:
    from core.allocation.map_rules import RuleEffect
from core.bitsmap import Rule

_tr = QCoreApplication.translate


def given(rule: Rule) -> str:
    """Return the scheme of a rule as text: `8 bits, group size 32, asymmetric`."""
    parts = []
    if rule.bits is not None:
        parts.append(_tr("RuleWords", "{} bits").format(rule.bits))
    if rule.group_size is not None:
        row = rule.group_size == -1
        parts.append(
            _tr("RuleWords", "one group per row") if row else _tr("RuleWords", "group size {}").format(rule.group_size)
        )
    if rule.sym is not None:
        parts.append(_tr("RuleWords", "symmetric") if rule.sym else _tr("RuleWords", "asymmetric"))
    return ", ".join(parts)


def done(effect: RuleEffect) -> str:
    """Return how many layers a rule matches and decides, or the reason why it has no effect."""
    if effect.idle:
        return _tr("RuleWords", "No effect. {}").format(effect.idle)
    if effect.decided == effect.matched:
        return counted(effect.matched)
    return _tr("RuleWords", "{0}, decides {1}").format(counted(effect.matched), f"{effect.decided:,}")


def edited(*, bits: int | None = None, group_size: int | None = None, sym: bool | None = None) -> str:
    """Return a short description of an edit, for the undo button."""
    if bits is not None:
        return _tr("RuleWords", "{} bits").format(bits)
    if group_size is not None:
        row = _tr("RuleWords", "one group per row")
        return row if group_size == -1 else _tr("RuleWords", "group size {}").format(group_size)
    return _tr("RuleWords", "symmetric") if sym else _tr("RuleWords", "asymmetric")


def counted(count: int) -> str:
    """Return `1 layer` or `20,000 layers`."""
    return _tr("RuleWords", "1 layer") if count == 1 else _tr("RuleWords", "{} layers").format(f"{count:,}")
