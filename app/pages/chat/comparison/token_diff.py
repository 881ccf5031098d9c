"""Where two answers differ, token by token: what both say, where they first part, and the stretches that only one has.

Compares the text of tokens. Where two models cut the same text into other tokens, words are compared instead. Knows no
model and no widget.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

Span = tuple[int, int]
"""Start and end of a stretch of the text, in characters."""

MOST: Final = 1500
"""Tokens, behind the part that both begin with, that are matched one by one; matching takes the square of them."""
_SHORTEST: Final = 2
"""Units in a row that both must have to count as common behind the first difference: a lone comma is an accident."""
_SURE: Final = 8
"""Characters of the same text behind two tokens, one of which begins with the other, that show another vocabulary."""
_WORD: Final = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class TokenDiff:
    """Two answers against each other.

    Attributes:
        unit: `token` or `word`: what was compared.
        common: how many units both begin with.
        lengths: units of each answer.
        share: of units that both have, in order: twice their number against all of both, 0 to 1.
            Behind the first difference a unit counts with a neighbour that is common too, or at the end of both.
        only: for each answer the stretches of its text that the other does not have.
        first: for each answer the unit at which they part; None where they are equal, or where it has no such unit.
    """

    unit: str
    common: int
    lengths: tuple[int, int]
    share: float
    only: tuple[tuple[Span, ...], tuple[Span, ...]]
    first: tuple[Span | None, Span | None]

    @property
    def equal(self) -> bool:
        """Whether both answers are the same."""
        return self.lengths[0] == self.lengths[1] == self.common


def compare(left: Sequence[str], right: Sequence[str]) -> TokenDiff:
    """Compare two answers, given as the text of their tokens ("" where a character is not complete yet).

    What comes after the first MOST units behind their common beginning counts as different where both are that long.
    """
    first, second = _whole(left), _whole(right)
    unit = "token"
    if _cut_differently(first, second):
        unit, first, second = "word", _words(first), _words(second)
    common = _common(first, second)
    runs = _matches(first, second, common)
    matched = common + sum(length for _a, _b, length in runs)
    total = len(first) + len(second)
    return TokenDiff(
        unit,
        common,
        (len(first), len(second)),
        2 * matched / total if total else 1.0,
        (
            _unmatched(first, [(0, common), *((a, a + length) for a, _b, length in runs)]),
            _unmatched(second, [(0, common), *((b, b + length) for _a, b, length in runs)]),
        ),
        (_span_at(first, common), _span_at(second, common)),
    )


def pieces_of(text: str, pieces: Sequence[str]) -> tuple[str, ...]:
    """The tokens of `text` (without the white space around it), of which `pieces` may hold more, such as thoughts.

    Where the tokens do not add up to the text its words are taken.
    """
    wanted, whole = text.strip(), "".join(pieces)
    start = whole.rfind(wanted)
    if not wanted or start < 0:
        return tuple(_words([wanted]))
    found, at = [], 0
    for piece in pieces:
        kept = piece[max(0, start - at) : max(0, start + len(wanted) - at)]
        at += len(piece)
        if kept:
            found.append(kept)
    return tuple(found)


def _whole(pieces: Sequence[str]) -> list[str]:
    """The pieces that hold text: those of an unfinished character are part of the one that completes it."""
    return [piece for piece in pieces if piece]


def _words(pieces: Sequence[str]) -> list[str]:
    return _WORD.findall("".join(pieces))


def _cut_differently(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether text that both begin with is cut at other places: then their tokens cannot be held against each other."""
    common = _common(first, second)
    if common == min(len(first), len(second)):
        return False
    ahead, behind = first[common], second[common]
    if not (ahead.startswith(behind) or behind.startswith(ahead)):
        return False
    # One may have chosen " hello" and the other " hell" of the same vocabulary: only more of the same text tells.
    one, other = "".join(first[common:]), "".join(second[common:])
    return _common(one, other) > max(len(ahead), len(behind)) + _SURE


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return number
    return min(len(first), len(second))


def _matches(first: Sequence[str], second: Sequence[str], start: int) -> list[tuple[int, int, int]]:
    """Places in both and lengths of what they have in common behind `start`."""
    one, other = first[start : start + MOST], second[start : start + MOST]
    found = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    ends = (len(one), len(other))
    return [
        (start + block.a, start + block.b, block.size)
        for block in found
        if block.size >= _SHORTEST or (block.size and (block.a + block.size, block.b + block.size) == ends)
    ]


def _unmatched(pieces: Sequence[str], matched: Sequence[Span]) -> tuple[Span, ...]:
    """The text between the matched stretches of units, in characters."""
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    found, at = [], 0
    for begin, end in [*matched, (len(pieces), len(pieces))]:
        if begin > at:
            found.append((starts[at], starts[begin]))
        at = max(at, end)
    return tuple(found)


def _span_at(pieces: Sequence[str], number: int) -> Span | None:
    """The unit in characters, with the next ones where it is white space, which nobody could see marked."""
    if number >= len(pieces):
        return None
    start = sum(len(piece) for piece in pieces[:number])
    end = start
    for piece in pieces[number:]:
        end += len(piece)
        if piece.strip():
            break
    return start, end
