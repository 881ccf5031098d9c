"""Tensors and config of the plan of an output, by format and bits map."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from core import spec
from core.bitsmap import Rule
from core.errors import BadInput, UnsupportedModel
from core.formats import registry
from core.formats.packed import PackedPlan
from core.formats.registry import plan
from core.model.tree import LayerPlan, ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.formats.tiny import (
    LLAMA_CONFIG,
    bits_map,
    llama_tensors,
    open_tree,
    plan_for,
    round_to_nearest,
    save_source,
)

W4 = LayerScheme(4, 32, True)
A4 = LayerScheme(4, 32, False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModelTree:
    return open_tree(save_source(tmp_path_factory.mktemp("source"), llama_tensors(), LLAMA_CONFIG))


def packing_of(tree: ModelTree, default: LayerScheme, layers: dict | None = None) -> str:
    target, _ = plan_for(tree, "auto_round", bits_map(default, layers))
    return target.config()["packing_format"]


def test_the_job_offers_the_formats_that_exist() -> None:
    assert registry.FORMATS == spec.FORMATS


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_layers_get_the_layout_of_gptq(tree: ModelTree, bits: int) -> None:
    assert packing_of(tree, LayerScheme(bits, 32, True)) == "auto_round:auto_gptq"


def test_symmetric_layers_of_mixed_bits_get_the_layout_of_gptq(tree: ModelTree) -> None:
    assert packing_of(tree, W4, {"model.layers.0.mlp.up_proj": {"bits": 3}}) == "auto_round:auto_gptq"


def test_uniform_asymmetric_four_bits_get_the_layout_of_awq(tree: ModelTree) -> None:
    assert packing_of(tree, A4, {"model.layers.0.mlp.up_proj": {"bits": 16}}) == "auto_round:auto_awq"


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_other_asymmetric_bits_get_the_plain_layout(tree: ModelTree, bits: int) -> None:
    assert packing_of(tree, LayerScheme(bits, 32, False)) == "auto_round"


@pytest.mark.parametrize("change", [{"bits": 8}, {"group_size": -1}, {"sym": True}])
def test_one_other_layer_among_asymmetric_four_bits_means_the_plain_layout(tree: ModelTree, change: dict) -> None:
    assert packing_of(tree, A4, {"model.layers.1.mlp.up_proj": change}) == "auto_round"


def test_group_sizes_that_fall_back_rule_out_the_layout_of_awq(tree: ModelTree) -> None:
    # 64 divides every width but the 96 inputs of down_proj.
    assert packing_of(tree, LayerScheme(4, 64, False)) == "auto_round"


def test_a_uniform_map_needs_no_extra_config(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4))
    assert target.config() == {
        "quant_method": "auto-round",
        "provider": "bitwright",
        "packing_format": "auto_round:auto_gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "data_type": "int",
        "block_name_to_quantize": "model.layers",
    }


def test_extra_config_holds_exact_names_the_bits_and_what_differs(tree: ModelTree) -> None:
    chosen = bits_map(
        W4,
        {
            "model.layers.0.mlp.down_proj": {"bits": 16},
            "model.layers.1.mlp.up_proj": {"bits": 2, "group_size": 64},
            "model.layers.1.mlp.gate_proj": {"sym": False},
        },
        Rule("*.k_proj", bits=8),
    )
    target, _ = plan_for(tree, "auto_round", chosen)
    assert target.config()["extra_config"] == {
        "model.layers.0.self_attn.k_proj": {"bits": 8},
        "model.layers.0.mlp.down_proj": {"bits": 16},
        "model.layers.1.self_attn.k_proj": {"bits": 8},
        "model.layers.1.mlp.gate_proj": {"bits": 4, "sym": False},
        "model.layers.1.mlp.up_proj": {"bits": 2, "group_size": 64},
    }


def test_the_global_scheme_is_that_of_most_layers(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4, None, Rule("*", bits=2), Rule("*.mlp.*", bits=4)))
    assert target.config()["bits"] == 2


def test_a_quantized_head_carries_every_key(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4, {"lm_head": {"bits": 4}}))
    assert target.config()["extra_config"] == {
        "lm_head": {"bits": 4, "group_size": 32, "sym": True, "data_type": "int"}
    }


def test_uniform_gptq_needs_no_dynamic(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_gptq", bits_map(W4))
    assert target.config() == {
        "quant_method": "gptq",
        "provider": "bitwright",
        "checkpoint_format": "gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "data_type": "int",
        "desc_act": False,
        "static_groups": False,
        "true_sequential": False,
        "damp_percent": 0.01,
        "lm_head": False,
        "block_name_to_quantize": "model.layers",
    }


@pytest.fixture
def mixed_gptq(tree: ModelTree) -> dict:
    chosen = bits_map(
        W4,
        {"model.layers.1.mlp.up_proj": {"bits": 16}, "lm_head": {"bits": 8}},
        Rule("*.k_proj", bits=16),
        Rule("*.0.mlp.down_proj", bits=2),
    )
    return plan_for(tree, "auto_gptq", chosen)[0].config()


def test_dynamic_skips_first_and_then_overrides(mixed_gptq: dict) -> None:
    assert list(mixed_gptq["dynamic"].items()) == [
        (r"-:^model\.layers\.0\.self_attn\.k_proj$", {}),
        (r"-:^model\.layers\.1\.mlp\.up_proj$", {}),
        (r"-:^model\.layers\.1\.self_attn\.k_proj$", {}),
        (r"+:^model\.layers\.0\.mlp\.down_proj$", {"bits": 2, "group_size": 32, "sym": True}),
        (r"+:^lm_head$", {"bits": 8, "group_size": 32, "sym": True}),
    ]


def test_modules_to_quantize_are_those_quantized_in_some_block(mixed_gptq: dict) -> None:
    assert mixed_gptq["modules_in_block_to_quantize"] == [
        ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"],
        ["lm_head"],
    ]


def test_a_quantized_head_is_included_in_the_config_of_gptq(mixed_gptq: dict) -> None:
    assert mixed_gptq["lm_head"] is True


def test_equal_fused_layers_have_a_rule_by_the_name_of_the_fused_module_in_vllm(tree: ModelTree) -> None:
    chosen = bits_map(W4, None, Rule("*.0.self_attn.[qkv]_proj", bits=8), Rule("*.1.mlp.[gu]*_proj", bits=16))
    dynamic = plan_for(tree, "auto_gptq", chosen)[0].config()["dynamic"]
    fused = {key: value for key, value in dynamic.items() if "qkv" in key or "gate_up" in key}
    assert fused == {
        r"-:^model\.layers\.1\.mlp\.gate_up_proj$": {},
        r"+:^model\.layers\.0\.self_attn\.qkv_proj$": {"bits": 8, "group_size": 32, "sym": True},
    }


def test_different_fused_layers_have_no_rule_for_the_fused_module(tree: ModelTree) -> None:
    chosen = bits_map(W4, {"model.layers.0.self_attn.q_proj": {"bits": 8}, "model.layers.1.mlp.up_proj": {"bits": 16}})
    dynamic = plan_for(tree, "auto_gptq", chosen)[0].config()["dynamic"]
    assert not [key for key in dynamic if "qkv" in key or "gate_up" in key]


@pytest.mark.parametrize(("name", "version", "least"), [("auto_gptq", "gptq", 1), ("gptqmodel", "gptq_v2", 0)])
def test_gptq_formats_differ_in_version_and_smallest_zero_point(
    tree: ModelTree, name: str, version: str, least: int
) -> None:
    target, _ = plan_for(tree, name, bits_map(A4))
    assert (target.config()["checkpoint_format"], target.min_zero) == (version, least)


@pytest.mark.parametrize("name", ["auto_gptq", "gptqmodel"])
def test_act_order_is_declared_in_the_config_of_gptq(tree: ModelTree, name: str) -> None:
    target = plan(name, tree, resolve_schemes(tree, bits_map(W4)), {}, act_order=True)
    assert isinstance(target, PackedPlan)
    assert target.config()["desc_act"] is True


def test_only_gptq_stores_act_order_groups(tree: ModelTree) -> None:
    with pytest.raises(BadInput, match="desc_act"):
        plan("auto_round", tree, resolve_schemes(tree, bits_map(W4)), {}, act_order=True)


@pytest.mark.parametrize(
    ("name", "packing", "least"),
    [
        ("auto_round:auto_gptq", "auto_round:auto_gptq", 1),
        ("auto_round:auto_awq", "auto_round:auto_awq", 0),
        ("auto_round:gptqmodel", "auto_round:gptqmodel", 0),
        ("auto_round:plain", "auto_round", 0),
    ],
)
def test_a_format_name_can_specify_the_packing(tree: ModelTree, name: str, packing: str, least: int) -> None:
    target, _ = plan_for(tree, name, bits_map(A4))
    assert (target.config()["packing_format"], target.min_zero) == (packing, least)


def test_a_note_explains_the_smallest_zero_point(tree: ModelTree) -> None:
    assert "zero point of 0" in plan_for(tree, "auto_gptq", bits_map(A4))[0].notes[0]
    assert plan_for(tree, "gptqmodel", bits_map(A4))[0].notes == ()


def test_a_pattern_matches_only_its_layer(tmp_path: Path) -> None:
    tree = open_tree(save_source(tmp_path, llama_tensors(12), {**LLAMA_CONFIG, "num_hidden_layers": 12}))
    target, plans = plan_for(tree, "auto_gptq", bits_map(W4, {"model.layers.1.mlp.up_proj": {"bits": 8}}))
    (pattern,) = (key.removeprefix("+:") for key in target.config()["dynamic"])
    names = [item.linear.name for item in plans]
    assert [name for name in names if re.search(pattern, name)] == ["model.layers.1.mlp.up_proj"]


def test_configs_use_the_names_of_modules(tmp_path: Path) -> None:
    tensors = {name.removeprefix("model."): tensor for name, tensor in llama_tensors().items()}
    tree = open_tree(save_source(tmp_path, tensors, LLAMA_CONFIG))
    chosen = bits_map(W4, {"layers.0.mlp.up_proj": {"bits": 16}})
    config = plan_for(tree, "auto_round", chosen, lambda name: f"model.{name}")[0].config()
    assert config["block_name_to_quantize"] == "model.layers"
    assert config["extra_config"] == {"model.layers.0.mlp.up_proj": {"bits": 16}}


def test_tensors_keep_the_names_of_the_checkpoint(tmp_path: Path) -> None:
    tensors = {name.removeprefix("model."): tensor for name, tensor in llama_tensors().items()}
    tree = open_tree(save_source(tmp_path, tensors, LLAMA_CONFIG))
    target, _ = plan_for(tree, "auto_round", bits_map(W4), lambda name: f"model.{name}")
    assert "layers.0.mlp.up_proj.qweight" in {item.name for item in target.tensors}


def test_modules_with_another_block_structure_are_unsupported(tree: ModelTree) -> None:
    with pytest.raises(UnsupportedModel, match="in the loaded model"):
        plan_for(tree, "auto_round", bits_map(W4), lambda name: name.replace("layers.0", "layers.9"))


def test_packed_tensors_replace_the_weight(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_gptq", bits_map(W4))
    source = list(tree.tensors)
    place = source.index("model.layers.0.self_attn.q_proj.weight")
    expected = ["qweight", "qzeros", "scales", "g_idx"]
    before = [name for name in source[:place] if name in target.copied]
    names = [item.name for item in target.tensors]
    start = names.index("model.layers.0.self_attn.q_proj.qweight")
    assert [name.rpartition(".")[2] for name in names[start : start + 4]] == expected
    assert [name for name in names[:start] if name in target.copied] == before


def test_all_other_tensors_are_copied_unchanged(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4, {"model.layers.0.mlp.up_proj": {"bits": 16}}))
    kept = [
        name
        for name in tree.tensors
        if not re.search(r"_proj\.weight$", name) or name == "model.layers.0.mlp.up_proj.weight"
    ]
    assert target.copied == kept
    planned = {item.name: (item.dtype, item.shape) for item in target.tensors}
    assert all(planned[name] == (tree.tensors[name].dtype, tree.tensors[name].shape) for name in kept)


@pytest.mark.parametrize(
    ("name", "scheme", "expected"),
    [("auto_gptq", A4, 1), ("auto_gptq", W4, 0), ("auto_round", A4, 0), ("auto_round", LayerScheme(2, 32, False), 0)],
)
def test_smallest_zero_point(tree: ModelTree, name: str, scheme: LayerScheme, expected: int) -> None:
    assert plan_for(tree, name, bits_map(scheme))[0].min_zero == expected


def test_the_config_can_be_changed_without_changing_the_plan(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4, {"lm_head": {"bits": 8}}))
    target.config()["extra_config"]["lm_head"]["bits"] = 3
    assert target.config()["extra_config"]["lm_head"]["bits"] == 8


def test_the_config_can_be_encoded_as_json(mixed_gptq: dict) -> None:
    assert json.loads(json.dumps(mixed_gptq)) == mixed_gptq


def test_a_layer_of_another_scheme_is_not_encoded(tree: ModelTree) -> None:
    target, _ = plan_for(tree, "auto_round", bits_map(W4))
    layer = round_to_nearest("model.layers.0.mlp.up_proj", torch.ones(96, 64), LayerScheme(8, 32, True))
    with pytest.raises(ValueError, match="was planned as"):
        target.encode(layer)


@pytest.mark.parametrize("name", ["exl3", "bf16"])
def test_an_unknown_format_is_rejected(tree: ModelTree, name: str) -> None:
    with pytest.raises(BadInput, match=f"Unknown output format '{name}'"):
        plan(name, tree, resolve_schemes(tree, bits_map(W4)), {})


def test_a_map_without_quantized_layers_is_rejected(tree: ModelTree) -> None:
    with pytest.raises(BadInput, match="No layer"):
        plan_for(tree, "auto_round", bits_map(LayerScheme(16, 32, True)))


def test_a_quantized_source_is_unsupported(tree: ModelTree) -> None:
    with pytest.raises(UnsupportedModel, match="already"):
        plan("auto_round", tree, resolve_schemes(tree, bits_map(W4)), {"quantization_config": {"bits": 4}})


def test_a_group_size_that_does_not_divide_is_rejected(tree: ModelTree) -> None:
    linear = next(item for item in tree.linears if item.kind == "mlp.down_proj")
    with pytest.raises(BadInput, match="does not divide the 96 inputs"):
        plan("auto_round", tree, [LayerPlan(linear, LayerScheme(4, 64, True), "default", "")], {})
