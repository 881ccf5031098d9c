"""Where a checkpoint's tensors go in a GGUF file, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gguf
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnsupportedModel
from core.formats.gguf.architectures import Placed, describe, origin
from core.formats.gguf.families import FAMILIES, family_of, full_config
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
    layout = describe(tree)
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == layout.family.name)
    theirs = gguf.get_tensor_name_map(kind, tree.blocks)
    found = {item.source: item.name for item in layout.placed}
    assert found == {name: theirs.get_name(name, (".weight", ".bias")) for name in tree.tensors}
    assert not layout.left_out


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_tensor_is_found_again_from_the_file_s_side(family: str) -> None:
    tree = families.tree_of(family)
    for item in describe(tree).placed:
        assert origin(tree.config, item.name, item.shape) == item


def test_a_computed_tensor_comes_from_no_checkpoint() -> None:
    assert origin(families.tree_of("llama3").config, "rope_freqs.weight", (8,)) is None


def test_q_and_k_are_permuted_as_llama_cpp_wants_them() -> None:
    placed = {item.name: item for item in describe(families.tree_of("llama-biased")).placed}
    rows = torch.arange(96)
    # llama.cpp's converter: heads, halves and rows of a half, the latter two exchanged.
    expected = rows.reshape(4, 2, 12).swapaxes(1, 2).reshape(96)
    assert placed["blk.0.attn_q.weight"].order.equal(expected)
    assert placed["blk.0.attn_q.bias"].store(rows).equal(expected)
    assert placed["blk.0.attn_k.weight"].order.equal(expected[:48])
    assert placed["blk.0.attn_v.weight"].order is None


def test_permuted_layers_are_those_that_llama_cpp_rotates_in_pairs() -> None:
    permuted = {
        name for name in families.FAMILIES if any(item.heads for item in describe(families.tree_of(name)).placed)
    }
    assert permuted == {"llama", "llama-biased", "llama3", "llama-linear", "llama-yarn", "mistral"}


@given(st.integers(1, 8), st.integers(1, 16), st.integers(1, 5), st.integers(0, 2**32))
def test_rows_come_back(heads: int, half: int, columns: int, seed: int) -> None:
    value = torch.randn(heads * half * 2, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()
    place = Placed("a.weight", "a", "b.weight", tuple(value.shape), heads)
    assert torch.equal(place.restore(place.store(value)), value)
    assert torch.equal(place.store(value)[place.back], value)


@given(st.floats(2.0**-16, 2.0**15, width=16, allow_subnormal=False), st.booleans())
def test_a_norm_comes_back_exactly(value: float, negative: bool) -> None:
    place = Placed("n.weight", "", "n.weight", (1,), shift=1.0)
    weight = torch.tensor([-value if negative else value]).bfloat16()
    assert torch.equal(place.restore(place.store(weight)).bfloat16(), weight)


def test_gemma_s_norms_and_no_others_are_stored_plus_one() -> None:
    for name in families.FAMILIES:
        shifted = {item.source for item in describe(families.tree_of(name)).placed if item.shift}
        norms = {source for source in families.tree_of(name).tensors if source.endswith("norm.weight")}
        assert shifted == (norms if name.startswith("gemma") else set())


def test_matrices_are_named_as_a_bits_map_names_them() -> None:
    tree = families.tree_of("qwen3")
    linears = {item.linear for item in describe(tree).placed} - {""}
    assert linears == {linear.name for linear in tree.linears} | {tree.embedding}


def test_a_file_starts_with_the_embedding_and_goes_block_by_block() -> None:
    names = [item.name for item in describe(families.tree_of("llama")).placed]
    blocks = [int(name.split(".")[1]) for name in names if name.startswith("blk.")]
    assert names[0] == "token_embd.weight"
    assert blocks == sorted(blocks)
    assert set(names[-2:]) == {"output_norm.weight", "output.weight"}


def test_rotary_tables_are_left_out() -> None:
    tree = changed(families.tree_of("qwen2"), model__layers__0__self_attn__rotary_emb__inv_freq=(8,))
    assert describe(tree).left_out == ("model.layers.0.self_attn.rotary_emb.inv_freq",)


def test_a_head_in_the_checkpoint_is_written_whatever_its_config_says() -> None:
    tree = changed(families.tree_of("qwen2"), {"tie_word_embeddings": True}, lm_head__weight=(640, 64))
    assert [item.source for item in describe(tree).placed if item.name == "output.weight"] == ["lm_head.weight"]


def test_a_tied_head_gets_a_matrix_of_its_own() -> None:
    head = describe(families.tree_of("qwen2"), own_head=True).placed[-1]
    assert (head.source, head.linear, head.name) == ("model.embed_tokens.weight", "lm_head", "output.weight")


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_where_the_head_is_always_the_embedding_it_gets_none(family: str) -> None:
    with pytest.raises(UnsupportedModel, match="always the embedding"):
        describe(families.tree_of(family), own_head=True)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_defaults_are_those_of_transformers(family: str) -> None:
    """A config that says as little as it can is read as transformers reads it."""
    name, _ = families.FAMILIES[family]
    theirs = getattr(transformers, name)()
    tidy = {"model_type": theirs.model_type, "num_attention_heads": theirs.num_attention_heads}
    full = full_config(tidy | {"hidden_size": theirs.hidden_size})
    for key, value in family_of(tidy).defaults.items():
        if key in ("rope_theta", "rope_local_base_freq"):
            rope = theirs.rope_parameters
            part = rope.get("sliding_attention" if "local" in key else "full_attention", rope)
            assert part["rope_theta"] == value
        else:
            assert getattr(theirs, key) == full[key]
    assert full["num_key_value_heads"] == theirs.num_key_value_heads
    assert full["head_dim"] == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)


def test_a_null_in_the_config_is_no_default() -> None:
    config = {"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 4, "head_dim": None,
              "sliding_window": None}  # fmt: skip
    full = full_config(config)
    assert full["head_dim"] == 16
    assert full["sliding_window"] is None


@pytest.mark.parametrize(
    ("family", "config", "match"),
    [
        ("llama", {"model_type": "bloom"}, "this model is 'bloom'"),
        ("llama", {"hidden_act": "relu"}, "activation 'relu'"),
        ("llama", {"hidden_size": None}, "what hidden_size is"),
        ("llama", {"num_key_value_heads": 8}, "has the shape"),
        ("llama", {"intermediate_size": 97}, "has the shape"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rule 'dynamic'"),
        ("qwen2", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rule 'llama3'"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "part of each head"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "not say by what"),
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
        describe(changed(families.tree_of(family), config))
    assert caught.value.hint


def test_a_tensor_without_a_place_is_refused() -> None:
    tree = changed(families.tree_of("qwen3"), model__layers__0__self_attn__o_proj__bias=(64,))
    with pytest.raises(UnsupportedModel, match=r"no place for 'model\.layers\.0\.self_attn\.o_proj\.bias'"):
        describe(tree)


def test_a_missing_tensor_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"lacks what a GGUF file has as blk\.1\.attn_norm\.weight"):
        describe(changed(families.tree_of("llama"), model__layers__1__input_layernorm__weight=None))


def test_a_checkpoint_without_the_outer_module_is_placed() -> None:
    tree = families.tree_of("llama")
    bare = {
        name.removeprefix("model."): replace(info, name=name.removeprefix("model."))
        for name, info in tree.tensors.items()
    }
    names = {item.name for item in describe(build_tree(tree.config, bare)).placed}
    assert names == {item.name for item in describe(tree).placed}


def test_a_window_that_llama_cpp_ignores_is_said() -> None:
    tree = changed(families.tree_of("mistral"), {"sliding_window": 100})
    assert ["100 tokens" in note for note in describe(tree).notes] == [True]
    assert not describe(changed(families.tree_of("qwen2"), {"sliding_window": 100})).notes


def test_every_family_is_tested() -> None:
    tested = {families.config_of(name).model_type for name in families.FAMILIES}
    assert tested == set(FAMILIES)
