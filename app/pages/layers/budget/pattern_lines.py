"""Conversion of rules from and to short lines of text: `*.down_proj = 8`, `lm_head = 8 g64 asym`."""

from __future__ import annotations

from collections.abc import Iterable

from core.bitsmap import Rule
from core.errors import BadInput

_HINT = "Write a pattern and its bits on each line, such as *.down_proj = 8."


def parse(text: str) -> tuple[Rule, ...]:
    """Return the rules in `text`, one per line; empty lines are ignored.

    Raises:
        BadInput: A line is not a rule.
    """
    return tuple(_rule(line.strip()) for line in text.splitlines() if line.strip())


def written(rules: Iterable[Rule]) -> str:
    """Return the lines that `parse` reads as these rules."""
    return "\n".join(f"{rule.match} = {' '.join(_words(rule))}" for rule in rules)


def _rule(line: str) -> Rule:
    match, sign, values = line.rpartition("=")
    words = values.split()
    if not sign or not match.strip() or not words:
        raise BadInput(f"{line!r} is not a pattern with bits.", _HINT)
    bits: int | None = None
    group: int | None = None
    sym: bool | None = None
    for word in words:
        lower = word.lower()
        if word.isdecimal():
            bits = int(word)
        elif lower in ("sym", "asym"):
            sym = lower == "sym"
        elif lower == "row":
            group = -1
        elif lower.startswith("g") and lower[1:].isdecimal():
            group = int(lower[1:])
        else:
            raise BadInput(f"{word!r} is neither a number of bits nor a group size nor sym or asym.", _HINT)
    if bits is None:
        raise BadInput(f"{line!r} has no number of bits.", _HINT)
    return Rule(match.strip(), bits, group, sym)


def _words(rule: Rule) -> list[str]:
    words = [str(rule.bits)] if rule.bits is not None else []
    if rule.group_size is not None:
        words.append("row" if rule.group_size == -1 else f"g{rule.group_size}")
    if rule.sym is not None:
        words.append("sym" if rule.sym else "asym")
    return words
