"""Tests of the model card: contents of the report, metadata of the Hub, and untrusted names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from core.report.model_card import conversion_card, model_card

REPORT: dict[str, Any] = {
    "model": "owner/small-model",
    "origin": "hub",
    "source_note": "",
    "architecture": "LlamaForCausalLM",
    "settings": {
        "recipe": {"name": "quick", "iters": 50, "batch_size": 2, "seqlen": 256},
        "device": "cpu",
        "dtype": "float32",
    },
    "seed": 42,
    "bits_map": {"default": {"bits": 4, "group_size": 64, "sym": True}},
    "layers_by_bits": {"4": 12, "8": 2, "16": 1},
    "layer_schemes": {"auto_round": {"W4 g64 sym": 12, "W8 g64 sym": 2}, "gguf": {"Q4_0": 12, "Q8_0": 2}},
    "fallbacks": {"model.layers.0.mlp.down_proj": "group 128 does not divide 576: 64"},
    "notes": {"gguf": ["12 2-bit symmetric layers take 4.5 bits per weight in GGUF."]},
    "bits_per_weight": 4.5,
    "format_bits_per_weight": {"auto_round": 4.5, "gguf": 5.0},
    "calibration": {"source": "builtin", "documents": 26, "tokens": 4096, "sha256": "f385b2"},
    "perplexity": {"original": 31.2, "quantized": 33.5, "text": "bundled held-out text"},
    "verification": {"auto_round": {"layers": 14, "other_tensors": 6, "perplexity": 33.48}},
    "source_bytes": 269_000_000,
    "output_bytes": {"auto_round": 117_500_000, "gguf": 120_000_000},
    "seconds": 220.0,
}


def card(tmp_path: Path, name: str = "auto_round", **changes: Any) -> str:
    return model_card({**REPORT, **changes}, name, "small-model-4bit", tmp_path)


def test_the_hub_reads_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Original\n", encoding="utf-8")
    data = ModelCard(card(tmp_path)).data.to_dict()
    assert data["base_model"] == "owner/small-model"
    assert data["base_model_relation"] == "quantized"
    assert data["license"] == "mit"
    assert "bitwright" in data["tags"]


def test_a_rounded_embedding_is_not_called_equal(tmp_path: Path) -> None:
    checked = {"layers": 14, "other_tensors": 5, "rounded": {"embed": "q8_0"}, "perplexity": 33.48}
    text = card(tmp_path, "gguf", verification={"gguf": checked})
    assert "5 other tensors equal to the original's, embed rounded to Q8_0; perplexity" in text


def test_norms_that_were_learned_are_told(tmp_path: Path) -> None:
    found = {"kept": True, "steps": 60, "norms": ["a", "b"], "heldout_kl_before": 1.5, "heldout_kl_after": 1.25}
    assert "2 norms were tuned together in 60 steps" in card(tmp_path, end_to_end=found)
    assert "tuned together" not in card(tmp_path, end_to_end={**found, "kept": False})
    assert "tuned together" not in card(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "description"),
    [
        ({"iters": 50, "start": "search"}, "by Bitwright, which tunes the rounding"),
        ({"iters": 0}, "by Bitwright with plain rounding. "),
        ({"iters": 0, "start": "search"}, "by Bitwright with plain rounding after a search for each scale. "),
    ],
)
def test_the_description_matches_the_recipe(tmp_path: Path, recipe: dict[str, Any], description: str) -> None:
    text = card(tmp_path, settings={"recipe": recipe})
    assert description in text
    assert ("SignRound" in text) == bool(recipe["iters"])


TOWER = {
    "prefix": "model.visual",
    "kind": "vision",
    "tensors": 9,
    "parameters": 4,
    "nbytes": 4_200_000,
    "dtype": "BF16",
}


def test_copied_towers_are_listed_with_their_size(tmp_path: Path) -> None:
    text = card(tmp_path, towers=[TOWER])
    assert "| `model.visual` | vision tower, 4.2 MB, as in the original |" in text
    assert "pipeline_tag: image-text-to-text" in text


def test_gguf_files_have_no_towers(tmp_path: Path) -> None:
    text = card(tmp_path, "gguf:q4_0", towers=[TOWER], output_bytes={"gguf:q4_0": 1})
    assert "vision tower" not in text
    assert "pipeline_tag: text-generation" in text


def test_tags_and_languages_of_the_source_are_copied(tmp_path: Path) -> None:
    front = "license: mit\nlanguage: [en, de]\ntags: [poetry, safetensors]"
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Original\n", encoding="utf-8")
    data = ModelCard(card(tmp_path)).data.to_dict()
    assert data["language"] == ["en", "de"]
    assert data["tags"] == ["bitwright", "quantized", "auto-round", "poetry"]


@pytest.mark.parametrize(
    "words",
    ["owner/small-model", "| 12 | W4 g64 sym |", "f385b2", "quick: 50 steps", "33.5", "33.48", "118 MB", "bitwright"],
)
def test_the_card_contains_the_figures_of_the_report(tmp_path: Path, words: str) -> None:
    assert words in card(tmp_path)


def test_each_format_has_its_own_types_and_remarks(tmp_path: Path) -> None:
    text = card(tmp_path, "gguf")
    assert "| 12 | Q4_0 |" in text
    assert "take 4.5 bits per weight in GGUF" in text
    assert "to 5 bits per weight" in text


def test_a_local_model_has_no_base_on_the_hub(tmp_path: Path) -> None:
    data = ModelCard(card(tmp_path, origin="folder", model="my-model")).data.to_dict()
    assert "base_model" not in data


def test_the_demo_names_its_original(tmp_path: Path) -> None:
    data = ModelCard(card(tmp_path, origin="demo")).data.to_dict()
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data["license"] == "apache-2.0"


def test_names_cannot_contain_markup(tmp_path: Path) -> None:
    text = card(tmp_path, origin="folder", model="x`|<script>\n# y", fallbacks={"a": "<b>|"})
    assert "<script>" not in text
    assert "\n# y" not in text


def test_an_empty_report_gives_a_card(tmp_path: Path) -> None:
    assert model_card({}, "auto_round", "x", tmp_path).startswith("---\n")


CONVERSION: dict[str, Any] = {
    "kind": "conversion",
    "model": "small-model-4bit",
    "origin": "folder",
    "source_kind": "AutoRound",
    "format": "gguf",
    "exact": True,
    "error": None,
    "layer_schemes": {"gguf": {"Q4_0": 14}},
    "notes": ["Groups with a zero point of 0 are stored with mirrored levels."],
    "files": {"small-model-Q4_0.gguf": 120_000_000},
    "output_bytes": 120_000_000,
    "source_report": REPORT,
}


def test_an_exact_conversion_is_described_with_the_run_of_its_source(tmp_path: Path) -> None:
    text = conversion_card(CONVERSION, "small-gguf", tmp_path)
    for words in (
        "All weights are bit-identical",
        "| 14 | Q4_0 |",
        "quick: 50 steps",
        "f385b2",
        "small-model-Q4_0.gguf",
    ):
        assert words in text
    assert ModelCard(text).data.to_dict()["base_model"] == "owner/small-model"


def test_an_inexact_conversion_is_described_with_its_error(tmp_path: Path) -> None:
    error = {"largest_difference": 0.0123, "relative_rms": 0.004}
    changed = {**CONVERSION, "exact": False, "reason": "BF16 has 8 bits.", "error": error, "source_report": None}
    text = conversion_card(changed, "small-bf16", tmp_path)
    assert "Weights changed: BF16 has 8 bits. The largest difference is 0.0123" in text
    assert "the relative RMS difference 0.4 %" in text
    assert "bit-identical" not in text
