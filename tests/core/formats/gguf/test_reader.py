"""Tests of reading a GGUF file as a checkpoint, with the names and row order of transformers, compared with gguf-py."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.block_types import TYPES
from core.errors import CorruptFile, ModelNotFound, UnsupportedModel
from core.formats.gguf import values as gguf_values
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.opened import open_checkpoint
from core.formats.plain import PlainCheckpoint
from core.formats.reader import QuantizedCheckpoint
from core.model.tree import build_tree
from core.schemes import LayerScheme
from tests.core.formats.gguf import gguf_files
from tests.core.formats.tiny import LLAMA_CONFIG, bits_map, llama_tensors, save_source, write_output
from tests.core.tiny_model import save_model

Q, K, UP = (f"model.layers.1.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"))
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


@cache
def wide_llama() -> Any:
    """Return a model with rows of 256, as K-quants need, and a bias of q."""
    torch.manual_seed(2)
    settings = gguf_files.ROOMY | {"hidden_size": 256, "intermediate_size": 512, "attention_bias": True}
    model = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**settings), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(folder: Path, kind: str = "F32", architecture: str = "llama", model: Any = None, **more: Any) -> Path:
    model = model if model is not None else gguf_files.build(architecture)
    stored = gguf.GGMLQuantizationType[kind]
    return gguf_files.write(folder / f"{architecture}.gguf", architecture, model, kind=stored, **more)


def dequantized(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the file, dequantized by gguf-py."""
    return {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}


def as_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of q or k in the order of transformers."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_layers_are_what_gguf_py_dequantizes(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, kind.upper(), model=wide_llama())
    found, theirs = GgufCheckpoint(path), dequantized(path)
    expected = {
        Q: as_halves(theirs["blk.1.attn_q.weight"], 4), K: as_halves(theirs["blk.1.attn_k.weight"], 2),
        UP: theirs["blk.1.ffn_up.weight"], HEAD: theirs["output.weight"],
    }  # fmt: skip
    for name, weight in expected.items():
        assert found.schemes[name] == LayerScheme.of_type(kind)
        assert np.array_equal(found.layer(name).dequantize().numpy(), weight), name


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K"])
def test_an_embedding_in_blocks_is_read_as_floats(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_values, "CHUNK_ELEMENTS", 3000)
    path = saved(tmp_path, kind, model=wide_llama())
    store, expected = GgufCheckpoint(path).store, dequantized(path)["token_embd.weight"]
    assert store.info(EMBEDDING).dtype == "F32"
    assert np.array_equal(store.get(EMBEDDING).numpy(), expected)
    index = torch.tensor([7, 0, 7, 287])
    assert np.array_equal(store.rows(EMBEDDING, index).numpy(), expected[index])
    assert b"".join(store.chunks(EMBEDDING)) == expected.tobytes()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_are_read_as_they_are_stored(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_values, "CHUNK_ELEMENTS", 3000)
    checkpoint = GgufCheckpoint(saved(tmp_path, kind, model=wide_llama()))
    assert not checkpoint.schemes
    state = wide_llama().state_dict()
    for name in checkpoint.plain:
        value, info = checkpoint.store.get(name), checkpoint.store.info(name)
        assert (info.dtype, tuple(value.shape)) == (kind if value.dim() == 2 else "F32", info.shape)
        assert torch.equal(value, state[name].to(value.dtype)), name
        assert b"".join(checkpoint.store.chunks(name)) == value.reshape(-1).view(torch.uint8).numpy().tobytes()
        if value.dim() == 2:
            index = torch.tensor([1, value.shape[0] - 1, 0])
            assert torch.equal(checkpoint.store.rows(name, index), value[index]), name


