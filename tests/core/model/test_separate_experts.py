"""Tests that experts stored as separate matrices fill the parameters of a model that has one for all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.errors import UnsupportedModel
from core.model.headers import TensorInfo
from core.model.skeleton import Skeleton, build_skeleton
from core.model.slices import assemble
from core.model.tree import build_tree, read_tensors
from core.model.weights import TensorStore, read_bias, read_linear
from tests.core.tiny_architectures import make_model

LAYOUTS = {
    "gpt_oss": "transposed, rows of gate and up alternate, biases",
    "dbrx": "all experts below each other in one matrix",
    "granitemoe": "3-D with .weight, renamed by transformers",
    "jetmoe": "experts of attention as well",
    "aria_text": "transposed",
    "mixtral": "transformers joins only the names w1, w2 and w3",
}


class MemoryStore(TensorStore):
    """Tensors in memory."""

    def __init__(self, folder: Path, values: dict[str, Tensor]) -> None:
        self.values = values
        super().__init__(
            folder, {name: TensorInfo(name, "BF16", tuple(v.shape), "", 0, 0) for name, v in values.items()}
        )

    def get(self, name: str) -> Tensor:
        return self.values[name].clone()


def separated(folder: Path, name: str) -> tuple[Skeleton, dict[str, Tensor]]:
    """Return the model filled from its own checkpoint, and the tensors with separate experts."""
    make_model(name, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tree = build_tree(config, read_tensors(folder, config))
    store = TensorStore(folder, dict(tree.tensors))
    values, replaced = {}, set()
    for linear in tree.linears:
        if linear.part is None:
            continue
        values[f"{linear.name}.weight"] = read_linear(store, tree, linear)
        replaced |= {linear.part.tensor, tree.bias_of(linear)}
        bias = read_bias(store, tree, linear)
        if bias is not None:
            values[f"{linear.name}.bias"] = bias
    values |= {tensor: store.get(tensor) for tensor in tree.tensors if tensor not in replaced}
    skeleton = build_skeleton(tree, store)
    skeleton.fill("", torch.float32, torch.device("cpu"))
    return skeleton, values


def open_separated(folder: Path, values: dict[str, Tensor]) -> Skeleton:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    store = MemoryStore(folder, values)
    return build_skeleton(build_tree(config, store.table), store)


@pytest.mark.parametrize("name", LAYOUTS)
def test_separate_experts_fill_the_same_parameters(tmp_path: Path, name: str) -> None:
    original, values = separated(tmp_path / "model", name)
    skeleton = open_separated(tmp_path / "model", values)
    skeleton.check()
    skeleton.fill("", torch.float32, torch.device("cpu"))
    parameters = dict(skeleton.model.named_parameters())
    assert parameters
    for parameter, value in original.model.named_parameters():
        assert torch.equal(parameters[parameter], value), parameter
    experts = [linear for linear in skeleton.tree.linears if ".experts." in linear.name]
    assert experts
    for linear in experts:
        weight = assemble(skeleton.slices(linear), parameters, linear.out_features)
        assert torch.equal(weight, values[f"{linear.name}.weight"].float()), linear.name


def test_a_missing_expert_is_refused(tmp_path: Path) -> None:
    _, values = separated(tmp_path / "model", "gpt_oss")
    del values["model.layers.1.mlp.experts.2.up_proj.weight"]
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.mlp\.experts\.gate_up_proj cannot be made of"):
        open_separated(tmp_path / "model", values)
