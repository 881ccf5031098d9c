"""Detection of the parts of a checkpoint besides its language model."""

from __future__ import annotations

from typing import Any

import pytest

from core.model.headers import TensorInfo
from core.model.towers import find_towers, text_config, text_root

NESTED: dict[str, Any] = {"text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 2}}


def towers(
    config: dict[str, Any], names: list[str], prefix: str, embedding: str, head: str = "lm_head"
) -> dict[str, str]:
    infos = [TensorInfo(name, "BF16", (4, 4), "model.safetensors", 0, 32) for name in names]
    found = find_towers(config, infos, prefix=prefix, embedding=embedding, head=head, blocks=2)
    assert sum(tower.parameters for tower in found) <= 16 * len(names)
    return {tower.prefix: tower.kind for tower in found}


@pytest.mark.parametrize(
    ("names", "prefix", "embedding", "expected"),
    [
        (
            ["model.visual.blocks.0.mlp.weight", "model.visual.merger.norm.weight", "model.language_model.norm.weight"],
            "model.language_model.layers",
            "model.language_model.embed_tokens",
            {"model.visual": "vision"},
        ),
        (
            ["vision_tower.vision_model.encoder.layers.0.fc.weight", "multi_modal_projector.linear_1.weight"],
            "language_model.model.layers",
            "language_model.model.embed_tokens",
            {"vision_tower": "vision", "multi_modal_projector": "projector"},
        ),
        (
            ["visual.patch_embed.proj.weight", "model.norm.weight"],
            "model.layers",
            "model.embed_tokens",
            {"visual": "vision"},
        ),
        (
            ["model.image_newline", "model.vision_model.conv.weight", "model.norm.weight", "model.projector.weight"],
            "model.layers",
            "model.embed_tokens",
            {"model.image_newline": "vision", "model.vision_model": "vision", "model.projector": "projector"},
        ),
        (
            ["audio_tower.conv1.weight", "talker.model.layers.0.mlp.weight", "language_model.lm_head.weight"],
            "language_model.model.layers",
            "language_model.model.embed_tokens",
            {"audio_tower": "audio", "talker": "other"},
        ),
    ],
    ids=["qwen3_vl", "llava", "qwen2_vl", "inside", "audio"],
)
def test_parts_outside_the_language_model_are_towers(
    names: list[str], prefix: str, embedding: str, expected: dict[str, str]
) -> None:
    head = "language_model.lm_head" if prefix.startswith("language_model") else "lm_head"
    assert towers(NESTED, names, prefix, embedding, head) == expected


@pytest.mark.parametrize(
    "name",
    [
        "model.per_layer_model_projection.weight", "model.altup_projections.0.weight", "model.norm.weight",
        "lm_head.weight", "lm_head.bias", "model.layers.1.mlp.vision.weight", "cls.predictions.transform.dense.weight",
    ],
)  # fmt: skip
def test_the_parts_of_a_language_model_are_not_towers(name: str) -> None:
    assert towers({}, [name], "model.layers", "model.embed_tokens") == {}


@pytest.mark.parametrize(
    ("name", "prefix"), [("mtp.layers.0.mlp.weight", "mtp"), ("model.layers.2.eh_proj.weight", "model.layers.2")]
)
def test_modules_that_predict_further_tokens_are_found_in_text_models(name: str, prefix: str) -> None:
    assert towers({}, [name], "model.layers", "model.embed_tokens") == {prefix: "mtp"}


def test_the_config_of_the_language_model_may_be_nested_twice() -> None:
    config = {"thinker_config": {"text_config": {"hidden_size": 8}}}
    assert text_config(config) == {"hidden_size": 8}


@pytest.mark.parametrize(
    ("prefix", "embedding", "root"),
    [
        ("model.layers", "model.embed_tokens", "model"),
        ("model.language_model.layers", "model.language_model.embed_tokens", "model.language_model"),
        ("text_model.encoder.layers", "text_model.embeddings.token_embedding", "text_model"),
        ("h", "wte", ""),
        ("model.layers", "", "model"),
    ],
)
def test_the_root_contains_the_blocks_and_the_embedding(prefix: str, embedding: str, root: str) -> None:
    assert text_root(prefix, embedding) == root


def test_stacks_beside_the_blocks_are_towers_of_a_multimodal_model() -> None:
    names = [
        "model.encoder.layers.0.mlp.weight", "model.extend.audio_embed.encoder.layers.0.mlp.weight",
        "model.extend.norm.weight", "model.norm.weight", "model.spatial_projectors.0.query",
    ]  # fmt: skip
    infos = [TensorInfo(name, "BF16", (4, 4), "model.safetensors", 0, 32) for name in names]
    others = ["model.encoder.layers", "model.extend.audio_embed.encoder.layers"]

    found = find_towers(
        NESTED, infos, prefix="model.layers", embedding="model.embed_tokens", head="lm_head", blocks=2, others=others
    )

    assert {tower.prefix: tower.kind for tower in found} == {
        "model.encoder": "other",
        "model.extend.audio_embed": "audio",
        "model.extend": "other",
        "model.spatial_projectors": "projector",
    }