@pytest.mark.parametrize("architecture", gguf_files.FAMILIES)
def test_every_family_has_its_own_tensors_back(architecture: str, tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(saved(tmp_path, architecture=architecture))
    state = gguf_files.build(architecture).state_dict()
    for name in checkpoint.plain:
        # A norm stored with 1 added comes back but for the last bits of that sum.
        assert torch.allclose(checkpoint.store.get(name), state[name], rtol=0, atol=1e-6), name
    left = set(state) - set(checkpoint.plain)
    assert left <= {"lm_head.weight"}


@pytest.mark.parametrize("architecture", gguf_files.FAMILIES)
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_the_tree_is_that_of_the_original(architecture: str, kind: str, tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(saved(tmp_path, kind, architecture))
    config = gguf_files.build(architecture).config
    tree = build_tree(checkpoint.config, checkpoint.dense_table())
    assert (tree.refusal, tree.blocks, tree.tied) == ("", config.num_hidden_layers, config.tie_word_embeddings)
    assert set(checkpoint.schemes) == (set() if kind == "F16" else {linear.name for linear in tree.linears})


@pytest.mark.parametrize("kind", ["TQ2_0", "IQ3_S"])
def test_types_that_are_not_written_are_read_as_floats(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, kind, model=wide_llama())
    checkpoint = GgufCheckpoint(path)
    assert (checkpoint.schemes, checkpoint.store.info(f"{Q}.weight").dtype) == ({}, "F32")
    expected = as_halves(dequantized(path)["blk.1.attn_q.weight"], 4)
    assert np.array_equal(checkpoint.store.get(f"{Q}.weight").numpy(), expected)
    index = torch.tensor([5, 2])
    assert np.array_equal(checkpoint.store.rows(f"{Q}.weight", index).numpy(), expected[index])


def test_unsupported_type_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path, drop="blk.0.ffn_up.weight")
    writer_extra = np.zeros((96, 64), dtype=np.int32)
    changed = rewritten(path, {"blk.0.ffn_up.weight": writer_extra})
    with pytest.raises(UnsupportedModel, match="I32"):
        GgufCheckpoint(changed).store.get("model.layers.0.mlp.up_proj.weight")


def rewritten(path: Path, extra: dict[str, np.ndarray]) -> Path:
    """Write the same file with additional tensors."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("more.gguf"), "llama")
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "general.arch")):
            continue
        writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, values in extra.items():
        writer.add_tensor(name, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path.with_name("more.gguf")


def test_the_folder_holds_config_and_tokenizer_and_no_weights(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(saved(tmp_path, "Q8_0"))
    folder = checkpoint.folder
    assert transformers.AutoConfig.from_pretrained(folder).hidden_size == 64
    assert AutoTokenizer.from_pretrained(folder).tokenize("there") == ["the", "re"]
    assert not list(folder.glob("*.safetensors"))
    assert GgufCheckpoint(checkpoint.path).folder == folder


def test_a_file_that_shrinks_while_it_is_read_is_corrupt(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(saved(tmp_path, "Q8_0"))
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-4096])
    with pytest.raises(CorruptFile, match="ended inside"):
        [checkpoint.layer(name) for name in checkpoint.schemes]


def test_deleted_file_is_an_error(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(saved(tmp_path, "Q8_0"))
    store = checkpoint.store
    checkpoint.path.unlink()
    with pytest.raises(ModelNotFound):
        checkpoint.layer(UP)
    with pytest.raises(ModelNotFound):
        store.rows(EMBEDDING, torch.tensor([1]))


def test_a_model_on_disk_is_opened_as_what_it_is(tmp_path: Path) -> None:
    source = save_source(tmp_path / "source", llama_tensors(), LLAMA_CONFIG)
    packed = write_output(source, tmp_path / "packed", "auto_round", bits_map(LayerScheme(4, 32)))
    single = tmp_path / "single"
    single.mkdir()
    kinds = {
        save_model(tmp_path / "model"): PlainCheckpoint, packed.folder: QuantizedCheckpoint,
        saved(single, "Q8_0"): GgufCheckpoint, single: GgufCheckpoint,
    }  # fmt: skip
    assert [type(open_checkpoint(path)) for path in kinds] == list(kinds.values())


@pytest.mark.parametrize("name", ["nothing", "nothing.gguf"])
def test_missing_model_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises((ModelNotFound, CorruptFile)):
        open_checkpoint(tmp_path / name)
