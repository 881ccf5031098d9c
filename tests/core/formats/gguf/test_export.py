"""Tests of the export of a model as a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from core.errors import Cancelled, UnsupportedModel
from core.files import read_json
from core.formats.gguf import export as module
from core.formats.gguf.export import export, plain_pieces
from core.formats.gguf.file import Entry
from core.model.headers import read_folder
from core.model.tree import ModelTree, build_tree
from core.model.weights import TensorStore
from tests.core.formats.gguf import families


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return families.save(families.build("gemma3"), tmp_path / "model")


def tree_of(folder: Path) -> ModelTree:
    return build_tree(read_json(folder / "config.json"), read_folder(folder))


@pytest.mark.parametrize("kind", ["", "f16", "bf16", "f32"])
def test_what_is_written_is_what_was_planned(folder: Path, tmp_path: Path, kind: str) -> None:
    contents = families.write(folder, tmp_path / "m.gguf", kind)
    found = gguf.GGUFReader(tmp_path / "m.gguf").tensors
    assert (tmp_path / "m.gguf").stat().st_size == contents.nbytes
    assert [(item.name, item.tensor_type.name.lower(), item.n_bytes) for item in found] == [
        (slot.name, slot.type, slot.nbytes) for slot in contents.slots
    ]
    matrices = {slot.type for slot in contents.slots if len(slot.shape) == 2}
    assert matrices == {kind or "bf16"}


@pytest.mark.parametrize("family", ["llama-biased", "gemma3"])
def test_the_checkpoint_comes_back_from_the_file(tmp_path: Path, family: str) -> None:
    model = families.build(family)
    folder = families.save(model, tmp_path / "model")
    contents = families.write(folder, tmp_path / "m.gguf", "f32")
    found = {item.name: item.data for item in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    state = model.state_dict()
    for item in contents.tensor_map.mapped:
        value = torch.from_numpy(np.array(found[item.name])).reshape(item.shape)
        assert torch.equal(item.restore(value), state[item.source])


def test_norms_and_biases_are_in_32_bits(folder: Path) -> None:
    contents = export(tree_of(folder), folder, "m", {"model.layers.0.self_attn.q_norm": "f16"})
    assert {slot.type for slot in contents.slots if len(slot.shape) == 1} == {"f32"}


def test_types_are_looked_up_by_layer(folder: Path) -> None:
    tree = tree_of(folder)
    contents = export(tree, folder, "m", {"model.layers.1.mlp.down_proj": "q4_0", tree.embedding: "f16"})
    assert contents.types["model.layers.1.mlp.down_proj"] == "q4_0"
    assert contents.types[tree.embedding] == "f16"
    assert contents.types["model.layers.0.mlp.down_proj"] == "bf16"
    assert contents.of_linear["model.layers.1.mlp.down_proj"].name == "blk.1.ffn_down.weight"


def test_metadata_has_the_file_type(folder: Path) -> None:
    def said(**options: Any) -> int:
        entries = export(tree_of(folder), folder, "m", {}, **options).entries
        return next(e.value for e in entries if isinstance(e, Entry) and e.key == "general.file_type")

    assert said() == gguf.LlamaFileType.MOSTLY_BF16
    assert said(mix="q4_k_m") == gguf.LlamaFileType.MOSTLY_Q4_K_M


def test_large_matrices_come_in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7 * 64)
    tree = tree_of(folder)
    place = export(tree, folder, "m", {}).of_linear[tree.embedding]
    store = TensorStore(folder, tree.tensors)
    pieces = list(plain_pieces(place, "bf16", store))
    assert len(pieces) == 92
    assert torch.equal(torch.cat(pieces), store.get(place.source))


def test_stop_between_pieces(folder: Path) -> None:
    tree = tree_of(folder)
    place = export(tree, folder, "m", {}).of_linear[tree.embedding]
    with pytest.raises(Cancelled):
        list(plain_pieces(place, "bf16", TensorStore(folder, tree.tensors), lambda: True))


def test_blocks_are_not_copied(folder: Path) -> None:
    tree = tree_of(folder)
    place = export(tree, folder, "m", {}).of_linear[tree.embedding]
    with pytest.raises(ValueError, match="copied as q4_0"):
        list(plain_pieces(place, "q4_0", TensorStore(folder, tree.tensors)))


def test_unsupported_tokenizer_is_an_error_before_the_export(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match="neither"):
        export(tree_of(folder), folder, "m", {})
