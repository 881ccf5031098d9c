"""Texts about conversions: choice, progress, and result."""

from __future__ import annotations

from app.pages.convert.conversion_words import choice_text, choice_title, heading, outcome, stage_text, verdict_text
from core.conversion.survey import ConversionOption
from tests.app.pages.convert.possible_rows import ERROR, converted


def test_an_exact_result_says_what_was_compared() -> None:
    found = outcome(converted("/m/out"))
    assert (found.role, found.headline, found.output) == ("good", "Exact conversion", "/m/out")
    assert found.text == "210 layers and 62 other tensors were verified: their weights are identical to the source."
    assert dict(found.facts) == {"Format": "GGUF", "Size": "121 MB", "Time": "12 s"}


def test_an_error_is_told_with_its_size_and_its_worst_layer() -> None:
    found = outcome(converted("/m/out", "bf16", error=ERROR))
    assert (found.role, found.headline) == ("warning", "The weights changed by 0.41 %")
    assert "model.layers.7.mlp.down_proj: 0.93 %" in found.text
    assert dict(found.facts)["Largest difference"] == "0.0312"


def test_notes_of_the_conversion_are_passed_on() -> None:
    made = converted("/m/out")
    made.report["notes"] = ["The head becomes 32-bit floats."]
    assert outcome(made).text.endswith("The head becomes 32-bit floats.")


def test_an_error_that_is_not_finite_has_no_number() -> None:
    error = {**ERROR, "largest_difference": None, "relative_rms": None}
    found = outcome(converted("/m/out", "bf16", error=error))
    assert (found.headline, "Largest difference" in dict(found.facts)) == ("The weights changed", False)


def test_the_choice_is_told_in_words() -> None:
    assert choice_title(ConversionOption("gguf", "exact", "", 119_000_000)) == "GGUF: exact, 119 MB"
    assert choice_title(ConversionOption("auto_awq", "no", "Why.", 1)) == "AWQ: not possible"


def test_a_reason_goes_before_what_is_always_so() -> None:
    assert choice_text(ConversionOption("bf16", "inexact", "Why.")) == "Why."
    assert "measured" in choice_text(ConversionOption("bf16", "inexact"))
    assert "compared" in choice_text(ConversionOption("gguf", "exact"))


def test_verdicts_are_told_apart() -> None:
    assert len({verdict_text("exact"), verdict_text("inexact"), verdict_text("no")}) == 3
    assert heading("no", 3) == "Not possible (3)"


def test_stages_name_the_model_or_the_target() -> None:
    assert stage_text("convert", "small", "auto_gptq") == "Converting small to GPTQ"
    assert stage_text("verify", "small", "auto_gptq") == "Comparing the output with small"
    assert stage_text("download", "o/small", "auto_gptq") == "Downloading o/small"
