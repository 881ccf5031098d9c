"""Packed outputs as a run writes them: layers in any order, other tensors, and verification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import Cancelled, OutputProblem, VerificationFailed
from core.formats.packed import PackedPlan
from core.formats.quantized import QuantizedLinear
from core.formats.registry import plan_packed
from core.formats.stored import digest
from core.model.tree import resolve_schemes
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import (
    LLAMA_CONFIG,
    bits_map,
    llama_tensors,
    open_tree,
    plan_for,
    round_to_nearest,
    save_source,
)

W4, A4 = LayerScheme(4, 32), LayerScheme(4, 32, False)
NAME = "model.layers.0.mlp.up_proj"
FORMATS = ("auto_round", "auto_gptq", "gptqmodel", "auto_awq")


def go_on() -> bool:
    return False


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = save_source(tmp_path / "source", llama_tensors(), LLAMA_CONFIG)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("Do as you like.")
    return folder


def made(source: Path, name: str, scheme: LayerScheme = A4) -> tuple[PackedPlan, dict[str, QuantizedLinear]]:
    """Return the plan, and the layers of the source rounded as planned."""
    tree = open_tree(source)
    plan, _ = plan_for(tree, name, bits_map(scheme))
    weights = load_file(source / "model.safetensors")
    layers = {
        layer: round_to_nearest(layer, weights[f"{layer}.weight"], item.scheme, plan.min_zero)
        for layer, item in plan.layers.items()
    }
    return plan, layers


def written(source: Path, folder: Path, name: str) -> tuple[PackedPlan, dict[str, QuantizedLinear]]:
    plan, layers = made(source, name)
    folder.mkdir()
    writer = plan.writer(folder)
    for layer in reversed(list(layers.values())):
        writer.write(layer)
    writer.begin(source)
    writer.finish(TensorStore(source), go_on)
    writer.abort()
    return plan, layers


@pytest.mark.parametrize("name", FORMATS)
def test_layers_written_in_any_order_are_read_back(source: Path, tmp_path: Path, name: str) -> None:
    plan, layers = written(source, tmp_path / "out", name)
    checkpoint = plan.open(tmp_path / "out")
    assert {layer: digest(checkpoint.layer(layer)) for layer in plan.layers} == {
        layer: digest(value) for layer, value in layers.items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_other_tensors_and_files_are_copied(source: Path, tmp_path: Path, name: str) -> None:
    plan, _ = written(source, tmp_path / "out", name)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == sorted(["LICENSE", "config.json", "model.safetensors", plan.config_file, "tokenizer.json"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {**LLAMA_CONFIG, "quantization_config": plan.config()}
    assert json.loads((tmp_path / "out" / plan.config_file).read_text()) == plan.config()


@pytest.mark.parametrize("name", FORMATS)
def test_the_planned_size_is_the_size_of_the_tensors(source: Path, tmp_path: Path, name: str) -> None:
    plan, _ = written(source, tmp_path / "out", name)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert plan.nbytes == sum(tensor.nbytes for tensor in tensors.values())


def test_the_other_tensors_are_compared_with_the_source(source: Path, tmp_path: Path) -> None:
    plan, _ = written(source, tmp_path / "out", "auto_round")
    plan.check_rest(plan.open(tmp_path / "out"), TensorStore(source), go_on)


@pytest.mark.parametrize(
    ("value", "message"), [(2.0, "differs from the source"), (float("nan"), "not finite")], ids=["other", "nan"]
)
def test_a_changed_tensor_is_reported_by_name(source: Path, tmp_path: Path, value: float, message: str) -> None:
    plan, _ = written(source, tmp_path / "out", "auto_round")
    for folder in [tmp_path / "out"] if value == 2.0 else [tmp_path / "out", source]:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][3] = value
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(VerificationFailed, match=f"model.norm.weight .*{message}"):
        plan.check_rest(plan.open(tmp_path / "out"), TensorStore(source), go_on)


def test_an_output_with_missing_layers_is_not_finished(source: Path, tmp_path: Path) -> None:
    plan, layers = made(source, "auto_round")
    writer = plan.writer(tmp_path)
    writer.write(layers[NAME])
    with pytest.raises(ValueError, match="not written"):
        writer.finish(TensorStore(source), go_on)
    writer.abort()
    assert not list(tmp_path.glob("*.safetensors*"))


def test_should_stop_cancels_writing(source: Path, tmp_path: Path) -> None:
    plan, layers = made(source, "auto_round")
    writer = plan.writer(tmp_path)
    for layer in layers.values():
        writer.write(layer)
    with pytest.raises(Cancelled):
        writer.finish(TensorStore(source), lambda: True)
    writer.abort()


def test_a_folder_with_a_checkpoint_is_not_written_to(source: Path) -> None:
    with pytest.raises(OutputProblem, match="exists already"):
        made(source, "auto_round")[0].writer(source)


def test_a_layer_of_another_shape_is_not_stored(source: Path) -> None:
    plan, _ = made(source, "auto_round")
    with pytest.raises(ValueError, match="was planned as W4 g32 asym"):
        plan.stored(round_to_nearest(NAME, torch.ones(32, 64), A4))


def test_a_zero_point_of_0_is_not_stored_by_version_1(source: Path) -> None:
    layer = round_to_nearest(NAME, torch.arange(96 * 64).reshape(96, 64) / 100, A4)
    assert made(source, "gptqmodel")[0].stored(layer) is layer
    with pytest.raises(ValueError, match="zero point of 0, which auto_gptq cannot store"):
        made(source, "auto_gptq")[0].stored(layer)


def test_unplanned_act_order_groups_are_rejected(source: Path) -> None:
    plain = round_to_nearest(NAME, torch.ones(96, 64), W4)
    order = torch.arange(64, dtype=torch.int32).flip(0) // 32
    layer = QuantizedLinear(NAME, W4, plain.ints, plain.scales, plain.zeros, order)
    with pytest.raises(ValueError, match="act-order"):
        made(source, "auto_gptq", W4)[0].stored(layer)


@pytest.mark.parametrize("name", ["auto_gptq", "gptqmodel"])
def test_planned_act_order_groups_are_read_back(source: Path, tmp_path: Path, name: str) -> None:
    tree = open_tree(source)
    plan = plan_packed(name, tree, resolve_schemes(tree, bits_map(W4)), tree.config, act_order=True)
    folder = tmp_path / "out"
    folder.mkdir()
    writer, layers = plan.writer(folder), made(source, name, W4)[1]
    for layer, value in layers.items():
        order = torch.arange(value.in_features, dtype=torch.int32) % (value.in_features // 32)
        layers[layer] = replace(value, g_idx=order)
        writer.write(layers[layer])
    writer.begin(source)
    writer.finish(TensorStore(source), go_on)
    checkpoint = plan.open(folder)
    assert all(torch.equal(checkpoint.layer(layer).dequantize(), value.dequantize()) for layer, value in layers.items())
    assert "desc_act" in plan.notes[0]
