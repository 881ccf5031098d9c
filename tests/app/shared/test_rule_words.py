"""Texts of rules, effects and edits."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.shared.rule_words import counted, done, edited, given
from core.allocation.map_rules import RuleEffect
from core.bitsmap import Rule


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule("a", 8), "8 bits"),
        (Rule("a", 4, 32, False), "4 bits, group size 32, asymmetric"),
        (Rule("a", group_size=-1), "one group per row"),
        (Rule("a", sym=True), "symmetric"),
    ],
)
def test_the_text_of_a_rule_lists_its_settings(rule: Rule, text: str) -> None:
    assert given(rule) == text


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (RuleEffect(30, 30, ""), "30 layers"),
        (RuleEffect(30, 29, ""), "30 layers, decides 29"),
        (RuleEffect(1, 1, ""), "1 layer"),
        (RuleEffect(7, 0, "Rules below it speak for all of its layers."), "No effect. Rules below it"),
    ],
)
def test_the_text_of_an_effect_counts_layers(effect: RuleEffect, text: str) -> None:
    assert done(effect).startswith(text)


def test_edits_are_named(qtbot: QtBot) -> None:
    assert [edited(bits=8), edited(group_size=-1), edited(group_size=64), edited(sym=False)] == [
        "8 bits", "one group per row", "group size 64", "asymmetric",
    ]  # fmt: skip


def test_counts_have_thousands_separators() -> None:
    assert counted(20_000) == "20,000 layers"
