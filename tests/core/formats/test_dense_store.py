"""Quantized layers of a checkpoint appear as float32 weights, all other tensors as stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.formats.dense_store import DenseStore
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, Output, bits_map, llama_tensors, save_source, write_output

KEPT = "model.layers.0.self_attn.k_proj"
QUANTIZED = "model.layers.1.mlp.down_proj"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    source = save_source(tmp_path / "source", llama_tensors(), LLAMA_CONFIG)
    return write_output(
        source, tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32, True), {KEPT: {"bits": 16}})
    )


def test_every_weight_of_the_original_model_is_there(output: Output) -> None:
    store = DenseStore(QuantizedCheckpoint(output.folder))
    assert set(store.table) == set(llama_tensors())
    for name, layer in output.layers.items():
        info = store.info(f"{name}.weight")
        assert (info.dtype, info.shape) == ("F32", (layer.out_features, layer.in_features))
        assert torch.equal(store.get(f"{name}.weight"), layer.dequantize())


def test_other_tensors_are_read_as_stored(output: Output) -> None:
    store = DenseStore(QuantizedCheckpoint(output.folder))
    stored = load_file(output.folder / "model.safetensors")
    for name in (f"{KEPT}.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"):
        assert torch.equal(store.get(name), stored[name])
        assert b"".join(store.chunks(name)) == stored[name].view(torch.uint8).numpy().tobytes()


def test_rows_and_chunks_are_those_of_the_whole_weight(output: Output) -> None:
    store = DenseStore(QuantizedCheckpoint(output.folder))
    name, index = f"{QUANTIZED}.weight", torch.tensor([5, 0, 63])
    assert torch.equal(store.rows(name, index), store.get(name)[index])
    assert b"".join(store.chunks(name)) == store.get(name).numpy().tobytes()


def test_only_the_chosen_layers_are_included(output: Output) -> None:
    checkpoint = QuantizedCheckpoint(output.folder)
    store = DenseStore(checkpoint, [QUANTIZED])
    assert set(store.table) == {*checkpoint.plain, f"{QUANTIZED}.weight"}


def test_layers_of_conv1d_are_presented_as_transformers_stores_them(output: Output) -> None:
    checkpoint = QuantizedCheckpoint(output.folder)
    store, plain = DenseStore(checkpoint, transposed=[QUANTIZED]), DenseStore(checkpoint)
    name, index = f"{QUANTIZED}.weight", torch.tensor([2, 0])
    assert store.info(name).shape == plain.info(name).shape[::-1]
    assert torch.equal(store.get(name), plain.get(name).T)
    assert torch.equal(store.rows(name, index), plain.get(name).T[index])
    assert b"".join(store.chunks(name)) == plain.get(name).T.contiguous().numpy().tobytes()
