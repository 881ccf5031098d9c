"""Export and import of bits maps give every layer the same scheme."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bitsmap import BitsMap, Rule
from core.errors import BadInput, ModelNotFound
from core.formats.map_exchange import (
    from_checkpoint,
    from_quantization_config,
    to_command,
    to_layer_config,
)
from core.formats.names import AUTO_ROUND, GPTQ
from core.formats.registry import plan_packed
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, bits_map, llama_tensors, open_tree, save_source, write_output
from tests.core.paper_model import llama, mixture

FORMATS = [name for name in (*AUTO_ROUND, *GPTQ) if name != "auto_round:auto_awq"]
"""Formats that store any map."""
TREE = llama(4, tied=False)
NAMES = [linear.name for linear in TREE.linears]
BASE = LayerScheme(4, 64)
BLOCK = "model.layers.1"

bits = st.sampled_from([2, 3, 4, 8, 16])
schemes = st.builds(LayerScheme, st.sampled_from([2, 3, 4, 8]), st.sampled_from([-1, 32, 64, 128]), st.booleans())
patterns = st.sampled_from(["*", "*.mlp.*", "*.down_proj", "*.layers.2.*", "/layers\\.[0-2]\\./", "*.v_proj"])
rules = st.builds(Rule, patterns, bits, st.sampled_from([None, 32, 128]), st.sampled_from([None, True, False]))
by_hand = st.dictionaries(st.sampled_from(NAMES), bits, max_size=6).map(
    lambda found: tuple(Rule(name, bits=value) for name, value in found.items())
)
maps = st.builds(BitsMap, schemes, st.lists(rules, max_size=4).map(tuple), by_hand)


def given_to(tree: ModelTree, chosen: BitsMap) -> dict[str, str]:
    """Return the scheme of each layer."""
    return {item.linear.name: item.scheme.label() for item in resolve_schemes(tree, chosen)}


def quantizes(tree: ModelTree, chosen: BitsMap) -> bool:
    return any(item.scheme.quantized for item in resolve_schemes(tree, chosen))


@pytest.mark.parametrize("name", FORMATS)
@given(maps)
def test_a_config_of_bitwright_gives_the_same_schemes(name: str, chosen: BitsMap) -> None:
    if not quantizes(TREE, chosen):
        return
    config = plan_packed(name, TREE, resolve_schemes(TREE, chosen), TREE.config).config()
    assert given_to(TREE, from_quantization_config(config, NAMES)) == given_to(TREE, chosen)


def test_a_layer_config_lists_the_differences_from_the_default() -> None:
    chosen = BitsMap(
        BASE, (Rule("*.1.mlp.*", bits=8),), (Rule(f"{BLOCK}.mlp.up_proj", bits=16), Rule("lm_head", bits=8))
    )
    assert to_layer_config(TREE, chosen) == {
        f"{BLOCK}.mlp.down_proj": {"bits": 8},
        f"{BLOCK}.mlp.gate_proj": {"bits": 8},
        f"{BLOCK}.mlp.up_proj": {"bits": 16},
        "lm_head": {"bits": 8, "group_size": 64, "sym": True},
    }


AUTO_ROUND_CONFIG: dict[str, Any] = {
    "quant_method": "auto-round",
    "bits": 4,
    "group_size": 64,
    "sym": True,
    "block_name_to_quantize": "model.layers",
}
GPTQ_CONFIG: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True, "desc_act": False}
AWQ_CONFIG: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {
                **AUTO_ROUND_CONFIG,
                "extra_config": {".*k_proj.*": {"bits": 8}, f"{BLOCK}.self_attn.k_proj": {"bits": 2}},
            },
            {f"{BLOCK}.self_attn.k_proj": "W2 g64 sym", "model.layers.0.self_attn.k_proj": "W8 g64 sym"},
        ),
        (
            {**AUTO_ROUND_CONFIG, "extra_config": {".*mlp.*": {"bits": 8}, ".*up_proj": {"bits": 2}}},
            {f"{BLOCK}.mlp.up_proj": "W8 g64 sym", "lm_head": "16 bit"},
        ),
        ({**AUTO_ROUND_CONFIG, "extra_config": {"lm_head": {"bits": 8}}}, {"lm_head": "W8 g64 sym"}),
        (
            {**GPTQ_CONFIG, "dynamic": {"-:.*up_proj.*": {}, "+:.*mlp.*": {"bits": 8}}},
            {f"{BLOCK}.mlp.up_proj": "16 bit", f"{BLOCK}.mlp.gate_proj": "W8 g64 sym"},
        ),
        (
            {**GPTQ_CONFIG, "dynamic": {"+:.*mlp.*": {"bits": 8}, "-:.*up_proj.*": {}}},
            {f"{BLOCK}.mlp.up_proj": "W8 g64 sym", f"{BLOCK}.self_attn.q_proj": "W4 g64 sym"},
        ),
        (
            {**GPTQ_CONFIG, "modules_in_block_to_quantize": [["mlp.up_proj"], ["self_attn.q_proj"]]},
            {f"{BLOCK}.mlp.up_proj": "W4 g64 sym", f"{BLOCK}.mlp.down_proj": "16 bit"},
        ),
        ({**GPTQ_CONFIG, "lm_head": True}, {"lm_head": "W4 g64 sym"}),
        (
            {**AWQ_CONFIG, "modules_to_not_convert": ["down_proj", "model.layers.2", "lm_head"]},
            {
                f"{BLOCK}.mlp.up_proj": "W4 g64 asym",
                f"{BLOCK}.mlp.down_proj": "16 bit",
                "model.layers.2.mlp.up_proj": "16 bit",
                "lm_head": "16 bit",
            },
        ),
        ({**AWQ_CONFIG, "modules_to_not_convert": None}, {f"{BLOCK}.mlp.up_proj": "W4 g64 asym", "lm_head": "16 bit"}),
    ],
    ids=[
        "names before patterns", "first pattern wins", "head", "skipped first", "skipped too late", "listed kinds",
        "head of gptq", "awq", "awq with all",
    ],
)  # fmt: skip
def test_configs_of_other_programs_give_their_schemes(config: dict[str, Any], expected: dict[str, str]) -> None:
    found = given_to(TREE, from_quantization_config(config, NAMES))
    assert {name: found[name] for name in expected} == expected


def test_patterns_for_several_layers_become_rules() -> None:
    config = {**AUTO_ROUND_CONFIG, "extra_config": {".*k_proj.*": {"bits": 8}, f"{BLOCK}.mlp.up_proj": {"bits": 2}}}
    found = from_quantization_config(config, NAMES)
    assert found.rules == (Rule("/.*k_proj.*/", bits=8),)
    assert found.layers == (Rule(f"{BLOCK}.mlp.up_proj", bits=2),)


def test_names_without_the_prefix_of_the_base_model_are_matched() -> None:
    dynamic = {rf"+:^{BLOCK}\.mlp\.up_proj$": {"bits": 8}}
    config = {**GPTQ_CONFIG, "block_name_to_quantize": "model.layers", "dynamic": dynamic}
    names = [name.removeprefix("model.") for name in NAMES]
    found = from_quantization_config(config, names)
    assert found.resolve("layers.1.mlp.up_proj").scheme.bits == 8
    assert found.resolve("layers.2.mlp.up_proj").scheme.bits == 4


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (BitsMap(BASE), ["--bits", "4", "--group-size", "64", "--sym"]),
        (BitsMap(BASE, (Rule("*.mlp.*", bits=8),)), ["--bits-map", "my map.json"]),
    ],
)
def test_the_command_line_of_a_map(chosen: BitsMap, words: Sequence[str]) -> None:
    command = shlex.split(to_command(chosen, "owner/name", "my map.json"))
    assert command == ["bitwright", "quantize", "owner/name", "--output", "DIR", *words]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_source(tmp_path / "source", llama_tensors(), LLAMA_CONFIG)


MIXED = {
    "model.layers.0.mlp.up_proj": {"bits": 16},
    "model.layers.1.mlp.down_proj": {"bits": 8},
    "lm_head": {"bits": 8},
}


@pytest.mark.parametrize("name", FORMATS)
def test_from_checkpoint_gives_the_schemes_of_the_output(source: Path, tmp_path: Path, name: str) -> None:
    chosen = bits_map(LayerScheme(4, 64), MIXED, Rule("*.k_proj", bits=3))
    write_output(source, tmp_path / "out", name, chosen)
    tree = open_tree(source)
    assert given_to(tree, from_checkpoint(tmp_path / "out")) == given_to(tree, chosen)


def test_a_report_that_matches_the_files_is_used(source: Path, tmp_path: Path) -> None:
    chosen = bits_map(LayerScheme(4, 64), MIXED, Rule("*.k_proj", bits=3))
    out = write_output(source, tmp_path / "out", "auto_round", chosen).folder
    (out / "bitwright.json").write_text(json.dumps({"bits_map": chosen.to_json()}))
    assert from_checkpoint(out) == chosen


@pytest.mark.parametrize("reported", [BitsMap(LayerScheme(4, 64)).to_json(), {"version": 9}, None])
def test_a_report_that_contradicts_the_files_is_ignored(source: Path, tmp_path: Path, reported: Any) -> None:
    chosen = bits_map(LayerScheme(4, 64), MIXED)
    out = write_output(source, tmp_path / "out", "auto_round", chosen).folder
    (out / "bitwright.json").write_text(json.dumps({"bits_map": reported}))
    tree = open_tree(source)
    assert given_to(tree, from_checkpoint(out)) == given_to(tree, chosen)


def test_an_unquantized_model_has_no_map(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not quantized"):
        from_checkpoint(source)
    with pytest.raises(ModelNotFound):
        from_checkpoint(tmp_path / "nowhere")


@pytest.mark.timeout(60)
def test_a_slow_pattern_is_replaced_by_listed_layers() -> None:
    names = [f"model.layers.{block}.mlp.{kind}_proj" for block in range(3) for kind in ("up", "down")]
    config = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "dynamic": {"+:(?:[a-z0-9._]+)+up_proj": {"bits": 8}},
    }
    found = from_quantization_config(config, names)
    assert found.rules == ()
    assert [name for name in names if found.resolve(name).scheme.bits == 8] == [name for name in names if "up" in name]


def test_an_imported_map_of_a_mixture_has_its_experts_under_the_names_of_maps_and_no_routers() -> None:
    start = "model.layers.0.block_sparse_moe"
    names = [f"{start}.experts.{expert}.{last}" for expert in range(2) for last in ("w1", "w2", "w3")]
    config = {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "extra_config": {f"{start}.experts.1.w2": {"bits": 8}, f"{start}.gate": {"bits": 16}},
    }
    found = from_quantization_config(config, [*names, f"{start}.gate"])
    assert found.to_json()["layers"] == {f"{start}.experts.1.down_proj": {"bits": 8}}
    assert found.rules == ()


def test_a_router_that_a_config_quantizes_is_listed_by_name() -> None:
    names = ["model.layers.0.mlp.experts.0.up_proj", "model.layers.0.mlp.gate"]
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {r"+:.*\.mlp\.gate$": {"bits": 8}}}
    found = from_quantization_config(config, names)
    assert found.resolve(names[1], exact_only=True).scheme.bits == 8


def test_autorounds_layer_config_does_not_contain_routers() -> None:
    tree = mixture(1, 2)
    assert to_layer_config(tree, BitsMap(LayerScheme(4, 32))) == {}
