"""Separate experts of a checkpoint fill the parameters in which transformers stores all experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.model.joined_experts import JoinedStore
from core.model.skeleton import Skeleton, build_skeleton
from core.model.weights import TensorStore, read_bias, read_linear
from tests.core.formats.tiny import open_tree
from tests.core.tiny_architectures import make_model

pytestmark = pytest.mark.filterwarnings("ignore")


def opened(folder: Path) -> Skeleton:
    return build_skeleton(open_tree(folder), TensorStore(folder))


@pytest.fixture(params=["gpt_oss", "granitemoe", "llama4_text", "mixtral"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "original"
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


def test_all_parameters_are_those_of_the_original_model(original: Path, separate: Path) -> None:
    ours, theirs = opened(separate), opened(original)
    ours.check()
    for skeleton in (ours, theirs):
        skeleton.fill("", torch.bfloat16, torch.device("cpu"))
    expected = dict(theirs.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_layers_of_both_trees_are_in_the_same_places(original: Path, separate: Path) -> None:
    ours, theirs = opened(separate), opened(original)
    others = {linear.name: linear for linear in theirs.tree.linears}
    linears = open_tree(separate).linears
    assert {linear.name for linear in linears} == set(others)
    for linear in linears:
        other = others[linear.name]
        assert ours.module_name(linear.name) == theirs.module_name(other.name)
        for found, expected in zip(ours.slices(linear), theirs.slices(other), strict=True):
            assert str(found) == str(expected)


def test_assembled_tensors_are_read_in_parts(original: Path, separate: Path) -> None:
    store, before = opened(separate).store, TensorStore(original)
    assert isinstance(store, JoinedStore)
    for name in store.joined:
        value = before.get(name)
        assert torch.equal(store.get(name), value)
        assert b"".join(store.chunks(name)) == value.view(torch.uint8).numpy().tobytes()
        index = torch.tensor([2, 0])
        assert torch.equal(store.rows(name, index), value[index])


def test_a_checkpoint_in_the_layout_of_transformers_is_not_changed(original: Path) -> None:
    assert type(opened(original).store) is TensorStore
