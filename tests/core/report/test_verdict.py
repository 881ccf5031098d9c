"""Tests of the verdict on a report."""

from __future__ import annotations

import math
from typing import Any

import pytest

from core.report.verdict import VERSION, grade_of, judge, tuning_gain


def report(before: float, after: float, **more: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "perplexity": {"original": before, "quantized": after},
        "layers_by_bits": {"4": 210},
        "settings": {"recipe": {"iters": 50}, "default_scheme": {"bits": 4, "group_size": 128, "sym": True}},
        **more,
    }


@pytest.mark.parametrize(
    ("after", "grade"),
    [
        (97.9, "unknown"),
        (98.1, "none"),
        (100.0, "none"),
        (100.9, "none"),
        (101.1, "small"),
        (109.9, "small"),
        (110.1, "clear"),
        (124.9, "clear"),
        (125.1, "large"),
        (174.9, "large"),
        (175.1, "broken"),
        (math.inf, "broken"),
        (math.nan, "unknown"),
    ],
)
def test_the_grade_follows_from_the_increase_of_perplexity(after: float, grade: str) -> None:
    assert grade_of(100.0, after) == grade


@pytest.mark.parametrize("before", [0.0, -1.0, math.nan, math.inf])
def test_without_a_valid_original_the_grade_is_unknown(before: float) -> None:
    assert grade_of(before, 10.0) == "unknown"


def test_the_sentence_contains_the_figures() -> None:
    verdict = judge(report(23.9, 25.1))
    assert (
        verdict.sentence
        == "Small loss: perplexity 23.9 \N{RIGHTWARDS ARROW} 25.1 (+5.0 %) on text not used for calibration."
    )


def test_a_decrease_has_a_minus_sign() -> None:
    assert "(\N{MINUS SIGN}1.0 %)" in judge(report(100.0, 99.0)).figures


@pytest.mark.parametrize(("before", "after"), [(87.0, 63.0), (100.0, 97.0)])
def test_a_decrease_of_perplexity_is_an_invalid_measurement(before: float, after: float) -> None:
    verdict = judge(report(before, after))
    assert (verdict.grade, verdict.role) == ("unknown", "muted")
    assert verdict.meaning.startswith("Quantization does not improve a model")


def measured(before: float, after: float, **more: float) -> dict[str, Any]:
    found = report(before, after)
    found["perplexity"].update(more)
    return found


def test_the_change_is_shown_with_its_standard_error() -> None:
    assert (
        "(+10.0 \N{PLUS-MINUS SIGN} 1.1 %)" in judge(measured(100.0, 110.0, loss_increase_standard_error=0.01)).figures
    )


def test_a_change_within_a_large_error_is_not_graded() -> None:
    assert judge(measured(100.0, 100.5, loss_increase_standard_error=0.2)).grade == "unknown"
    assert judge(measured(100.0, 100.5, loss_increase_standard_error=0.004)).grade == "none"


def test_an_original_worse_than_guessing_is_not_graded() -> None:
    assert judge(measured(1.8e36, 1.8e36, vocab_size=288)).grade == "unknown"
    assert judge(measured(300.0, 310.0, vocab_size=288)).grade == "small"


def test_no_change_has_no_sign() -> None:
    assert "(0.0 %)" in judge(report(100.0, 100.01)).figures


@pytest.mark.parametrize("empty", [{}, {"perplexity": None}, {"perplexity": {"original": "x", "quantized": True}}])
def test_a_report_without_figures_is_not_graded(empty: dict[str, Any]) -> None:
    assert judge(empty).grade == "unknown"


def test_a_quantized_source_is_noted() -> None:
    note = "The weights came from a GGUF file, quantized there as Q4_1."
    assert any(text.startswith(note) for text in judge(report(10, 11, source_note=note)).notes)


def test_a_small_loss_needs_no_advice() -> None:
    assert judge(report(100, 105)).advice == ""


def test_more_steps_and_smaller_groups_are_advised_for_a_large_loss() -> None:
    advice = judge(report(100, 160)).advice
    assert "more steps" in advice
    assert "smaller groups" in advice


@pytest.mark.parametrize(("iters", "advised"), [(25, "(default or best)"), (100, "(best)"), (400, "")])
def test_only_recipes_with_more_steps_are_advised(iters: int, advised: str) -> None:
    found = judge(report(100, 160, settings={"recipe": {"iters": iters}})).advice
    assert advised in found
    assert ("more steps" in found) == bool(advised)


def test_more_bits_come_first_in_the_advice() -> None:
    found = judge(report(100, 160, layers_by_bits={"4": 100, "2": 110, "16": 3})).advice
    assert found.startswith("To reduce the loss, try more bits for some of the layers with 2 bits")


def test_more_bits_are_advised_if_nothing_else_is_left() -> None:
    settings = {"recipe": {"iters": 1000}, "default_scheme": {"group_size": 32}}
    assert judge(report(100, 160, settings=settings)).advice == "More bits would reduce the loss."


def block(before: float | None, after: float | None, **more: Any) -> dict[str, Any]:
    return {"name": "x", "loss_before": before, "loss_after": after, **more}


def test_the_gain_of_tuning_is_that_of_the_median_block() -> None:
    found = report(10, 11, blocks=[block(1.0, 0.5), block(2.0, 0.5), block(4.0, 3.9)])
    assert tuning_gain(found) == pytest.approx(0.5)
    assert "Tuning removed 50 % of the rounding error of a typical block." in judge(found).notes


def test_without_tuning_there_is_no_gain() -> None:
    settings = {"recipe": {"iters": 0}}
    assert tuning_gain(report(10, 11, settings=settings, blocks=[block(1.0, 1.0)])) is None


def test_invalid_losses_are_ignored() -> None:
    assert tuning_gain(report(10, 11, blocks=[block(None, 1.0), block(0.0, 0.0), block(1.0, 0.25)])) == 0.75


def test_diverged_blocks_are_noted_by_their_result() -> None:
    blocks = [block(1.0, 0.5, diverged=True, best_iteration=3), block(1.0, 1.0, diverged=True, best_iteration=0)]
    notes = " ".join(judge(report(10, 11, blocks=blocks)).notes)
    assert "1 block was left with plain rounding" in notes
    assert "1 block was tuned for fewer steps" in notes


def test_a_diverged_block_and_fallbacks_are_noted() -> None:
    found = report(10, 11, blocks=[block(1.0, 1.0, diverged=True)], fallbacks={"a": "x", "b": "y"})
    notes = " ".join(judge(found).notes)
    assert "1 block was left with plain rounding" in notes
    assert "2 layers could not get the scheme of the bits map" in notes


@pytest.mark.parametrize(
    ("after", "change"),
    [(50.0, "+150 %"), (4567.0, "+22,700 %"), (1e36, "+5e+36 %"), (1e46, "+5e+46 %")],
)
def test_a_large_change_has_three_digits(after: float, change: str) -> None:
    assert f"({change})" in judge(report(20.0, after)).figures


def test_a_very_large_standard_error_is_not_shown() -> None:
    assert "(+22,700 % or so)" in judge(measured(20.0, 4567.0, loss_increase_standard_error=0.01)).figures
