"""Allocations: budgets are never exceeded, and pins, minimums, fused groups and engines are respected."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.allocation.problem import Allocation, AllocationRequest, Budget, allocate
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.estimation.goals import ENGINE, conversation_bytes
from core.estimation.sizes import output_size, quantized_bytes
from core.formats import engines
from core.model.fused import FusedModules, groups
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.allocation.problems import table_for
from tests.core.paper_model import SHAPES, llama, mixture

TREE = llama(4)
TABLE = table_for(TREE)
LOOSE = FusedModules(False, False, False)
FUSIONS = (FusedModules(), FusedModules(fuse_qkv=False), FusedModules(fuse_gate_up=False), LOOSE)
BUDGETS = st.one_of(
    st.floats(2.3, 9).map(lambda value: Budget("bpw", value)),
    st.floats(0.73, 0.95).map(lambda share: Budget("bytes", int(share * TREE.nbytes))),
    st.floats(0.73, 0.95).map(lambda share: Budget("ram", int(share * TREE.nbytes) + 840_000_000)),
)


def schemes(tree: ModelTree, found: Allocation) -> dict[str, LayerScheme]:
    return {plan.linear.name: plan.scheme for plan in resolve_schemes(tree, found.bits_map)}


def average(tree: ModelTree, found: Allocation) -> float:
    """Return the average bits per weight of the blocks; unquantized layers count 16."""
    spent, weights = 0.0, 0
    for plan in resolve_schemes(tree, found.bits_map):
        shape = plan.linear.in_features, plan.linear.out_features
        weights += shape[0] * shape[1]
        spent += 8 * quantized_bytes(*shape, plan.scheme) if plan.scheme.quantized else 16 * shape[0] * shape[1]
    return spent / weights


@settings(max_examples=60, deadline=None)
@given(BUDGETS, st.sampled_from(["auto_round", "auto_gptq"]), st.sampled_from([(2, 4, 8), (2, 3, 4, 8, 16), (2, 16)]))
def test_the_budget_is_never_exceeded(budget: Budget, name: str, choices: tuple[int, ...]) -> None:
    found = allocate(TREE, TABLE, AllocationRequest(budget, choices, format_name=name))
    size = output_size(TREE, resolve_schemes(TREE, found.bits_map), name).total
    spent = {"bpw": average(TREE, found), "bytes": size, "ram": size + conversation_bytes(TREE) + ENGINE}[budget.kind]
    assert spent <= budget.value * (1 + 1e-12)


@settings(max_examples=40, deadline=None)
@given(BUDGETS, st.sampled_from(["auto_round", "auto_gptq"]), st.sampled_from([-1, 32, 128, 96]), st.booleans())
def test_cost_and_bits_of_an_allocation_are_those_of_its_map(budget: Budget, name: str, group: int, sym: bool) -> None:
    larger = replace(budget, value=budget.value * 1.2)
    request = AllocationRequest(larger, (2, 4, 16), format_name=name, group_size=group, sym=sym)
    found = allocate(TREE, TABLE, request)
    assert found.cost == output_size(TREE, resolve_schemes(TREE, found.bits_map), name).total == found.size.total
    assert found.bits == pytest.approx(average(TREE, found), rel=1e-12)
    assert found.loss_increase == pytest.approx(TABLE.total(resolve_schemes(TREE, found.bits_map)), rel=1e-9)


@pytest.mark.parametrize("bpw", [2.4, 3.1, 3.7, 5.0, 8.0])
def test_no_other_assignment_within_the_budget_has_a_smaller_loss_increase(bpw: float) -> None:
    tree = llama(1)
    table = table_for(tree, 7)
    request = AllocationRequest(Budget("bpw", bpw), (2, 4, 8), fused=LOOSE)
    found = allocate(tree, table, request)
    weights = sum(inputs * outputs for inputs, outputs, _ in tree.weights)
    options = [
        [
            (quantized_bytes(inputs, outputs, scheme.fit(inputs, outputs)[0]), row[column])
            for scheme, column in ((LayerScheme(2), 0), (LayerScheme(4), 2), (LayerScheme(8), 3))
        ]
        for (inputs, outputs, _), row in zip(tree.weights, table.loss_increase, strict=True)
    ]
    best = min(
        sum(loss_increase for _, loss_increase in picks)
        for picks in itertools.product(*options)
        if 8 * sum(cost for cost, _ in picks) / weights <= bpw
    )
    assert found.exact
    assert found.loss_increase == pytest.approx(best, rel=1e-9)


def test_more_budget_never_raises_the_loss_increase() -> None:
    loss_increases = [
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 2.3 + step / 10))).loss_increase for step in range(60)
    ]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(loss_increases))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(2.4, 8),
    st.sampled_from(FUSIONS),
)
def test_fused_layers_get_the_same_scheme(bpw: float, fused: FusedModules) -> None:
    got = schemes(TREE, allocate(TREE, TABLE, AllocationRequest(Budget("bpw", bpw), fused=fused)))
    for group in groups(TREE, fused):
        assert len({got[name] for name in group.layers}) == 1


def test_pins_are_respected_and_the_last_match_wins() -> None:
    pins = (Rule("*.down_proj", bits=8), Rule("model.layers.1.*", bits=2, group_size=32), Rule("*.0.*.o_proj", bits=16))
    got = schemes(TREE, allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 6), pins=pins)))
    assert got["model.layers.0.mlp.down_proj"] == LayerScheme(8, 128)
    assert {got[name] for name in got if ".1." in name} == {LayerScheme(2, 32)}
    assert not got["model.layers.0.self_attn.o_proj"].quantized


def test_a_pin_applies_to_the_layers_fused_with_its_layer() -> None:
    pins = (Rule("model.layers.2.self_attn.v_proj", bits=8),)
    got = schemes(TREE, allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 3), pins=pins)))
    assert {got[f"model.layers.2.self_attn.{part}_proj"].bits for part in "qkv"} == {8}


def test_a_pin_can_fix_the_group_size_only() -> None:
    found = allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), pins=(Rule("*.down_proj", group_size=32),)))
    got = schemes(TREE, found)
    assert {got[name].group_size for name in got if name.endswith("down_proj")} == {32}
    assert {got[name].group_size for name in got if name.endswith("gate_proj")} == {64}


def test_different_pins_of_fused_layers_are_refused() -> None:
    pins = (Rule("*.0.self_attn.q_proj", bits=8), Rule("*.0.self_attn.k_proj", bits=4))
    with pytest.raises(BadInput, match="are fused and pinned to different schemes"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), pins=pins))


@settings(max_examples=25, deadline=None)
@given(st.floats(3.6, 8), st.sampled_from([3, 4, 8]))
def test_minimum_bits_are_respected(bpw: float, bits: int) -> None:
    request = AllocationRequest(Budget("bpw", bpw), min_bits=(Rule("*.o_proj", bits=bits), Rule("*.k_proj", bits=4)))
    got = schemes(TREE, allocate(TREE, TABLE, request))
    assert min(got[name].bits for name in got if name.endswith("o_proj")) >= bits
    assert min(got[name].bits for name in got if name.endswith(("q_proj", "k_proj"))) >= 4


def test_a_minimum_above_all_choices_is_refused() -> None:
    with pytest.raises(BadInput, match=r"No choice is left for .*o_proj: its minimum is 8 bits"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), (2, 4), min_bits=(Rule("*.o_proj", bits=8),)))


@pytest.mark.parametrize("part", ["pins", "min_bits"])
def test_a_pattern_that_matches_no_layer_is_refused(part: str) -> None:
    with pytest.raises(BadInput, match="matches no layer"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), **{part: (Rule("*.nothing", bits=8),)}))  # type: ignore[arg-type]


def test_bits_that_were_not_measured_are_refused() -> None:
    with pytest.raises(BadInput, match="sensitivity to 3 bits was not measured"):
        allocate(TREE, table_for(TREE, bits=(2, 4)), AllocationRequest(Budget("bpw", 4), (2, 3, 4)))


def test_the_output_layer_is_not_quantized_unless_a_pin_names_it() -> None:
    tree = llama(2, tied=False)
    table = table_for(tree, without=("lm_head",))
    free = allocate(tree, table, AllocationRequest(Budget("bpw", 4)))
    pinned = allocate(tree, table, AllocationRequest(Budget("bpw", 4.4), pins=(Rule("lm_head", bits=4),)))
    assert not schemes(tree, free)["lm_head"].quantized
    assert schemes(tree, pinned)["lm_head"] == LayerScheme(4, 64)
    assert pinned.cost == pinned.size.total
    note = "Layers that are pinned but were not measured, so their loss increase is not included: 1."
    assert note in pinned.notes


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_a_pinned_tied_output_layer_counts_for_the_output_size(name: str) -> None:
    budget = Budget("bytes", 0.9 * TREE.nbytes)
    plain = allocate(TREE, TABLE, AllocationRequest(budget, format_name=name))
    pinned = allocate(TREE, TABLE, AllocationRequest(budget, pins=(Rule("lm_head", bits=2),), format_name=name))
    plans = resolve_schemes(TREE, pinned.bits_map)
    assert (plans[-1].linear.name, plans[-1].scheme) == ("lm_head", LayerScheme(2, 64))
    assert pinned.cost == pinned.size.total <= budget.value
    assert pinned.loss_increase > plain.loss_increase


def test_a_pinned_embedding_is_refused() -> None:
    with pytest.raises(BadInput, match="is the token embedding"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), pins=(Rule("model.embed_tokens", bits=8),)))


def test_a_pattern_never_pins_the_output_layer() -> None:
    tree = llama(2, tied=False)
    found = allocate(
        tree, table_for(tree, without=("lm_head",)), AllocationRequest(Budget("bpw", 9), pins=(Rule("*", bits=8),))
    )
    assert not schemes(tree, found)["lm_head"].quantized


def test_a_layer_that_was_not_measured_is_not_quantized() -> None:
    name = "model.layers.1.mlp.down_proj"
    found = allocate(TREE, table_for(TREE, without=(name,)), AllocationRequest(Budget("bpw", 4)))
    assert not schemes(TREE, found)[name].quantized
    assert found.notes == ("Layers that were not measured and stay in 16 bits: 1.",)


def test_a_layer_with_an_unsupported_shape_and_its_fused_layers_are_not_quantized() -> None:
    tree = llama(2, shapes={**SHAPES, "self_attn.v_proj": (40, 576)})
    found = allocate(tree, table_for(tree), AllocationRequest(Budget("bpw", 4)))
    got = schemes(tree, found)
    assert not any(got[f"model.layers.0.self_attn.{part}_proj"].quantized for part in "qkv")
    assert got["model.layers.0.self_attn.o_proj"].quantized
    assert found.cost == found.size.total


def test_layers_that_cannot_be_quantized_do_not_count_for_the_average() -> None:
    tree = llama(2, shapes={**SHAPES, "odd": (40, 576)})
    found = allocate(tree, table_for(tree), AllocationRequest(Budget("bpw", 9), (8,)))
    assert found.bits == pytest.approx(8 * (1 + 1 / 64) + 16 / 64, rel=0.02)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (
            Budget("bpw", 2),
            r"At least 3\.949 bits per weight are needed \(pins add 1\.512 .*, minimum bits add .* 2 bits per weight",
        ),
        (
            Budget("bytes", 50e6),
            r"At least 6\d(\.\d)? MB are needed \(5\d.* are not quantized, pins add .*, minimum bits",
        ),
        (Budget("ram", 800e6), r"are for one conversation and the program, 5\d.* are not quantized, pins add"),
    ],
)
def test_the_error_for_a_small_budget_has_the_minimum_and_its_parts(budget: Budget, words: str) -> None:
    request = AllocationRequest(budget, pins=(Rule("*.down_proj", bits=8),), min_bits=(Rule("*.o_proj", bits=4),))
    with pytest.raises(BadInput, match=words):
        allocate(TREE, TABLE, request)


def test_the_smallest_possible_budget_is_sufficient() -> None:
    lowest = allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 2.3), (2,))).cost
    assert allocate(TREE, TABLE, AllocationRequest(Budget("bytes", lowest), (2, 4))).cost == lowest
    with pytest.raises(BadInput, match="At least"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bytes", lowest - 1), (2, 4)))


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
@pytest.mark.parametrize("engine", ["vllm-cuda", "vllm-cpu"])
@pytest.mark.parametrize("bpw", [4.4, 6.0, 11.0])
def test_a_map_for_an_engine_can_be_run_by_it(engine: str, name: str, bpw: float) -> None:
    request = AllocationRequest(Budget("bpw", bpw), (2, 4, 8, 16), fused=LOOSE, engine=engine, format_name=name)
    found = allocate(TREE, TABLE, request)
    assert [
        mark for mark in engines.check(engine, TREE, resolve_schemes(TREE, found.bits_map), name) if mark.cannot
    ] == []
    assert found.bits <= bpw


def test_an_engine_that_supports_no_choice_is_refused() -> None:
    with pytest.raises(BadInput, match="vLLM on a graphics card does not run W2 g128 sym"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), (2, 3), engine="vllm-cuda"))


def test_an_engine_that_cannot_read_the_format_is_refused() -> None:
    with pytest.raises(BadInput, match="supports GGUF only"):
        allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 4), engine="llama-cpp"))


def test_a_single_choice_gives_a_default_without_rules() -> None:
    found = allocate(TREE, TABLE, AllocationRequest(Budget("bpw", 5), (4,)))
    assert found.bits_map == BitsMap(LayerScheme(4, 128))


MIXTURE = mixture(3, 32, hidden=128, intermediate=64)
ROUTER = "model.layers.1.mlp.gate"


@pytest.mark.parametrize("fused", FUSIONS)
@pytest.mark.parametrize("value", [2.8, 4.1, 7.0])
def test_the_budget_of_a_mixture_is_not_exceeded_and_routers_stay(fused: FusedModules, value: float) -> None:
    tree = mixture(3, 32, hidden=128, intermediate=64, fused=fused.experts)
    without = tuple(linear.name for linear in tree.linears if linear.kept)
    request = AllocationRequest(Budget("bpw", value), (2, 4, 8), fused=fused, group_size=32)
    found = allocate(tree, table_for(tree, without=without), request)
    chosen = schemes(tree, found)
    assert found.bits <= value
    assert found.cost == output_size(tree, resolve_schemes(tree, found.bits_map), "auto_round").total
    assert not any(chosen[name].quantized for name in without)
    assert not any("not measured" in note or "not supported" in note for note in found.notes)
    for group in groups(tree, fused):
        assert len({chosen[name] for name in group.layers}) == 1


def test_a_router_is_quantized_if_a_pin_names_it() -> None:
    pins = (Rule(ROUTER, bits=8), Rule("*", bits=4))
    found = allocate(MIXTURE, table_for(MIXTURE), AllocationRequest(Budget("bpw", 6), (2, 4, 8), pins, group_size=32))
    chosen = schemes(MIXTURE, found)
    assert {name: scheme.bits for name, scheme in chosen.items() if name.endswith("mlp.gate")} == {
        "model.layers.0.mlp.gate": 16, ROUTER: 8, "model.layers.2.mlp.gate": 16,
    }  # fmt: skip


def test_a_pattern_that_matches_only_routers_is_an_error() -> None:
    pins = (Rule("*.mlp.gate", bits=8),)
    with pytest.raises(BadInput, match=r"\*\.mlp\.gate matches only layers that stay in 16 bits") as caught:
        allocate(MIXTURE, table_for(MIXTURE), AllocationRequest(Budget("bpw", 6), (2, 4, 8), pins, group_size=32))
    assert "model.layers.0.mlp.gate" in caught.value.hint


def test_the_example_in_the_error_of_a_pattern_is_a_layer_of_the_model() -> None:
    with pytest.raises(BadInput, match="matches no layer") as caught:
        allocate(MIXTURE, table_for(MIXTURE), AllocationRequest(Budget("bpw", 6), pins=(Rule("*.nothing", bits=8),)))
    assert MIXTURE.ruled_linears[0] in caught.value.hint
