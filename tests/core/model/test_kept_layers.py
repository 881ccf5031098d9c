"""Layers of multimodal models that text does not reach stay in 16 bits."""

from __future__ import annotations

from typing import Any

import pytest

from core.model.kept_layers import CROSS, PICTURES, Reasons, text_experts


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"moe_intermediate_size": [1536, 512], "moe_num_experts": [64, 64]}, 64),
        ({"moe_intermediate_size": [1536, 512], "moe_num_experts": 64}, 64),
        ({"moe_intermediate_size": 1536, "moe_num_experts": 64}, 0),
        ({}, 0),
    ],
)
def test_experts_for_text_come_before_those_for_pictures(config: dict[str, Any], count: int) -> None:
    assert text_experts(config) == count


def test_experts_for_pictures_are_kept() -> None:
    layers = [(f"mlp.experts.{number}.down_proj", 64) for number in range(4)]

    assert Reasons(4, experts=2).of_block(layers) == ["", "", PICTURES, PICTURES]


def test_all_layers_of_a_block_that_attends_to_pictures_are_kept() -> None:
    assert Reasons(4).of_block([("cross_attn.q_proj", 64), ("mlp.up_proj", 64)]) == [CROSS, CROSS]
