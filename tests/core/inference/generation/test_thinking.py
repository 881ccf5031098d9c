"""Tests of thinking and stop texts in streams split at any position."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.inference.generation.thinking import KNOWN, Splitter, StopMatcher, ThinkingTags, marks_of


def cut(text: str, positions: list[int]) -> list[str]:
    """Split the text at the given positions."""
    borders = sorted({0, len(text), *(position % (len(text) + 1) for position in positions)})
    return [text[start:end] for start, end in pairwise(borders)]


def split(pieces: list[str], thinking: bool = False) -> tuple[str, str]:
    """Return the thinking and the text of a stream."""
    splitter = Splitter(thinking, KNOWN)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + list(splitter.flush())
    assert all(part.text for part in parts)
    return tuple("".join(part.text for part in parts if part.kind == kind) for kind in ("thinking", "text"))  # type: ignore[return-value]


CASES = [
    ("Hello", False, ("", "Hello")),
    ("<think>\nwell\n</think>\n\nHello ", False, ("well", "Hello ")),
    ("  <think>well</think>Hello", False, ("well", "Hello")),
    ("well, a < b\n</think>\n\nHello", True, ("well, a < b", "Hello")),
    ("well", True, ("well", "")),
    ("<think>never done ", False, ("never done", "")),
    ("I say <think> here</think>", False, ("", "I say <think> here</think>")),
    ("<thi", False, ("", "<thi")),
    ("[THINK]a[/THINK]b", False, ("a", "b")),
    ("<think></think>\n\nHello", False, ("", "Hello")),
    ("<think>a</think>\n<think>b</think>c", False, ("ab", "c")),
    ("<think>a</think>\n\nc </think> d", False, ("a", "c </think> d")),
    ("\n Hello", False, ("", "\n Hello")),
    ("", False, ("", "")),
    ("<think>a</think> \n", False, ("a", "")),
]


@given(positions=st.lists(st.integers(0, 60)))
@pytest.mark.parametrize(("text", "thinking", "expected"), CASES)
def test_the_result_does_not_depend_on_the_pieces(
    text: str, thinking: bool, expected: tuple[str, str], positions: list[int]
) -> None:
    assert split(cut(text, positions), thinking) == expected


def test_text_is_emitted_as_soon_as_it_cannot_be_a_mark() -> None:
    splitter = Splitter(marks=KNOWN)
    assert [part.text for part in splitter.feed("<th")] == []
    assert [part.text for part in splitter.feed("is")] == ["<this"]
    assert [part.text for part in splitter.feed(" is")] == [" is"]


@pytest.mark.parametrize("marks", KNOWN)
def test_marks_are_found_in_the_template_or_the_vocabulary(marks: ThinkingTags) -> None:
    assert marks_of(f"{{% if '{marks.closes}' in content %}}") == (marks,)
    assert marks_of("{{ messages }}", {marks.opens, marks.closes}) == (marks,)
    assert marks_of("{{ messages }}", {marks.opens}) == ()


def test_a_template_without_marks_has_none() -> None:
    assert marks_of("{{ messages }}") == ()


@given(positions=st.lists(st.integers(0, 60)))
def test_marks_are_ordinary_text_for_a_model_that_does_not_think(positions: list[int]) -> None:
    text = "<reasoning>because</reasoning>yes"
    splitter = Splitter()
    parts = [part for piece in cut(text, positions) for part in splitter.feed(piece)] + list(splitter.flush())
    assert "".join(part.text for part in parts) == text
    assert {part.kind for part in parts} == {"text"}


@given(
    text=st.text("ab;", max_size=30),
    stops=st.lists(st.text("ab;", min_size=1, max_size=4), max_size=3),
    positions=st.lists(st.integers(0, 30)),
)
def test_an_answer_ends_before_the_first_stop_text(text: str, stops: list[str], positions: list[int]) -> None:
    found = [position for position in map(text.find, stops) if position >= 0]
    ending, found_text, ended = StopMatcher(tuple(stops)), "", False
    for piece in cut(text, positions):
        more, ended = ending.feed(piece)
        found_text += more
        if ended:
            break
    found_text += ending.flush()
    assert ended == bool(found)
    # A longer stop text may begin earlier and end later than the one that is complete first.
    assert found_text == text[: len(found_text)]
    assert len(found_text) >= min(found, default=len(text))


def test_only_a_possible_stop_text_is_held_back() -> None:
    ending = StopMatcher(("END",))
    assert ending.feed("an E") == ("an ", False)
    assert ending.feed("N") == ("", False)
    assert ending.feed("T") == ("ENT", False)
