"""Tests of the remarks on the experts of a run, in the verdict and on the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.report.experts import MixtureTokens, expert_notes, mixtures
from core.report.model_card import model_card
from core.report.verdict import judge
from tests.core.report.test_model_card import REPORT

NAME = "model.layers.{}.mlp.experts"


def report(*not_tuned: list[int], iters: int = 50) -> dict[str, Any]:
    blocks = [
        {
            "name": f"model.layers.{block}",
            "experts": [{"name": NAME.format(block), "tokens": [0, 7, 12, 1210], "not_tuned": few}],
        }
        for block, few in enumerate(not_tuned)
    ]
    return {**REPORT, "settings": {**REPORT["settings"], "recipe": {"iters": iters}}, "blocks": blocks}


def test_the_notes_have_the_tokens_and_the_number_of_experts_that_were_not_tuned() -> None:
    tokens, few = expert_notes(report([0, 1], [0]))
    assert tokens == "Calibration tokens per expert: 0 to 1,210, median 10."
    assert few.startswith("3 experts of 8 got too few tokens to be tuned")
    assert expert_notes(report([0]))[1].startswith("1 expert of 4 ")
    assert set(expert_notes(report([0, 1]))) <= set(judge(report([0, 1])).notes)


def test_without_tuning_only_the_tokens_are_shown() -> None:
    assert len(expert_notes(report([0, 1, 2, 3], iters=0))) == 1


def test_the_card_lists_each_mixture(tmp_path: Path) -> None:
    text = model_card(report([], [0, 1]), "auto_round", "small", tmp_path)
    assert "| `model.layers.0.mlp.experts` | 0 to 1,210, median 10 | none |" in text
    assert "| `model.layers.1.mlp.experts` | 0 to 1,210, median 10 | 0, 1 |" in text


def test_a_model_without_experts_has_no_section(tmp_path: Path) -> None:
    assert "## Experts" not in model_card(REPORT, "auto_round", "small", tmp_path)


@pytest.mark.parametrize(
    "blocks", [None, 3, [None], [{"experts": 3}], [{"experts": [None, {"tokens": "7"}, {"tokens": [None]}]}]]
)
def test_invalid_figures_are_left_out(blocks: Any) -> None:
    assert mixtures({"blocks": blocks}) == ()


def test_mixtures_are_in_the_order_of_the_blocks() -> None:
    found = mixtures(report([3], []))
    assert found == (
        MixtureTokens(NAME.format(0), (0, 7, 12, 1210), (3,)),
        MixtureTokens(NAME.format(1), (0, 7, 12, 1210), ()),
    )
