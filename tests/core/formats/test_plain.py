"""Floating-point outputs: rounding, shapes, configs and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.control import never
from core.errors import BadInput, Cancelled, VerificationFailed
from core.formats.plain import PlainCheckpoint, PlainLinear, PlainPlan, plan_plain
from core.model.tree import LayerPlan, ModelTree
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, llama_tensors, open_tree, round_to_nearest, save_source

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
LAYER = "model.layers.0.mlp.up_proj"
FOUR, LEFT = LayerScheme(4, 32), LayerScheme(bits=16)


def tree_plans(tree: ModelTree, *names: str) -> list[LayerPlan]:
    return [LayerPlan(item, FOUR if item.name in names else LEFT, "", "") for item in tree.linears]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_source(tmp_path / "source", llama_tensors(), {**LLAMA_CONFIG, "torch_dtype": "bfloat16"})


def write(plan: PlainPlan, source: Path, target: Path, *layers: object) -> Path:
    target.mkdir()
    writer = plan.writer(target)
    for layer in layers:
        writer.write(plan.stored(layer))  # type: ignore[arg-type]
    writer.begin(source)
    writer.finish(TensorStore(source), never)
    return target


@pytest.mark.parametrize("name", list(DTYPES))
def test_every_floating_point_tensor_gets_the_dtype(folder: Path, tmp_path: Path, name: str) -> None:
    plan = plan_plain(name, open_tree(folder), [], {})
    made = load_file(write(plan, folder, tmp_path / "out") / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    assert list(made) == list(before)
    assert all(torch.equal(made[key], before[key].to(DTYPES[name])) for key in before)
    assert plan.nbytes == sum(tensor.nbytes for tensor in made.values())


def test_integer_tensors_are_unchanged(tmp_path: Path) -> None:
    tensors = {**llama_tensors(), "model.position_ids": torch.arange(7), "model.mask": torch.ones(3, dtype=torch.bool)}
    source = save_source(tmp_path / "source", tensors, LLAMA_CONFIG)
    out = write(plan_plain("f32", open_tree(source), [], {}), source, tmp_path / "out")
    made = load_file(out / "model.safetensors")
    assert torch.equal(made["model.position_ids"], torch.arange(7))
    assert made["model.mask"].dtype == torch.bool


def test_a_quantized_layer_is_rounded_to_nearest(folder: Path, tmp_path: Path) -> None:
    layer = round_to_nearest(LAYER, llama_tensors()[f"{LAYER}.weight"], FOUR)
    tree = open_tree(folder)
    plan = plan_plain("bf16", tree, tree_plans(tree, LAYER), {})
    out = write(plan, folder, tmp_path / "out", layer)
    made = load_file(out / "model.safetensors")[f"{LAYER}.weight"]
    assert torch.equal(made, layer.dequantize().to(torch.bfloat16))
    assert torch.equal(plan.open(out).layer(LAYER).dequantize(), made.float())


def test_a_conv1d_weight_is_stored_transposed(tmp_path: Path) -> None:
    name = "h.0.mlp.c_fc"
    tensors = {
        "wte.weight": torch.randn(128, 64),
        f"{name}.weight": torch.randn(96, 64),  # [out, in], as in a quantized checkpoint
        f"{name}.bias": torch.randn(96),
        "h.0.ln_1.weight": torch.randn(64),
    }
    source = save_source(tmp_path / "source", tensors, {"model_type": "gpt2", "vocab_size": 128})
    tree = open_tree(source)
    plan = plan_plain("f32", tree, tree_plans(tree, name), {})
    layer = round_to_nearest(name, tensors[f"{name}.weight"], FOUR)
    out = write(plan, source, tmp_path / "out", layer)
    assert torch.equal(load_file(out / "model.safetensors")[f"{name}.weight"], layer.dequantize().T)
    assert torch.equal(plan.open(out).layer(name).dequantize(), layer.dequantize())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"dtype": "float16"}),
        ({"torch_dtype": "bfloat16"}, {"torch_dtype": "float16"}),
        ({"dtype": "float32", "quantization_config": {"bits": 4}}, {"dtype": "float16"}),
        (
            {"text_config": {"dtype": "bfloat16"}, "vision_config": {"depth": 2}},
            {"text_config": {"dtype": "float16"}, "vision_config": {"depth": 2}},
        ),
    ],
)
def test_the_config_contains_the_dtype(folder: Path, before: dict[str, object], after: dict[str, object]) -> None:
    assert plan_plain("f16", open_tree(folder), [], before).config == after


def test_the_source_config_is_not_modified(folder: Path) -> None:
    config = {"text_config": {"dtype": "bfloat16"}}
    plan_plain("f32", open_tree(folder), [], config)
    assert config == {"text_config": {"dtype": "bfloat16"}}


def test_values_outside_the_range_are_rejected_with_the_tensor_name(tmp_path: Path) -> None:
    tensors = {**llama_tensors(), "model.norm.weight": torch.full((64,), 1e5)}
    source = save_source(tmp_path / "source", tensors, LLAMA_CONFIG)
    plan = plan_plain("f16", open_tree(source), [], {})
    with pytest.raises(ValueError, match=r"model\.norm\.weight has values up to 1e\+05"):
        list(plan.rest(TensorStore(source), "model.norm.weight"))


def test_a_layer_of_another_shape_is_rejected(folder: Path) -> None:
    tree = open_tree(folder)
    plan = plan_plain("f32", tree, tree_plans(tree, LAYER), {})
    with pytest.raises(ValueError, match="planned as 96x64"):
        plan.stored(PlainLinear(LAYER, torch.zeros(64, 96)))


def test_an_unknown_floating_point_format_is_rejected(folder: Path) -> None:
    with pytest.raises(BadInput, match="Unknown output format 'f64'"):
        plan_plain("f64", open_tree(folder), [], {})


def test_other_tensors_are_compared_with_the_source(folder: Path, tmp_path: Path) -> None:
    plan = plan_plain("f16", open_tree(folder), [], {})
    out = write(plan, folder, tmp_path / "out")
    plan.check_rest(plan.open(out), TensorStore(folder), never)
    made = load_file(out / "model.safetensors")
    made["model.norm.weight"][3] += 1
    save_file(made, out / "model.safetensors")
    with pytest.raises(VerificationFailed, match=r"model\.norm\.weight"):
        plan.check_rest(plan.open(out), TensorStore(folder), never)


def test_should_stop_cancels_writing_other_tensors(folder: Path, tmp_path: Path) -> None:
    plan = plan_plain("f16", open_tree(folder), [], {})
    (tmp_path / "out").mkdir()
    writer = plan.writer(tmp_path / "out")
    with pytest.raises(Cancelled):
        writer.finish(TensorStore(folder), lambda: True)
    writer.abort()
    assert list((tmp_path / "out").iterdir()) == []


def test_side_files_are_copied(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    out = write(plan_plain("f16", open_tree(folder), [], {"model_type": "llama"}), folder, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert json.loads((out / "config.json").read_text()) == {"model_type": "llama", "dtype": "float16"}


def test_an_unquantized_folder_is_a_checkpoint_without_layers(folder: Path) -> None:
    found = PlainCheckpoint(folder)
    assert not found.schemes
    assert set(found.plain) == set(llama_tensors())
    with pytest.raises(KeyError):
        found.layer(LAYER)
