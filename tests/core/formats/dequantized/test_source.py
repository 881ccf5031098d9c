"""Sources that cannot be read are named with the reason; damaged ones are errors with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import BitwrightError, CorruptFile
from core.formats.dequantized.source import from_headers, is_quantized, read_source
from core.model.headers import read_folder
from tests.core.formats.dequantized.stored import (
    StoredModel,
    compressed,
    fp8_blocks,
    fp8_per,
    gpt_oss,
    int8,
    nvfp4,
    packed,
    random_float8,
    random_scales,
    store_of,
)

# --- notes ---


@pytest.mark.parametrize(
    ("model", "kind", "exact"),
    [
        (fp8_blocks(), "FP8 (blocks of 32x32)", False),
        (fp8_blocks(torch.float8_e8m0fnu), "FP8 (blocks of 32x32)", True),
        (fp8_per("tensor"), "FP8 (per tensor)", False),
        (fp8_per("channel", "compressed-tensors"), "FP8 (per channel)", False),
        (gpt_oss(), "MXFP4", True),
        (nvfp4("modelopt"), "NVFP4", False),
        (packed(4), "INT4 (groups of 32)", False),
        (int8("tensor"), "INT8 (per tensor)", False),
    ],
)
def test_the_note_names_the_format(model: StoredModel, kind: str, exact: bool, tmp_path: Path) -> None:
    source = read_source(model.save(tmp_path))
    assert source.note == f"The weights are quantized in the source as {kind}, and are unpacked to 16 bits."
    assert (source.quantized, source.exact) == (True, exact)
    assert source.stored_bytes == sum(tensor.nbytes for tensor in model.tensors.values())


def test_a_source_in_16_bits_has_no_note(tmp_path: Path) -> None:
    folder = StoredModel({"a.weight": torch.ones(2, 2)}, {}, {}).save(tmp_path)
    source = read_source(folder)
    assert (source.note, source.stored_bytes, source.refusal) == ("", 0, "")


def test_the_config_of_the_original_model_has_no_quantization(tmp_path: Path) -> None:
    nested = {"quantization_config": fp8_blocks().config, "hidden_size": 8}
    source = read_source(fp8_blocks().save(tmp_path, text_config=nested, quantization_config=None))
    assert source.quantized
    assert source.config["text_config"] == {"hidden_size": 8}
    assert "quantization_config" not in source.config


def test_headers_alone_are_sufficient(tmp_path: Path) -> None:
    model = fp8_blocks()
    folder = model.save(tmp_path)
    found = from_headers({"model_type": "llama", "quantization_config": model.config}, read_folder(folder))
    assert found == read_source(folder)


def test_the_config_of_modelopt_may_be_in_a_separate_file(tmp_path: Path) -> None:
    folder = nvfp4("modelopt").save(tmp_path, quantization_config=None)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4", "group_size": 16}}')
    assert read_source(folder).kind == "NVFP4"


def test_a_config_that_the_tensors_contradict_does_not_count(tmp_path: Path) -> None:
    folder = StoredModel({"a.weight": torch.ones(2, 2)}, {"quant_method": "bitsandbytes"}, {}).save(tmp_path)
    assert read_source(folder).refusal == ""


@pytest.mark.parametrize(
    ("changes", "file", "expected"),
    [
        ({"quantization_config": None}, "", False),
        ({"quantization_config": {"bits": 4}}, "", True),
        ({"quantization_config": None}, "quantize_config.json", True),
    ],
)
def test_a_config_is_found_in_config_json_or_beside_it(
    changes: dict[str, Any], file: str, expected: bool, tmp_path: Path
) -> None:
    folder = fp8_per("tensor").save(tmp_path, **changes)
    if file:
        (folder / file).write_text('{"bits": 4, "group_size": 32, "desc_act": false}')
    assert is_quantized(folder) is expected


def test_groups_of_layers_may_have_different_bits(tmp_path: Path) -> None:
    four, eight = packed(4), packed(8)
    config = compressed("group", 4, "int", "mixed-precision", group_size=32)
    second = {"targets": ["re:b.*"], "weights": {**config["config_groups"]["group_0"]["weights"], "num_bits": 8}}
    config["config_groups"]["group_1"] = second
    tensors = {**four.tensors, **{name.replace("a.", "b."): tensor for name, tensor in eight.tensors.items()}}
    store = store_of(StoredModel(tensors, config, {}).save(tmp_path))
    assert torch.allclose(store.get("a.weight").double(), torch.from_numpy(four.expected["a.weight"]), rtol=1e-3)
    assert torch.allclose(store.get("b.weight").double(), torch.from_numpy(eight.expected["a.weight"]), rtol=1e-3)


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "with 'bitsandbytes', whose format cannot be read"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "ModelOpt's format 'W4A8_AWQ' cannot be read"),
        ({**compressed("tensor", 8, "float", "marlin-24")}, "format 'marlin-24' cannot be read"),
        (
            {**compressed("tensor", 8, "float", "dense"), "sparsity_config": {"format": "sparse-24-bitmask"}},
            "sparse format",
        ),
        (
            {**compressed("tensor", 8, "float", "dense"), "transform_config": {"config_groups": {"u": {}}}},
            "rotated (transform_config",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}, "AWQ checkpoint version 'gemv'"),
    ],
)
def test_a_method_that_cannot_be_read_is_named(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = fp8_per("tensor").save(tmp_path, quantization_config=config)
    source = read_source(folder)
    assert reason in source.refusal
    assert not source.quantized
    assert source.tree().refusal == source.refusal


def without(model: StoredModel, name: str) -> StoredModel:
    return replace(model, tensors={key: value for key, value in model.tensors.items() if key != name})


def having(model: StoredModel, **tensors: Tensor) -> StoredModel:
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return replace(model, tensors={**model.tensors, **named})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (without(fp8_blocks(), "a.weight_scale_inv"), "a.weight is stored as F8_E4M3 without a scale"),
        (without(fp8_blocks(), "a.weight"), "weights that belong to a.weight_scale_inv are missing"),
        (without(gpt_oss(), "experts.down_proj_scales"), "experts.down_proj_blocks has no scales"),
        (without(packed(4), "a.weight_scale"), "a.weight_packed has no scale"),
        (without(packed(4, symmetric=False), "a.weight_zero_point"), "a.weight has no zero points"),
        (without(nvfp4("compressed-tensors"), "a.weight_global_scale"), "a.weight has no global scale"),
        (
            having(fp8_blocks(), a__weight_scale_inv=random_scales(2, 3)),
            r"has the shape \[2, 3\], which does not fit the weights \[72, 80\] of a.weight in blocks of 32 x 32",
        ),
        (having(gpt_oss(), **{"experts.down_proj_scales": torch.zeros(3, 12, 4, dtype=torch.uint8)}), "does not fit"),
        (having(packed(4, group=32), a__weight_scale=random_scales(40, 2)), "does not fit the weights"),
        (having(packed(4), a__weight=torch.ones(40, 96)), "a.weight is stored both quantized and unquantized"),
        (
            having(packed(4, symmetric=False), a__weight_zero_point=torch.zeros(4, 3, dtype=torch.int32)),
            r"a.weight_zero_point is I32 \[4, 3\], which does not fit a.weight",
        ),
        (
            replace(fp8_blocks(), config={"quant_method": "fp8", "weight_block_size": [0, "x"]}),
            "block size is not a pair of positive numbers",
        ),
        (replace(packed(4), config={"quant_method": "compressed-tensors"}), "has no config_groups"),
        (replace(packed(4), config={"quant_method": 3}), "has no method"),
    ],
)
def test_damaged_headers_are_errors_of_one_sentence(model: StoredModel, message: str, tmp_path: Path) -> None:
    folder = model.save(tmp_path)
    with pytest.raises(CorruptFile, match=message) as caught:
        read_source(folder)
    assert caught.value.message.count(". ") == 0


def test_inputs_that_are_scaled_are_not_ignored(tmp_path: Path) -> None:
    folder = having(nvfp4("modelopt"), a__pre_quant_scale=torch.ones(48)).save(tmp_path)
    assert "scales the inputs of its layers (a.pre_quant_scale)" in read_source(folder).refusal


# --- values ---


def spoiled(build: Callable[[], StoredModel], name: str, value: float | int) -> StoredModel:
    model = build()
    tensor = model.tensors[name].clone()
    tensor.view(torch.uint8 if isinstance(value, int) else tensor.dtype).reshape(-1)[0] = value
    return replace(model, tensors={**model.tensors, name: tensor})


@pytest.mark.parametrize(
    ("model", "weight", "scale"),
    [
        (spoiled(fp8_blocks, "a.weight_scale_inv", float("nan")), "a.weight", "a.weight_scale_inv"),
        (spoiled(fp8_blocks, "a.weight_scale_inv", float("inf")), "a.weight", "a.weight_scale_inv"),
        (spoiled(gpt_oss, "experts.down_proj_scales", 255), "experts.down_proj", "experts.down_proj_scales"),
        (spoiled(lambda: nvfp4("modelopt"), "a.weight_scale", 127), "a.weight", "a.weight_scale"),
        (spoiled(lambda: nvfp4("compressed-tensors"), "a.weight_global_scale", 0.0), "a.weight", "a.weight_scale"),
        (spoiled(lambda: packed(4), "a.weight_scale", float("nan")), "a.weight", "a.weight_scale"),
    ],
)
def test_scales_that_are_not_finite_are_errors(model: StoredModel, weight: str, scale: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=f"{scale} contains values that are not finite"):
        store_of(model.save(tmp_path)).get(weight)


def test_groups_that_do_not_exist_are_errors(tmp_path: Path) -> None:
    model = having(packed(4, ordered=True), a__weight_g_idx=torch.full((96,), 3, dtype=torch.int32))
    with pytest.raises(CorruptFile, match=r"a\.weight_g_idx contains groups that do not exist"):
        store_of(model.save(tmp_path)).get("a.weight")


@pytest.mark.parametrize("empty", [0, -1])
def test_placeholders_for_the_natural_order_are_accepted(empty: int, tmp_path: Path) -> None:
    model = having(packed(4), a__weight_g_idx=torch.full((96,), empty, dtype=torch.int32))
    expected = store_of(packed(4).save(tmp_path / "one")).get("a.weight")
    assert torch.equal(store_of(model.save(tmp_path / "two")).get("a.weight"), expected)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    folder = fp8_blocks().save(tmp_path)
    store = store_of(folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(BitwrightError, match=r"model.safetensors ended inside the tensor a.weight"):
        store.get("a.weight")


def test_scales_of_deepseek_v4_and_packed_fp4_beside_fp8(tmp_path: Path) -> None:
    scales = torch.full((8, 2), 121, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    tensors = {
        "a.weight": random_float8(32, 32), "a.scale": random_scales(1, 1),
        "experts.0.w1.weight": torch.full((8, 32), 0x2A, dtype=torch.int8), "experts.0.w1.scale": scales,
    }  # fmt: skip
    config = {"quant_method": "fp8", "weight_block_size": [32, 32], "scale_fmt": "ue8m0"}
    store = store_of(StoredModel(tensors, config, {}).save(tmp_path))
    assert torch.equal(store.get("experts.0.w1.weight")[0, :2], torch.tensor([-1.0, 1.0]).bfloat16() / 64)
    assert store.get("experts.0.w1.weight").shape == (8, 64)
    assert set(store.table) == {"a.weight", "experts.0.w1.weight"}
