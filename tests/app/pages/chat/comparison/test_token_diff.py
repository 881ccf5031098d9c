"""Differences of two answers by token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.pages.chat.comparison.token_diff import MOST, compare, pieces_of

PIECES = st.lists(st.sampled_from([" a", " b", " c", "\n", " dd", ""]), max_size=30)


def test_equal_answers_are_equal() -> None:
    found = compare([" a", " b"], [" a", " b"])
    assert found.equal
    assert found.share == 1.0
    assert found.only == ((), ())


def test_one_other_token_is_found() -> None:
    found = compare(["It", " is", " known", " for", " wine"], ["It", " is", " famous", " for", " wine"])
    assert (found.common, found.first) == (2, ((5, 11), (5, 12)))
    assert found.only == (((5, 11),), ((5, 12),))
    assert found.share == 0.8


def test_an_answer_that_goes_on_differs_at_its_rest() -> None:
    found = compare(["a", " b"], ["a", " b", " c"])
    assert found.first == (None, (3, 5))
    assert found.only == ((), ((3, 5),))


def test_a_lone_comma_behind_the_first_difference_is_no_agreement() -> None:
    found = compare(["x", ",", "y", "z"], ["u", ",", "v", "w"])
    assert found.share == 0.0


def test_a_common_end_counts_even_where_it_is_one_token() -> None:
    assert compare(["x", "y", "."], ["u", "v", "."]).share == 1 / 3


def test_other_vocabularies_are_compared_by_words() -> None:
    found = compare([" hel", "lo there my friend"], [" hello there", " my friend"])
    assert found.unit == "word"
    assert found.equal


def test_tokens_of_one_vocabulary_that_begin_alike_stay_tokens() -> None:
    found = compare([" hell", " is other people"], [" hello", " to you all"])
    assert found.unit == "token"


def test_a_character_of_several_tokens_is_one_piece() -> None:
    found = compare(["a", "", "", "\N{GRINNING FACE}"], ["a", "\N{GRINNING FACE}"])
    assert found.equal


def test_a_first_difference_in_white_space_takes_the_next_letters_along() -> None:
    assert compare(["The", " ", "10", "00"], ["The", " cat"]).first == ((3, 6), (3, 7))


def test_nothing_against_nothing_is_equal() -> None:
    assert compare([], []).share == 1.0


def test_long_answers_are_compared_in_part() -> None:
    left = [f" l{number}" for number in range(MOST)] + [" end", " here"]
    right = [f" r{number}" for number in range(MOST)] + [" end", " here"]
    assert compare(left, right).share == 0.0


@given(PIECES, PIECES)
def test_what_is_marked_lies_inside_the_text(left: list[str], right: list[str]) -> None:
    found = compare(left, right)
    for pieces, spans, first in zip((left, right), found.only, found.first, strict=True):
        size = len("".join(pieces))
        ends = [place for span in (*spans, *([first] if first else [])) for place in span]
        assert all(0 <= place <= size for place in ends)
        assert list(spans) == sorted(spans)


@given(PIECES, PIECES)
def test_the_other_way_round_gives_the_same_share_of_equal_beginnings(left: list[str], right: list[str]) -> None:
    one, other = compare(left, right), compare(right, left)
    assert (one.common, one.lengths) == (other.common, other.lengths[::-1])


def test_pieces_of_the_answer_leave_thoughts_out() -> None:
    assert pieces_of("Yes.", ["<think>", "Hm", "</think>", "\n\n", "Yes", "."]) == ("Yes", ".")


def test_a_token_across_the_border_is_cut() -> None:
    assert pieces_of("Yes", ["hm\nYe", "s"]) == ("Ye", "s")


def test_pieces_that_do_not_add_up_become_words() -> None:
    assert pieces_of("One two", ["Eins"]) == ("One", " two")
