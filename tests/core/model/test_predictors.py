"""Heads that predict further tokens (MTP) are no blocks of the model, and go along."""

from __future__ import annotations

import pytest

from core.model.headers import TensorInfo
from core.model.tree import ModelTree, build_tree
from tests.core import paper_model

SHAPE = (1536, 576)


def with_further(name: str, count: int = 1) -> ModelTree:
    tree = paper_model.llama(2)
    info = TensorInfo(name, "BF16", SHAPE, "model.safetensors", 0, 2 * SHAPE[0] * SHAPE[1])
    return build_tree({**tree.config, "num_nextn_predict_layers": count}, {**tree.tensors, name: info})


@pytest.mark.parametrize("name", ["mtp.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"])
def test_they_are_no_blocks(name: str) -> None:
    tree = with_further(name)
    assert (tree.blocks, tree.refusal) == (2, "")
    assert name in tree.tensors
    assert name.removesuffix(".weight") not in {linear.name for linear in tree.linears}


def test_a_block_too_many_that_the_config_does_not_announce_is_refused() -> None:
    assert "promises 2 blocks" in with_further("model.layers.2.mlp.up_proj.weight", 0).refusal
