"""Tests of the metadata of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf.constants import LlamaFileType

from core.formats.gguf.metadata import file_type, metadata
from core.formats.gguf.tensor_map import map_tensors
from core.formats.names import GGUF_MIXES
from core.model.general import facts_in_header, write_facts
from tests.core.formats.gguf import families


def said(tmp_path: Path, family: str = "llama", label: str = "some/Model-1", **changes: Any) -> dict[str, Any]:
    tensor_map = map_tensors(families.tree_of(family, **changes))
    return {entry.key: entry.value for entry in metadata(tensor_map, label, "Model-1", tmp_path, 15, 1_234_567)}


def test_metadata_has_the_sizes_of_the_model(tmp_path: Path) -> None:
    found = said(tmp_path)
    sizes = {key.removeprefix("llama."): value for key, value in found.items() if key.startswith("llama.")}
    assert sizes == {
        "block_count": 3, "context_length": 512, "embedding_length": 64, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "attention.layer_norm_rms_epsilon": 1e-6, "vocab_size": 640,
        "rope.freq_base": 50000.0, "rope.dimension_count": 16,
    }  # fmt: skip


def test_a_hub_model_is_named_as_the_base(tmp_path: Path) -> None:
    found = said(tmp_path)
    assert found["general.name"] == "Model-1"
    assert found["general.base_model.0.repo_url"] == "https://huggingface.co/some/Model-1"
    assert found["general.base_model.0.organization"] == "some"


def test_a_folder_is_no_base_model(tmp_path: Path) -> None:
    assert not [key for key in said(tmp_path, label="folder") if "base_model" in key]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("# Model\nlicense: no\n", ""),
        ("", ""),
    ],
)
def test_the_license_is_the_model_card_s(tmp_path: Path, card: str, expected: str) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert said(tmp_path).get("general.license", "") == expected


def test_metadata_of_the_source_file_is_kept(tmp_path: Path) -> None:
    facts = {"license": "gemma", "author": "A", "tags": ["one", "two"], "base_model.count": 1, "base_model.0.name": "B"}
    write_facts(tmp_path, facts_in_header({f"general.{key}": value for key, value in facts.items()} | {
        "general.file_type": 15, "general.architecture": "gemma3", "general.quantization_version": 2,
    }))  # fmt: skip
    found = said(tmp_path, label="file.gguf")
    assert {key: found[f"general.{key}"] for key in facts} == facts
    assert found["general.file_type"] == 15
    assert len(list(metadata_keys(tmp_path))) == len(set(metadata_keys(tmp_path)))


def metadata_keys(folder: Path) -> list[str]:
    tensor_map = map_tensors(families.tree_of("llama"))
    return [entry.key for entry in metadata(tensor_map, "file.gguf", "Model-1", folder, 15, 1_234_567)]


def test_a_card_gives_license_tags_languages_and_base(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: own\nlicense_link: https://x.y/z\ntags:\n- a\n"
        "pipeline_tag: text-generation\nlanguage: en\nbase_model:\n- some/Base\n---\n# Model",
        encoding="utf-8",
    )
    found = said(tmp_path, label="folder")
    assert found["general.license.name"] == "own"
    assert found["general.license.link"] == "https://x.y/z"
    assert found["general.tags"] == ["a", "text-generation"]
    assert found["general.languages"] == ["en"]
    assert found["general.base_model.0.repo_url"] == "https://huggingface.co/some/Base"


@pytest.mark.parametrize("card", ["---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: 3\ntags: {a: b}\n---\n"])
def test_unreadable_card_is_ignored(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert not [key for key in said(tmp_path, label="folder") if key.startswith(("general.license", "general.tags"))]


def test_every_mix_is_a_type_of_file() -> None:
    for mix in GGUF_MIXES:
        assert LlamaFileType(file_type({}, mix)).name == f"MOSTLY_{mix.upper()}"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({"bf16": 10, "f32": 1}, "MOSTLY_BF16"), ({"q4_0": 9, "bf16": 5}, "MOSTLY_Q4_0"), ({"f32": 1}, "ALL_F32"),
     ({"q4_k": 2, "q6_k": 1}, "MOSTLY_Q4_K_M"), ({}, "ALL_F32")],
)  # fmt: skip
def test_without_a_mix_the_commonest_type_counts(weights: dict[str, int], expected: str) -> None:
    assert LlamaFileType(file_type(weights)).name == expected


def test_metadata_of_gemma_2_has_softcaps_and_window(tmp_path: Path) -> None:
    found = said(tmp_path, "gemma2")
    assert found["gemma2.attn_logit_softcapping"] == 20.0
    assert found["gemma2.final_logit_softcapping"] == 10.0
    assert found["gemma2.attention.sliding_window"] == 9


def test_gemma_2_without_a_window_has_one_as_long_as_its_context(tmp_path: Path) -> None:
    assert said(tmp_path, "gemma2", sliding_window=None)["gemma2.attention.sliding_window"] == 512


def test_a_pattern_of_windows_is_said_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    assert "gemma3.attention.sliding_window_pattern" not in said(tmp_path, "gemma3")
    assert said(tmp_path, "gemma3-pattern")["gemma3.attention.sliding_window_pattern"] == [False, True, True, False]


def test_metadata_of_phi_3_without_a_window(tmp_path: Path) -> None:
    assert said(tmp_path, "phi3")["phi3.attention.sliding_window"] == 0
