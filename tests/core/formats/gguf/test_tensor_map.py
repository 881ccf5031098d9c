"""Where a checkpoint's tensors go in a GGUF file, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnsupportedModel
from core.formats.gguf.tensor_map import MappedTensor, map_tensors
from core.model.architectures.table import WRITTEN_TO_GGUF
from core.model.headers import TensorInfo
from core.model.tree import ModelTree, build_tree
from tests.core.formats.gguf import families


def changed(tree: ModelTree, config: dict[str, Any] | None = None, **tensors: tuple[int, ...] | None) -> ModelTree:
    """The tree with other settings, tensors added (with `__` for dots), or left out (None)."""
    table = dict(tree.tensors)
    for name, shape in tensors.items():
        name = name.replace("__", ".")
        table.pop(name, None)
        if shape is not None:
            table[name] = TensorInfo(name, "BF16", shape, "model.safetensors", 0, 2)
    return build_tree({**tree.config, **(config or {})}, table)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_names_are_those_of_gguf_py(family: str) -> None:
    tree = families.tree_of(family)
    tensor_map = map_tensors(tree)
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == tensor_map.rules.name)
    theirs = gguf.get_tensor_name_map(kind, tree.blocks)
    found = {item.source: item.name for item in tensor_map.mapped}
    assert found == {name: theirs.get_name(name, (".weight", ".bias")) for name in tree.tensors}
    assert not tensor_map.left_out


def test_q_and_k_are_permuted_as_llama_cpp_wants_them() -> None:
    placed = {item.name: item for item in map_tensors(families.tree_of("llama-biased")).mapped}
    rows = torch.arange(96)
    # llama.cpp's converter: heads, halves and rows of a half, the latter two exchanged.
    expected = rows.reshape(4, 2, 12).swapaxes(1, 2).reshape(96)
    query, key = placed["blk.0.attn_q.weight"].order, placed["blk.0.attn_k.weight"].order
    assert query is not None
    assert key is not None
    assert query.equal(expected)
    assert placed["blk.0.attn_q.bias"].store(rows).equal(expected)
    assert key.equal(expected[:48])
    assert placed["blk.0.attn_v.weight"].order is None


def test_permuted_layers_are_those_that_llama_cpp_rotates_in_pairs() -> None:
    permuted = {
        name for name in families.FAMILIES if any(item.heads for item in map_tensors(families.tree_of(name)).mapped)
    }
    assert permuted == {"llama", "llama-biased", "llama3", "llama-linear", "llama-yarn", "mistral"}


@given(st.integers(1, 8), st.integers(1, 16), st.integers(1, 5), st.integers(0, 2**32))
def test_rows_come_back(heads: int, half: int, columns: int, seed: int) -> None:
    value = torch.randn(heads * half * 2, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()
    place = MappedTensor("a.weight", "a", "b.weight", tuple(value.shape), heads)
    assert torch.equal(place.restore(place.store(value)), value)
    assert torch.equal(place.store(value)[place.back], value)


@given(st.floats(2.0**-16, 2.0**15, width=16, allow_subnormal=False), st.booleans())
def test_a_norm_comes_back_exactly(value: float, negative: bool) -> None:
    place = MappedTensor("n.weight", "", "n.weight", (1,), shift=1.0)
    weight = torch.tensor([-value if negative else value]).bfloat16()
    assert torch.equal(place.restore(place.store(weight)).bfloat16(), weight)


def test_gemma_s_norms_and_no_others_are_stored_plus_one() -> None:
    for name in families.FAMILIES:
        shifted = {item.source for item in map_tensors(families.tree_of(name)).mapped if item.shift}
        norms = {source for source in families.tree_of(name).tensors if source.endswith("norm.weight")}
        assert shifted == (norms if name.startswith("gemma") else set())


def test_matrices_are_named_as_a_bits_map_names_them() -> None:
    tree = families.tree_of("qwen3")
    linears = {item.linear for item in map_tensors(tree).mapped} - {""}
    assert linears == {linear.name for linear in tree.linears} | {tree.embedding}


def test_a_file_starts_with_the_embedding_and_goes_block_by_block() -> None:
    names = [item.name for item in map_tensors(families.tree_of("llama")).mapped]
    blocks = [int(name.split(".")[1]) for name in names if name.startswith("blk.")]
    assert names[0] == "token_embd.weight"
    assert blocks == sorted(blocks)
    assert set(names[-2:]) == {"output_norm.weight", "output.weight"}


def test_rotary_tables_are_left_out() -> None:
    tree = changed(families.tree_of("qwen2"), model__layers__0__self_attn__rotary_emb__inv_freq=(8,))
    assert map_tensors(tree).left_out == ("model.layers.0.self_attn.rotary_emb.inv_freq",)


def test_a_head_in_the_checkpoint_is_written_whatever_its_config_says() -> None:
    tree = changed(families.tree_of("qwen2"), {"tie_word_embeddings": True}, lm_head__weight=(640, 64))
    assert [item.source for item in map_tensors(tree).mapped if item.name == "output.weight"] == ["lm_head.weight"]


def test_a_tied_head_gets_a_matrix_of_its_own() -> None:
    head = map_tensors(families.tree_of("qwen2"), separate_head=True).mapped[-1]
    assert (head.source, head.linear, head.name) == ("model.embed_tokens.weight", "lm_head", "output.weight")


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_where_the_head_is_always_the_embedding_it_gets_none(family: str) -> None:
    with pytest.raises(UnsupportedModel, match="always the embedding"):
        map_tensors(families.tree_of(family), separate_head=True)


@pytest.mark.parametrize(
    ("family", "config", "match"),
    [
        ("llama", {"model_type": "bloom"}, "this model is 'bloom'"),
        ("llama", {"hidden_act": "relu"}, "activation 'relu'"),
        ("llama", {"hidden_size": None}, "not give hidden_size"),
        ("llama", {"num_key_value_heads": 8}, "has the shape"),
        ("llama", {"intermediate_size": 97}, "has the shape"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rule 'dynamic'"),
        ("qwen2", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rule 'llama3'"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "part of each head"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "without giving the factor"),
        ("gemma2", {"query_pre_attn_scalar": 33}, "scales its attention by 33"),
        ("gemma3", {"use_bidirectional_attention": True}, "both directions"),
        ("gemma3", {"attn_logit_softcapping": 5.0}, "caps its attention"),
        (
            "phi3-long",
            {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "longrope"}},
            "8 rotary factors",
        ),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(family: str, config: dict[str, Any], match: str) -> None:
    with pytest.raises(UnsupportedModel, match=match) as caught:
        map_tensors(changed(families.tree_of(family), config))
    assert caught.value.hint


def test_a_tensor_without_a_place_is_refused() -> None:
    tree = changed(families.tree_of("qwen3"), model__layers__0__self_attn__o_proj__bias=(64,))
    with pytest.raises(UnsupportedModel, match=r"no place for 'model\.layers\.0\.self_attn\.o_proj\.bias'"):
        map_tensors(tree)


def test_a_missing_tensor_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"has no tensor for blk\.1\.attn_norm\.weight"):
        map_tensors(changed(families.tree_of("llama"), model__layers__1__input_layernorm__weight=None))


def test_a_checkpoint_without_the_outer_module_is_placed() -> None:
    tree = families.tree_of("llama")
    bare = {
        name.removeprefix("model."): replace(info, name=name.removeprefix("model."))
        for name, info in tree.tensors.items()
    }
    names = {item.name for item in map_tensors(build_tree(tree.config, bare)).mapped}
    assert names == {item.name for item in map_tensors(tree).mapped}


def test_a_window_that_llama_cpp_ignores_is_said() -> None:
    tree = changed(families.tree_of("mistral"), {"sliding_window": 100})
    assert ["last 100 tokens" in note for note in map_tensors(tree).notes] == [True]
    assert not map_tensors(changed(families.tree_of("qwen2"), {"sliding_window": 100})).notes


def test_every_family_is_tested() -> None:
    tested = {families.config_of(name).model_type for name in families.FAMILIES}
    assert tested == set(WRITTEN_TO_GGUF)
