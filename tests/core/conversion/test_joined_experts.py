"""Separate experts of a checkpoint are read as the tensors that transformers saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.control import never
from core.conversion.convert import convert
from core.conversion.joined_experts import JoinedStore, join_experts
from core.formats.reader import QuantizedCheckpoint
from core.model.skeleton import build_skeleton
from core.model.tree import ModelTree
from core.model.weights import TensorStore, read_bias, read_linear
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, write_output
from tests.core.tiny_architectures import make_model

pytestmark = pytest.mark.filterwarnings("ignore")
SCHEME = LayerScheme(4, 32, True)


@pytest.fixture(scope="module", params=["gpt_oss", "granitemoe", "llama4_text", "mixtral"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    make_model(request.param, folder)
    return folder


@pytest.fixture
def separate(original: Path, tmp_path: Path) -> Path:
    """Write the model with the experts as separate tensors, as in packed outputs."""
    folder, store, tree = tmp_path / "separate", TensorStore(original), open_tree(original)
    tensors = load_file(original / "model.safetensors")
    for linear in tree.linears:
        if linear.part is not None:
            tensors.pop(tree.weight_of(linear), None)
            tensors.pop(tree.bias_of(linear), None)
            tensors[f"{linear.name}.weight"] = read_linear(store, tree, linear)
            bias = read_bias(store, tree, linear)
            if bias is not None:
                tensors[f"{linear.name}.bias"] = bias
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_bytes((original / "config.json").read_bytes())
    return folder


def joined(folder: Path) -> tuple[ModelTree, TensorStore]:
    tree, store = open_tree(folder), TensorStore(folder)
    return join_experts(build_skeleton(tree, store).model, tree, store)


def one_expert_kept(original: Path, folder: Path) -> tuple[Output, str]:
    """Write the model packed, with one matrix of an expert in 16 bits; return it and the name of that matrix."""
    tree = open_tree(original)
    kept = next(linear.name for linear in tree.linears if ".experts.1." in linear.name)
    written = write_output(
        original,
        folder,
        "auto_round",
        bits_map(SCHEME, {kept: {"bits": 16}}),
        module_name=build_skeleton(tree, TensorStore(original)).module_name,
    )
    return written, kept


def test_all_tensors_are_those_of_the_original_model(original: Path, separate: Path) -> None:
    tree, store = joined(separate)
    assert isinstance(store, JoinedStore)
    expected = load_file(original / "model.safetensors")
    assert set(store.table) == set(expected)
    for name, value in expected.items():
        assert torch.equal(store.get(name), value), name
        assert b"".join(store.chunks(name)) == value.view(torch.uint8).numpy().tobytes()
    assert {linear.name for linear in tree.linears} == {linear.name for linear in open_tree(original).linears}


def test_single_experts_are_read(original: Path, separate: Path) -> None:
    _, store = joined(separate)
    assert isinstance(store, JoinedStore)
    index = torch.tensor([2, 0])
    for name in store.joined:
        assert torch.equal(store.rows(name, index), TensorStore(original).get(name)[index])


def test_a_checkpoint_in_the_layout_of_transformers_is_not_changed(original: Path) -> None:
    assert type(joined(original)[1]) is TensorStore


def test_an_output_of_floats_has_the_tensors_that_transformers_loads(original: Path, tmp_path: Path) -> None:
    tree = open_tree(original)
    packed, _ = one_expert_kept(original, tmp_path / "packed")
    convert(str(packed.folder), tmp_path / "f32", "f32", lambda event: None, never)
    written, before = TensorStore(tmp_path / "f32"), TensorStore(original)
    assert {name: info.shape for name, info in written.table.items()} == {
        name: info.shape for name, info in before.table.items()
    }
    after = open_tree(tmp_path / "f32")
    for linear in after.linears:
        weight = read_linear(written, after, linear)
        layer = packed.layers.get(linear.name)
        expected = read_linear(before, tree, linear).float() if layer is None else layer.dequantize()
        assert torch.equal(weight, expected), linear.name
        bias = read_bias(before, tree, linear)
        found = read_bias(written, after, linear)
        assert bias is None or (found is not None and torch.equal(found, bias.float()))


def test_packed_formats_are_converted_exactly(original: Path, tmp_path: Path) -> None:
    packed, kept = one_expert_kept(original, tmp_path / "packed")
    for number, name in enumerate(("auto_gptq", "auto_awq", "auto_round")):
        source = packed.folder if not number else tmp_path / str(number - 1)
        convert(str(source), tmp_path / str(number), name, lambda event: None, never)
        checkpoint = QuantizedCheckpoint(tmp_path / str(number))
        assert set(checkpoint.schemes) == set(packed.layers)
        for layer in packed.layers.values():
            assert torch.equal(checkpoint.layer(layer.name).ints, layer.ints)
    module = build_skeleton(open_tree(original), TensorStore(original)).module_name(kept)
    config = json.loads((tmp_path / "0" / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert any(module.replace(".", r"\.") in key for key in config["dynamic"])
