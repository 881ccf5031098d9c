"""Layers that packed formats cannot store: the message with the first layers, and the hint."""

from __future__ import annotations

import time

import pytest

from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.formats.grids import plan_layers
from core.formats.limits import check, limits
from core.formats.names import AUTO_ROUND, AWQ, GPTQ
from core.model.plans import LayerPlan
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import SHAPES, llama

TREE = llama(4, tied=False)
W4, A4 = LayerScheme(4, 64), LayerScheme(4, 64, False)
PACKED = (*AUTO_ROUND, *GPTQ, *AWQ)
MIXED = BitsMap(W4, (Rule("*.q_proj", bits=2, sym=False), Rule("*.down_proj", bits=8, group_size=-1)))


def refusal(name: str, chosen: BitsMap, tree: ModelTree = TREE) -> BadInput:
    with pytest.raises(BadInput) as caught:
        check(name, tree, resolve_schemes(tree, chosen))
    return caught.value


@pytest.mark.parametrize("scheme", [W4, A4])
@pytest.mark.parametrize("name", PACKED)
def test_all_formats_store_four_bits(name: str, scheme: LayerScheme) -> None:
    assert limits(name, TREE, resolve_schemes(TREE, BitsMap(scheme))) == []


@pytest.mark.parametrize("name", [name for name in PACKED if "awq" not in name])
def test_all_formats_but_those_with_awqs_layout_store_any_mixture(name: str) -> None:
    assert limits(name, TREE, resolve_schemes(TREE, MIXED)) == []


@pytest.mark.parametrize("name", ["auto_round:auto_awq", "auto_awq"])
def test_awqs_layout_stores_four_bits_only(name: str) -> None:
    error = refusal(name, BitsMap(W4, (Rule("*.down_proj", bits=3),)))
    assert error.message == (
        f"{name} stores 4 bits only, but there are layers with 3: model.layers.0.mlp.down_proj, "
        "model.layers.1.mlp.down_proj, model.layers.2.mlp.down_proj and 1 more."
    )
    assert error.hint.startswith("Choose auto_round or auto_gptq")


@pytest.mark.parametrize("change", [{"group_size": 32}, {"sym": False}])
def test_awq_needs_the_same_scheme_for_all_layers(change: dict) -> None:
    error = refusal("auto_awq", BitsMap(W4, layers=(Rule("model.layers.2.mlp.up_proj", **change),)))
    assert "the same scheme for all layers, here W4 g64 sym" in error.message
    assert "model.layers.2.mlp.up_proj (W4 " in error.message


def test_auto_round_supports_different_group_sizes_in_awqs_layout() -> None:
    chosen = BitsMap(W4, (Rule("*.down_proj", group_size=32),))
    assert limits("auto_round:auto_awq", TREE, resolve_schemes(TREE, chosen)) == []


def test_awq_does_not_support_a_quantized_head() -> None:
    error = refusal("auto_awq", BitsMap(W4, layers=(Rule("lm_head", bits=4),)))
    assert error.message.endswith("lm_head.")
    assert "16 bits" in error.hint


def test_all_formats_store_layers_in_16_bits() -> None:
    chosen = BitsMap(W4, (Rule("*.down_proj", bits=16),))
    assert [name for name in PACKED if limits(name, TREE, resolve_schemes(TREE, chosen))] == []


@pytest.mark.parametrize("name", PACKED)
def test_packed_formats_cannot_store_gguf_block_types(name: str) -> None:
    found = limits(name, TREE, plan_layers(TREE, BitsMap(W4), ("gguf:q5_0",)))
    assert found[0].why == f"{name} cannot store layers in the block type Q5_0"
    assert len(found[0].layers) >= 4 * len(SHAPES)


@pytest.mark.parametrize(
    ("shape", "scheme", "message"),
    [((40, 576), LayerScheme(4, 32), "40x576 cannot be packed"), ((64, 96), LayerScheme(4, 64), "64 does not divide")],
)
def test_shapes_that_do_not_fit_the_scheme_are_rejected(
    shape: tuple[int, int], scheme: LayerScheme, message: str
) -> None:
    tree = llama(1, shapes={"mlp.down_proj": shape})
    plans = [LayerPlan(linear, scheme, "default", "") for linear in tree.linears]
    assert message in limits("auto_round", tree, plans)[0].sentence()


def test_a_large_model_is_checked_quickly() -> None:
    tree = llama(3000, tied=False)
    plans = resolve_schemes(tree, BitsMap(W4, (Rule("*.1*.mlp.*", bits=8),), (Rule("lm_head", bits=8),)))
    begun = time.perf_counter()
    for name in PACKED:
        limits(name, tree, plans)
    assert time.perf_counter() - begun < 1.0
