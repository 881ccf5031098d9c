"""Tests of the types of the mixes, compared with the output of the quantizer of llama.cpp."""

from __future__ import annotations

from collections import Counter

import pytest

from core.block_types import TYPES
from core.formats.gguf import mixes
from core.formats.gguf.mixes import Place
from core.formats.names import GGUF_MIXES
from tests.core.paper_model import llama


@pytest.mark.parametrize("mix", GGUF_MIXES)
def test_every_mix_is_named_after_a_type(mix: str) -> None:
    assert mixes.base_type(mix) in TYPES


@pytest.mark.parametrize(
    ("mix", "sixes"),
    [("q4_k_m", 16), ("q5_k_m", 16), ("q4_k_s", 0), ("q6_k", 32)],
)
def test_a_model_of_32_blocks_gets_six_bits_where_llama_cpp_gives_them(mix: str, sixes: int) -> None:
    found = Counter(mixes.layer_type(mix, Place("value", block, 32, 4)) for block in range(32))
    assert found["q6_k"] == sixes


def test_q3_k_m_of_32_blocks() -> None:
    values = [mixes.layer_type("q3_k_m", Place("value", block, 32, 1)) for block in range(32)]
    downs = [mixes.layer_type("q3_k_m", Place("down", block, 32, 1)) for block in range(32)]
    assert values == ["q5_k"] * 2 + ["q4_k"] * 30
    assert downs == ["q5_k"] * 2 + ["q4_k"] * 30
    assert mixes.layer_type("q3_k_m", Place("output", 7, 32, 1)) == "q4_k"
    assert mixes.layer_type("q3_k_m", Place("", 7, 32, 1)) == "q3_k"


@pytest.mark.parametrize(("shared", "expected"), [(1, "q3_k"), (3, "q3_k"), (4, "q4_k"), (8, "q4_k")])
def test_q2_k_gives_shared_values_more(shared: int, expected: str) -> None:
    assert mixes.layer_type("q2_k", Place("value", 0, 32, shared)) == expected


@pytest.mark.parametrize("mix", ["iq4_nl", "iq4_xs"])
def test_iq4_gives_shared_values_more(mix: str) -> None:
    assert [mixes.layer_type(mix, Place("value", 0, 32, shared)) for shared in (1, 3, 4)] == [mix, mix, "q5_k"]
    assert mixes.layer_type(mix, Place("down", 0, 32, 8)) == mix


def test_rows_without_whole_blocks_of_iq4_xs_get_iq4_nl() -> None:
    assert mixes.fitting("iq4_xs", 576) == "iq4_nl"
    assert mixes.fitting("iq4_nl", 48) == ""


@pytest.mark.parametrize("mix", ["iq4_nl", "iq4_xs"])
def test_layers_of_other_bits_than_iq4_have_k_types(mix: str) -> None:
    assert [mixes.type_for_bits(mix, bits) for bits in (2, 3, 4, 8)] == ["q2_k", "q3_k", mix, "q8_0"]


def test_a_place_knows_how_many_queries_share_a_head() -> None:
    tree = llama(4)
    tree.config.update(num_attention_heads=32, num_key_value_heads=8)
    assert mixes.place("self_attn.v_proj", 3, tree) == Place("value", 3, 4, 4)
    assert mixes.place("mlp.gate_proj", 0, tree).role == ""


@pytest.mark.parametrize(
    ("mix", "columns", "expected"),
    [("q4_k_m", 4096, "q6_k"), ("q4_k_m", 576, "q8_0"), ("q8_0", 4096, "q8_0"), ("q4_0", 4096, "q6_k"),
     ("q4_0", 576, "q8_0")],
)  # fmt: skip
def test_the_head_gets_six_bits_or_eight(mix: str, columns: int, expected: str) -> None:
    assert mixes.head_type(mix, columns) == expected


def test_an_embedding_that_is_no_head_has_the_type_of_the_mix() -> None:
    assert mixes.embedding_type("q4_k_m", 4096, tied=False) == "q4_k"
    assert mixes.embedding_type("q4_k_m", 576, tied=False) == "q5_0"
    assert mixes.embedding_type("q4_k_m", 4096, tied=True) == "q6_k"
    assert mixes.embedding_type("q4_k_m", 33, tied=False) == ""


def test_grids_that_are_plain_are_tuned_as_plain_ones() -> None:
    assert not mixes.tuned_as("q4_0").type
    assert not mixes.tuned_as("q8_0").type
    assert mixes.tuned_as("q5_0").type == "q5_0"
