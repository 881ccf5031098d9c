"""Plans of layers for a bits map and the output formats."""

from __future__ import annotations

from collections import Counter

import pytest

from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.formats.grids import named_mix, plan_layers
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

TREE = llama(16)


def labels(bits_map: BitsMap, *formats: str) -> dict[str, str]:
    return {plan.linear.name: plan.scheme.label() for plan in plan_layers(TREE, bits_map, formats)}


def test_without_a_gguf_type_the_schemes_of_the_map_apply() -> None:
    chosen = BitsMap(LayerScheme(3, 64), (Rule("*.down_proj", bits=8),))
    plans = plan_layers(TREE, chosen, ("auto_round", "gguf"))
    assert list(plans) == list(resolve_schemes(TREE, chosen))


def test_a_gguf_type_replaces_the_default() -> None:
    assert set(labels(BitsMap(LayerScheme(4, 64)), "gguf:q5_1").values()) == {"Q5_1"}


def test_k_quants_fall_back_if_rows_are_not_a_multiple_of_256() -> None:
    plans = plan_layers(TREE, BitsMap(), ("gguf:q4_k_s",))
    wide = [plan for plan in plans if plan.linear.kind == "mlp.down_proj" and plan.linear.block > 4]
    narrow = [plan for plan in plans if plan.linear.kind == "mlp.up_proj"]
    assert {plan.scheme.label() for plan in wide} == {"Q4_K"}
    assert {plan.fallback for plan in narrow} == {"256 does not divide 576: Q5_0 in place of Q4_K"}


def test_a_rule_of_the_map_takes_precedence_over_the_mix() -> None:
    found = labels(BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=2), Rule("*.o_proj", bits=16))), "gguf:q4_k_m")
    assert Counter(label for name, label in found.items() if name.endswith("down_proj")) == {"Q2_K": 16}
    assert {label for name, label in found.items() if name.endswith("o_proj")} == {"16 bit"}


def test_q4_0_and_q8_0_use_integer_schemes_that_other_formats_support() -> None:
    assert set(labels(BitsMap(), "gguf:q4_0", "auto_round").values()) == {"W4 g32 sym"}


def test_an_untied_head_gets_the_type_of_the_mix() -> None:
    plans = plan_layers(llama(2, tied=False), BitsMap(), ("gguf:q4_k_m",))
    assert plans[-1].linear.name == "lm_head"
    assert plans[-1].scheme.label() == "W8 g32 sym"  # 576 columns: q8_0 in place of q6_k


def test_a_head_that_the_map_sets_to_16_bits_is_not_quantized() -> None:
    plans = plan_layers(llama(2, tied=False), BitsMap(layers=(Rule("lm_head", bits=16),)), ("gguf:q4_k_m",))
    assert not plans[-1].scheme.quantized


def test_bits_for_a_head_are_rejected_with_a_mix() -> None:
    with pytest.raises(BadInput, match="determines the type of lm_head itself"):
        plan_layers(llama(2, tied=False), BitsMap(layers=(Rule("lm_head", bits=4),)), ("gguf:q4_k_m",))


def test_two_gguf_types_need_separate_runs() -> None:
    with pytest.raises(BadInput, match="need separate runs"):
        named_mix(("gguf:q4_k_m", "gguf:q6_k"))
    assert named_mix(("auto_round", "gguf:q4_0")) == "q4_0"
    assert named_mix(("auto_round", "gguf")) == ""
