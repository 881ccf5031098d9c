"""Texts of formats: one family, one name and one description each."""

from __future__ import annotations

import pytest

from app.shared.formats import words as format_words
from app.shared.formats.fit import FormatFit
from core.formats.names import FORMATS, PLAIN

ALL = (*FORMATS, *PLAIN)


def test_every_format_is_offered_once() -> None:
    offered = [name for family in format_words.all_families() for name in family.formats]
    assert sorted(offered) == sorted(ALL)


def test_no_two_formats_have_the_same_title() -> None:
    assert len({format_words.title(name) for name in ALL}) == len(ALL)


def test_types_of_a_family_can_be_told_apart() -> None:
    for family in format_words.all_families():
        assert len({format_words.variant(name) for name in family.formats}) == len(family.formats)


@pytest.mark.parametrize("name", ALL)
def test_every_format_says_what_it_is(name: str) -> None:
    assert format_words.about(name).endswith(".")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("auto_round", "AutoRound"),
        ("auto_round:auto_gptq", "AutoRound, GPTQ packing"),
        ("auto_round:plain", "AutoRound, own packing"),
        ("gptqmodel", "GPTQ version 2"),
        ("gguf", "GGUF"),
        ("gguf:q4_k_m", "GGUF Q4_K_M"),
        ("bf16", "Not quantized, bfloat16"),
        ("telegraph", "telegraph"),
    ],
)
def test_titles_are_those_that_people_know(name: str, title: str) -> None:
    assert format_words.title(name) == title


def test_a_family_says_which_programs_it_is_for() -> None:
    assert "llama.cpp" in format_words.family_of("gguf:q4_0").about
    assert format_words.family_of("telegraph").title == "telegraph"


def test_several_reasons_are_counted() -> None:
    assert format_words.obstacle(FormatFit(("One.", "Two.", "Three.")), "") == "One. And 2 more."


def test_formats_have_their_titles_in_a_reason_too() -> None:
    fit = FormatFit(("auto_awq holds 4 bits only, gguf:q4_k_m others, auto_rounding none.",))
    assert format_words.obstacle(fit, "") == "AWQ holds 4 bits only, GGUF Q4_K_M others, auto_rounding none."


def test_a_rival_is_the_reason_whatever_else_is() -> None:
    assert "GGUF Q4_K_M" in format_words.obstacle(FormatFit(("One.",)), "gguf:q4_k_m")


def test_what_fits_has_no_obstacle() -> None:
    assert format_words.obstacle(FormatFit(), "gguf:q4_k_m") == ""
