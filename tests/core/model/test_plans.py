"""`Plans` behaves like a sequence of `LayerPlan` and groups equal layers into cases."""

from __future__ import annotations

import pytest

from core.bitsmap import BitsMap, Rule
from core.model.plans import LayerPlan, Plans, grouped
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

TREE = llama(3, tied=False)
MAP = BitsMap(LayerScheme(4, 128), (Rule("*.down_proj", bits=8),), (Rule("lm_head", bits=8),))


@pytest.fixture
def plans() -> Plans:
    return resolve_schemes(TREE, MAP)


def test_plans_are_a_sequence_in_the_order_of_the_tree(plans: Plans) -> None:
    assert [plan.linear for plan in plans] == list(TREE.linears)
    assert [plans[number] for number in range(len(plans))] == list(plans)
    assert plans[-1] == LayerPlan(TREE.linears[-1], LayerScheme(8, 64), "by hand", "group 128 does not divide 576: 64")
    assert list(plans[2:4]) == list(plans)[2:4]


def test_equal_layers_share_a_case(plans: Plans) -> None:
    assert {(case.why, case.in_features, case.out_features): count for case, count in plans.counts} == {
        ("rule 1  *.down_proj", 1536, 576): 3,
        ("default", 576, 1536): 6,
        ("default", 576, 576): 6,
        ("default", 576, 192): 6,
        ("by hand", 576, 49152): 1,
    }


def test_a_case_has_the_stored_bytes_of_its_weight(plans: Plans) -> None:
    stored = sum(case.stored * count for case, count in plans.counts)
    assert stored == sum(TREE.tensors[f"{linear.name}.weight"].nbytes for linear in TREE.linears)


def test_prepared_computes_the_cached_properties_of_the_tree() -> None:
    tree = llama(2)
    assert tree.prepared() is tree
    assert {"weights", "block_linears", "nbytes", "block_weights"} <= set(vars(tree))


def test_a_list_of_layer_plans_is_grouped(plans: Plans) -> None:
    made = grouped(TREE, list(plans))
    assert list(made) == list(plans)
    assert dict(made.counts) == dict(plans.counts)
    assert grouped(TREE, made) is made
