"""Parsing of quantization configs: method, packing, and the scheme of each module."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, BitwrightError, CorruptFile, UnsupportedModel
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2
from core.formats.settings import LayerEntry, find_config, read_settings

UP = "model.layers.0.mlp.up_proj"
GPTQ_CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AWQ_CONFIG = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 128, "zero_point": True}
AUTO_ROUND_CONFIG = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}


@pytest.mark.parametrize(
    ("config", "method", "packing"),
    [
        (GPTQ_CONFIG, "gptq", GPTQ),
        ({**GPTQ_CONFIG, "checkpoint_format": "gptq_v2"}, "gptq", GPTQ_V2),
        ({**GPTQ_CONFIG, "format": "gptq_v2"}, "gptq", GPTQ_V2),
        ({"bits": 4, "group_size": 128, "desc_act": True}, "gptq", GPTQ),
        (AWQ_CONFIG, "awq", AUTO_ROUND_AWQ),
        ({**AWQ_CONFIG, "version": "GEMM"}, "awq", AUTO_ROUND_AWQ),
        ({**AWQ_CONFIG, "version": None, "format": "gemm"}, "awq", AUTO_ROUND_AWQ),
        ({"w_bit": 4, "q_group_size": 128, "zero_point": True, "version": "GEMM"}, "awq", AUTO_ROUND_AWQ),
        (AUTO_ROUND_CONFIG, "auto-round", AUTO_ROUND_GPTQ),
        ({**AUTO_ROUND_CONFIG, "quant_method": "intel/auto-round"}, "auto-round", AUTO_ROUND_GPTQ),
        ({**AUTO_ROUND_CONFIG, "packing_format": "auto_round"}, "auto-round", AUTO_ROUND),
        ({**AUTO_ROUND_CONFIG, "packing_format": "auto_round:auto_awq"}, "auto-round", AUTO_ROUND_AWQ),
        ({**AUTO_ROUND_CONFIG, "packing_format": "auto_round:gptqmodel"}, "auto-round", GPTQ_V2),
    ],
)
def test_method_and_packing(config: dict[str, Any], method: str, packing: object) -> None:
    settings = read_settings(config)
    assert (settings.method, settings.packing) == (method, packing)
    assert (settings.default.bits, settings.default.group_size) == (4, 128)


@pytest.mark.parametrize(
    ("changes", "sym"),
    [
        ({}, False),
        ({"zero_point": False}, True),
        ({"zero_point": None}, False),
        # Bitwright and AutoRound write both keys, and engines also use zero_point to choose a kernel.
        ({"zero_point": True, "sym": True}, True),
        ({"zero_point": False, "sym": False}, False),
    ],
)
def test_symmetry_of_awq_from_zero_point_and_sym(changes: dict[str, Any], sym: bool) -> None:
    config = {key: value for key, value in {**AWQ_CONFIG, **changes}.items() if value is not None}
    assert read_settings(config).default == LayerEntry(4, 128, sym)


@pytest.mark.parametrize("changes", [{}, {"sym": None}])
def test_a_config_without_sym_is_symmetric(changes: dict[str, Any]) -> None:
    assert read_settings({"quant_method": "gptq", "bits": 3, "group_size": -1, **changes}).default == LayerEntry(
        3, -1, True
    )


@pytest.mark.parametrize(
    ("entry", "module", "kept"),
    [
        ("lm_head", "lm_head", True),
        ("visual", "visual.blocks.0.attn.qkv", True),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.11.mlp.up_proj", False),
        ("mlp.gate", "model.layers.0.mlp.gate", True),
        ("mlp.gate", "model.layers.0.mlp.gate_proj", False),
        (r".*\.mlp", "model.layers.0.mlp.up_proj", True),
        ("gate", "model.layers.0.block_sparse_moe.gate", True),
        ("a.b", "x.a-b", False),
        ("(", "x(", True),
        ("", UP, False),
    ],
)
def test_modules_to_not_convert_of_awq(entry: str, module: str, kept: bool) -> None:
    settings = read_settings({**AWQ_CONFIG, "modules_to_not_convert": [entry]})
    assert (settings.entry(module).bits == 16) is kept


@pytest.mark.parametrize(
    ("dynamic", "bits"),
    [
        ({"-:.*": {}, f"+:{UP}": {"bits": 8}}, 16),
        ({f"+:{UP}": {"bits": 8}, "-:.*": {}}, 8),
        ({r"+:.*up_proj": {"bits": 2}, rf"+:^{UP}$": {"bits": 8}}, 2),
        ({r"+:^model\.layers\.0\.mlp\.up_proj$": {"bits": 8}, r".*up_proj": {"bits": 2}}, 8),
        ({r"-:^model\.layers\.1\.mlp\.up_proj$": {}, r".*0.*": {"bits": 3}}, 3),
        ({UP: {"bits": 8}}, 8),
        ({UP.removesuffix("_proj"): {"bits": 8}}, 8),
        ({"mlp": {"bits": 8}}, 4),
        ({"lm_head": {}}, 4),
    ],
)  # fmt: skip
def test_the_first_matching_dynamic_rule_applies(dynamic: dict[str, Any], bits: int) -> None:
    # The name of a module is a pattern like any other, without precedence.
    assert read_settings({**GPTQ_CONFIG, "dynamic": dynamic}).among({UP}).entry(UP).bits == bits


def test_tens_of_thousands_of_rules_are_fast() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(40) for expert in range(250)]
    escaped = [name.replace(".", r"\.") for name in names]
    gptq = read_settings({**GPTQ_CONFIG, "dynamic": {f"+:^{name}$": {"bits": 8} for name in escaped}})
    peer = read_settings({**AUTO_ROUND_CONFIG, "extra_config": {name: {"bits": 8} for name in names}}).among(set(names))
    started = time.monotonic()
    assert {gptq.entry(name).bits for name in names} == {peer.entry(name).bits for name in names} == {8}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("value", ["model.layers", "a,model.layers ,b", ["model.layers"], [["model.layers.0", "x"]]])
def test_a_missing_prefix_is_found_from_the_blocks_to_quantize(value: Any) -> None:
    settings = read_settings({**AUTO_ROUND_CONFIG, "block_name_to_quantize": value})
    module_name = settings.module_names(["layers.0.mlp.up_proj"])
    assert module_name("layers.0.mlp.up_proj") == UP
    assert module_name("lm_head") == "lm_head"


@pytest.mark.parametrize("value", ["a." * 100_000, [["x" * 10_000_000]], [".".join(map(str, range(50_000)))]])
def test_long_names_of_blocks_are_fast(value: Any) -> None:
    started = time.monotonic()
    settings = read_settings({**AUTO_ROUND_CONFIG, "block_name_to_quantize": value})
    settings.module_names(["a." * 100_000 + str(number) for number in range(20)])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({**AWQ_CONFIG, "version": "gemv"}, UnsupportedModel, "version 'gemv'"),
        ({**AWQ_CONFIG, "version": "gemv_fast"}, UnsupportedModel, "version 'gemv_fast'"),
        ({**AWQ_CONFIG, "version": "marlin"}, UnsupportedModel, "version 'marlin'"),
        ({**AWQ_CONFIG, "version": 7}, UnsupportedModel, "version 7"),
        ({**AWQ_CONFIG, "backend": "llm-awq"}, UnsupportedModel, "version 'llm-awq'"),
        ({**AWQ_CONFIG, "bits": 8}, UnsupportedModel, "AWQ with 8 bits"),
        ({**AWQ_CONFIG, "zero_point": "yes"}, CorruptFile, "zero_point is 'yes'"),
        ({**AWQ_CONFIG, "group_size": None}, CorruptFile, "lacks bits or group_size"),
        ({**AWQ_CONFIG, "modules_to_not_convert": "lm_head"}, CorruptFile, "not a list of names"),
        ({**AWQ_CONFIG, "modules_to_not_convert": [1]}, CorruptFile, "not a list of names"),
        ({**GPTQ_CONFIG, "is_marlin_format": True}, UnsupportedModel, "a special kernel"),
        ({**GPTQ_CONFIG, "checkpoint_format": ["x"]}, UnsupportedModel, "format a list"),
        ({**GPTQ_CONFIG, "bits": {}}, CorruptFile, "bits of the whole model is an object"),
        ({**AUTO_ROUND_CONFIG, "packing_format": "auto_round:auto_awq", "bits": 8}, UnsupportedModel, "with 8 bits"),
        ({**AUTO_ROUND_CONFIG, "packing_format": "auto_round:mlx"}, UnsupportedModel, "'auto_round:mlx'"),
        ({**AUTO_ROUND_CONFIG, "rotation_config": {"x": 1}}, UnsupportedModel, "rotates its activations"),
        ({**AUTO_ROUND_CONFIG, "extra_config": {"a\nb\ud800": 3}}, CorruptFile, r"entry for a\\nb\\ud800 is not"),
        ({"quant_method": "compressed-tensors"}, UnsupportedModel, "'compressed-tensors', which is not supported yet"),
    ],
)
def test_unsupported_and_invalid_configs_are_reported(
    config: dict[str, Any], error: type[BitwrightError], text: str
) -> None:
    with pytest.raises(error, match=text):
        read_settings(config)


@pytest.mark.parametrize("name", ["quantization_config.json", "quantize_config.json", "quant_config.json"])
def test_a_config_in_a_separate_file_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(AWQ_CONFIG))
    assert find_config(tmp_path, {}) == AWQ_CONFIG


def test_the_config_in_config_json_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "quantize_config.json").write_text(json.dumps(AWQ_CONFIG))
    assert find_config(tmp_path, {"quantization_config": GPTQ_CONFIG}) == GPTQ_CONFIG


def test_a_model_without_quantization_config_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not quantized"):
        find_config(tmp_path, {})
