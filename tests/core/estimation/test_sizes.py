"""Tests that computed sizes equal those of the tensors that the formats write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bitsmap import BitsMap, Rule
from core.estimation.preflight import read_tree
from core.estimation.sizes import effective_bits, larger_than_source, layer_bytes, output_size, quantized_bytes
from core.formats.gguf.plan import plan_gguf
from core.formats.grids import plan_layers
from core.formats.names import AUTO_ROUND, GGUF, GPTQ
from core.formats.registry import plan_packed
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import BITS, LayerScheme
from tests.core.paper_model import seeing
from tests.core.tiny_model import save_model

MAPS = {
    "w4": BitsMap(LayerScheme(4, 64)),
    "w3 row": BitsMap(LayerScheme(3, -1)),
    "w8 asym": BitsMap(LayerScheme(8, 32, sym=False)),
    "mixed": BitsMap(LayerScheme(2, 128), (Rule("*.down_proj", bits=8), Rule("*.v_proj", bits=16))),
    "tied head": BitsMap(LayerScheme(4, 64), layers=(Rule("lm_head", bits=8),)),
    "tied head alone": BitsMap(LayerScheme(16), layers=(Rule("lm_head", bits=3, sym=False),)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tree(folder: Path) -> ModelTree:
    return read_tree(folder)


@pytest.mark.parametrize("name", [name for name in (*AUTO_ROUND, *GPTQ) if name != "auto_round:auto_awq"])
@pytest.mark.parametrize("kind", MAPS)
def test_the_output_has_the_bytes_of_the_planned_tensors(tree: ModelTree, name: str, kind: str) -> None:
    plans = resolve_schemes(tree, MAPS[kind])
    planned = plan_packed(name, tree, plans, tree.config)
    size = output_size(tree, plans, name)
    assert size.total == planned.nbytes
    assert size.kept == sum(tensor.nbytes for tensor in planned.tensors if tensor.name in set(planned.copied))
    index = sum(tensor.nbytes for tensor in planned.tensors if tensor.name.endswith(".g_idx"))
    assert (size.index, size.quantized) == (index, size.total - size.kept - index)


@pytest.mark.parametrize("kind", ["w4", "w3 row", "mixed", "tied head", "tied head alone"])
def test_a_gguf_file_has_the_bytes_of_its_tensors(folder: Path, tree: ModelTree, kind: str) -> None:
    assert_gguf(folder, tree, "gguf", MAPS[kind])


@pytest.mark.parametrize("name", GGUF[1:])
def test_a_named_type_has_the_bytes_of_its_tensors(folder: Path, tree: ModelTree, name: str) -> None:
    assert_gguf(folder, tree, name, MAPS["mixed"])


def assert_gguf(folder: Path, tree: ModelTree, name: str, chosen: BitsMap) -> None:
    plans = plan_layers(tree, chosen, (name,))
    planned = plan_gguf(name, tree, plans, folder, "tiny")
    assert output_size(tree, plans, name).total == sum(slot.nbytes for slot in planned.contents.slots)


def test_the_effective_bits_equal_a_worked_example() -> None:
    # 4 bits, and for each 64 weights a scale of 16 bits and a zero point of 4: 4 + 20/64
    assert quantized_bytes(64, 32, LayerScheme(4, 64)) * 8 / (64 * 32) == 4.3125
    # a row of 1024 weights and one group: 2 + 18/1024
    assert quantized_bytes(1024, 32, LayerScheme(2, -1)) * 8 / (1024 * 32) == 2 + 18 / 1024


def test_effective_bits_count_quantized_layers_only(tree: ModelTree) -> None:
    plans = resolve_schemes(tree, BitsMap(LayerScheme(4, 32), (Rule("*.mlp.*", bits=16),)))
    assert effective_bits(plans) == 4 + 20 / 32
    assert output_size(tree, plans, "auto_gptq").effective_bits == 4 + 20 / 32


def test_without_quantized_layers_the_size_is_that_of_the_source(tree: ModelTree) -> None:
    plans = resolve_schemes(tree, BitsMap(LayerScheme(16)))
    size = output_size(tree, plans, "auto_gptq")
    assert (size.total, size.effective_bits) == (size.source, 0.0)
    assert effective_bits(plans) == 0.0


@given(
    st.integers(1, 64).map(lambda n: 32 * n),
    st.integers(1, 64).map(lambda n: 32 * n),
    st.sampled_from(BITS),
    st.sampled_from([-1, 32, 64, 128]),
)
def test_more_bits_and_more_groups_never_cost_less(rows: int, columns: int, bits: int, group: int) -> None:
    scheme, _ = LayerScheme(bits, group).fit(rows, columns)
    size = quantized_bytes(rows, columns, scheme)
    assert size > rows * columns * bits // 8
    assert quantized_bytes(rows, columns, LayerScheme(8, 32)) >= size


def test_the_size_of_a_layer_depends_on_the_format() -> None:
    scheme = LayerScheme(4, 64)
    assert layer_bytes(64, 32, LayerScheme(16), "auto_gptq", kept=999) == 999
    assert layer_bytes(64, 32, scheme, "auto_gptq", 0) == layer_bytes(64, 32, scheme, "auto_round", 0) + 4 * 64


def test_the_tree_is_read_from_a_path_with_spaces(tmp_path: Path) -> None:
    assert read_tree(save_model(tmp_path / "ein Modell, größer")).blocks == 2


def test_an_output_larger_than_its_source_gives_a_warning_and_a_remedy(tree: ModelTree) -> None:
    total = output_size(tree, resolve_schemes(tree, MAPS["w4"]), "auto_round").total
    assert larger_than_source(total, tree, total, "auto_round") == ""
    words = larger_than_source(total - 1, tree, total, "auto_round")
    assert words.startswith("The output will be larger than its source")
    assert "--format gguf:q4_k_m also quantizes the embedding" in words
    assert "gguf:" not in larger_than_source(total - 1, tree, total, "gguf:q8_0")


def test_towers_count_in_safetensors_only() -> None:
    tree = seeing(2)
    plans = resolve_schemes(tree, BitsMap(LayerScheme(4, 64)))
    towers = sum(tower.nbytes for tower in tree.towers)
    text = sum(info.nbytes for info in tree.tensors.values()) - towers
    assert output_size(tree, plans, "auto_round").kept > towers
    assert output_size(tree, plans, "gguf").kept < text
