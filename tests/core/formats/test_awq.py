"""The config of AWQ checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.bitsmap import Rule
from core.errors import BadInput
from core.formats.reader import QuantizedCheckpoint
from core.model.tree import ModelTree
from core.schemes import LayerScheme
from tests.core.formats.tiny import (
    LLAMA_CONFIG,
    bits_map,
    llama_tensors,
    open_tree,
    plan_for,
    save_source,
    write_output,
)

A4 = LayerScheme(4, 32, False)
LEFT = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_source(tmp_path_factory.mktemp("source"), llama_tensors(), LLAMA_CONFIG)


@pytest.fixture(scope="module")
def tree(source: Path) -> ModelTree:
    return open_tree(source)


def test_the_config(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_awq", bits_map(A4, {LEFT: {"bits": 16}}))
    assert target.config() == {
        "quant_method": "awq",
        "provider": "bitwright",
        "version": "gemm",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "sym": False,
        "data_type": "int",
        "to_quant_block_names": "model.layers",
        "modules_to_not_convert": ["lm_head", LEFT],
        "dynamic": {r"-:^model\.layers\.1\.mlp\.up_proj$": {}},
    }


def test_zero_point_is_true_for_symmetric_layers(tree: ModelTree) -> None:
    config = plan_for(tree, "auto_awq", bits_map(LayerScheme(4, 32)))[0].config()
    assert (config["zero_point"], config["sym"]) == (True, True)


def test_all_matrices_in_16_bits_are_listed(tmp_path: Path) -> None:
    tensors = llama_tensors() | {"vision.patches.weight": torch.zeros(32, 32)}
    tree = open_tree(save_source(tmp_path, tensors, LLAMA_CONFIG))
    config = plan_for(tree, "auto_awq", bits_map(A4))[0].config()
    assert config["modules_to_not_convert"] == ["lm_head", "vision", "vision.patches"]


def test_a_layer_whose_name_is_part_of_another_cannot_stay_in_16_bits(tmp_path: Path) -> None:
    """Readers search for the name, so an entry `gate` would also match `gate_proj`."""
    tensors = llama_tensors()
    for block in range(2):
        tensors[f"model.layers.{block}.mlp.gate.weight"] = torch.zeros(32, 64)
    tree = open_tree(save_source(tmp_path, tensors, LLAMA_CONFIG))
    with pytest.raises(BadInput, match=r"mlp\.gate cannot stay in 16 bits without model\.layers\.0\.mlp\.gate_proj"):
        plan_for(tree, "auto_awq", bits_map(A4, None, Rule("*.mlp.gate", bits=16)))


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [-1, 32])
def test_written_layers_are_read_back(source: Path, tmp_path: Path, group_size: int, sym: bool) -> None:
    chosen = bits_map(LayerScheme(4, group_size, sym), {LEFT: {"bits": 16}})
    output = write_output(source, tmp_path / "out", "auto_awq", chosen)
    checkpoint = QuantizedCheckpoint(output.folder)
    assert checkpoint.schemes == {name: layer.scheme for name, layer in output.layers.items()}
    for name, layer in output.layers.items():
        assert torch.equal(checkpoint.layer(name).dequantize(), layer.dequantize()), name
