"""Preparation of model cards: images, length, and malicious content."""

from __future__ import annotations

import pytest

from app.pages.model.card import LONGEST, fit_card


def test_pictures_become_their_words() -> None:
    assert fit_card("![A chart](https://example.com/x.png) and ![](y.png)") == "A chart and (picture)"


def test_a_picture_that_nobody_described() -> None:
    assert fit_card("![image/png](x.png)") == "(picture)"


def test_links_within_the_card_are_words() -> None:
    assert fit_card("1. [Summary](#summary)\n2. [More](x.md#part)") == "1. Summary\n2. [More](x.md#part)"


def test_a_badge_keeps_its_link() -> None:
    assert fit_card("[![Build](b.svg)](https://example.com)") == "[Build](https://example.com)"


def test_an_endless_card_is_cut_and_says_so() -> None:
    text = fit_card("word " * LONGEST)
    assert len(text) < LONGEST + 100
    assert "This card is longer" in text


@pytest.mark.parametrize("marker", ["> ", "- ", ">", "1. ", "> - "])
def test_thousands_of_levels_become_a_few(marker: str) -> None:
    shown = fit_card(marker * 5000 + "deep")
    assert len(shown) < 60
    assert shown.endswith("deep")


def test_a_table_of_thousands_of_columns_is_no_table() -> None:
    assert "\\|" in fit_card("|" * 5000 + "\n" + "|-" * 2500)
    usual = "| a | b |\n|---|---|\n| 1 | 2 |"
    assert fit_card(usual) == usual


def test_usual_lists_and_quotes_stay_as_they_are() -> None:
    text = "> quoted\n> - inside\n\n- one\n  - two\n    - three"
    assert fit_card(text) == text
