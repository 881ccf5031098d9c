"""The differences of two answers by token: the common beginning, the first difference, and unmatched spans.

Compares the text of tokens. If two models tokenize the same text differently, words are compared instead. Does not
depend on Qt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

Span = tuple[int, int]
"""Start and end of a span of the text, in characters."""

MOST: Final = 1500
"""Maximum number of tokens matched after the common beginning; matching takes quadratic time."""
_SHORTEST: Final = 2
"""Minimum length of a match after the first difference, so that a single comma does not count."""
_SURE: Final = 8
"""Characters of equal text after two tokens with a common prefix that prove a different vocabulary."""
_WORD: Final = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class TokenDiff:
    """The differences of two answers.

    Attributes:
        unit: `token` or `word`: the compared units.
        common: number of units in the common beginning.
        lengths: number of units of each answer.
        share: ratio of matching units: twice their number divided by the units of both, 0 to 1.
            After the first difference, a unit counts only with a matching neighbour, or at the end of both.
        only: for each answer, the spans of its text that the other does not have.
        first: for each answer, the span of the first difference; None if there is none.
    """

    unit: str
    common: int
    lengths: tuple[int, int]
    share: float
    only: tuple[tuple[Span, ...], tuple[Span, ...]]
    first: tuple[Span | None, Span | None]

    @property
    def equal(self) -> bool:
        """Return whether both answers are equal."""
        return self.lengths[0] == self.lengths[1] == self.common


def compare(left: Sequence[str], right: Sequence[str]) -> TokenDiff:
    """Compare two answers, given as the text of their tokens ("" for one that ends within a character).

    Units beyond MOST after the common beginning count as different if both answers are that long.
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
    """Return the tokens of `text` without surrounding white space; `pieces` may hold more, such as reasoning.

    If the tokens do not add up to the text, return its words.
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
    """Return the pieces with text: those of an incomplete character are joined to the one that completes it."""
    return [piece for piece in pieces if piece]


def _words(pieces: Sequence[str]) -> list[str]:
    return _WORD.findall("".join(pieces))


def _cut_differently(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether equal text at the beginning is tokenized differently, so that tokens cannot be compared."""
    common = _common(first, second)
    if common == min(len(first), len(second)):
        return False
    ahead, behind = first[common], second[common]
    if not (ahead.startswith(behind) or behind.startswith(ahead)):
        return False
    # " hello" and " hell" may be tokens of one vocabulary: only more of the same text proves a difference.
    one, other = "".join(first[common:]), "".join(second[common:])
    return _common(one, other) > max(len(ahead), len(behind)) + _SURE


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return number
    return min(len(first), len(second))


def _matches(first: Sequence[str], second: Sequence[str], start: int) -> list[tuple[int, int, int]]:
    """Return positions in both and lengths of the matches after `start`."""
    one, other = first[start : start + MOST], second[start : start + MOST]
    found = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    ends = (len(one), len(other))
    return [
        (start + block.a, start + block.b, block.size)
        for block in found
        if block.size >= _SHORTEST or (block.size and (block.a + block.size, block.b + block.size) == ends)
    ]


def _unmatched(pieces: Sequence[str], matched: Sequence[Span]) -> tuple[Span, ...]:
    """Return the text between the matches, in characters."""
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
    """Return the span of a unit, extended by the next ones if it is white space, which would be invisible."""
    if number >= len(pieces):
        return None
    start = sum(len(piece) for piece in pieces[:number])
    end = start
    for piece in pieces[number:]:
        end += len(piece)
        if piece.strip():
            break
    return start, end
