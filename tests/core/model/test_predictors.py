"""MTP (multi-token prediction) modules are not blocks of the model, and their tensors are kept."""

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
def test_an_mtp_module_is_not_a_block(name: str) -> None:
    tree = with_further(name)
    assert (tree.blocks, tree.refusal) == (2, "")
    assert name in tree.tensors
    assert name.removesuffix(".weight") not in {linear.name for linear in tree.linears}


def test_an_extra_block_that_the_config_does_not_declare_is_unsupported() -> None:
    assert "specifies 2 blocks" in with_further("model.layers.2.mlp.up_proj.weight", 0).refusal
