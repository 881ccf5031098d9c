"""Any layer in any layout, compared with a slow reader written from the description of the formats; also via files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.formats.layout import decode, encode
from core.formats.packing import (
    AUTO_ROUND,
    AUTO_ROUND_AWQ,
    AUTO_ROUND_GPTQ,
    GPTQ,
    GPTQ_V2,
    Packing,
    block_values,
    measure,
)
from core.formats.quantized import QuantizedLinear, natural_groups
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme

NAME = "model.layers.0.mlp.up_proj"
PACKINGS = (AUTO_ROUND, AUTO_ROUND_GPTQ, AUTO_ROUND_AWQ, GPTQ, GPTQ_V2)
AWQ_SHIFTS = (0, 16, 4, 20, 8, 24, 12, 28)
"""Bit position of each of eight outputs in a word of AWQ."""

EXTREMES = (0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF)
"""float16: zeros, smallest and largest subnormals, smallest normal, ones, largest finite; both signs."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@dataclass(frozen=True)
class Case:
    """A layer and its layout."""

    packing: Packing
    layer: QuantizedLinear


@st.composite
def cases(draw: st.DrawFn) -> Case:
    packing = draw(st.sampled_from(PACKINGS))
    bits = 4 if packing.awq else draw(st.sampled_from([2, 3, 4, 8]))
    scheme = LayerScheme(bits, draw(st.sampled_from([-1, 32, 64, 128])), draw(st.booleans()))
    unit = block_values(bits)
    outputs, inputs = unit * draw(st.integers(1, 64 // unit)), unit * draw(st.integers(1, 160 // unit))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    groups = (outputs, scheme.groups(inputs))

    ints = torch.randint(0, scheme.levels, (outputs, inputs), generator=generator)
    ints = draw(st.sampled_from([ints, torch.zeros_like(ints), torch.full_like(ints, scheme.levels - 1)]))
    patterns = torch.randint(-(1 << 15), 1 << 15, groups, generator=generator).to(torch.int16)
    scales = patterns.view(torch.float16)
    few = torch.tensor(EXTREMES, dtype=torch.int32).to(torch.int16).view(torch.float16)
    chosen = few[torch.randint(0, len(EXTREMES), groups, generator=generator)]
    scales = torch.where(torch.isfinite(scales), scales, chosen) if draw(st.booleans()) else chosen
    low = packing.zero_bias
    zeros = torch.randint(low, scheme.levels, groups, generator=generator)
    zeros = draw(st.sampled_from([zeros, torch.full_like(zeros, low), torch.full_like(zeros, scheme.levels - 1)]))
    if scheme.sym:
        zeros = torch.full_like(zeros, scheme.levels // 2)
    order = None
    if packing.g_idx and groups[1] > 1 and draw(st.booleans()):
        order = natural_groups(scheme, inputs)[torch.randperm(inputs, generator=generator)]
    layer = QuantizedLinear(NAME, scheme, ints.to(torch.uint8), scales, zeros.to(torch.uint8), order)
    return Case(packing, layer)


def stream(words: list[int], bits: int) -> list[int]:
    """Return the values of a little-endian stream of 32-bit words."""
    whole = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(words))
    return [(whole >> (bits * k)) & ((1 << bits) - 1) for k in range(32 * len(words) // bits)]


def along_outputs(words: list[int], bits: int, awq: bool) -> list[int]:
    if not awq:
        return stream(words, bits)
    return [(word >> shift) & 15 for word in words for shift in AWQ_SHIFTS]


def slow_weight(packing: Packing, tensors: dict[str, torch.Tensor], scheme: LayerScheme) -> torch.Tensor:
    """Return scales * (level - zero point), one output and one input at a time, float64 [out, in]."""
    bits = scheme.bits
    if packing.awq:
        rows = [along_outputs(row, bits, True) for row in tensors["qweight"].tolist()]
        levels = torch.tensor(rows).T
    else:
        levels = torch.tensor([stream(column, bits) for column in tensors["qweight"].T.tolist()])
    zeros = torch.tensor([along_outputs(row, bits, packing.awq) for row in tensors["qzeros"].tolist()]).T
    zeros = zeros + packing.zero_bias
    inputs = levels.shape[1]
    groups = tensors["g_idx"].tolist() if "g_idx" in tensors else [k // scheme.group_of(inputs) for k in range(inputs)]
    scales = tensors["scales"].T.double()
    columns = [scales[:, group] * (levels[:, k] - zeros[:, group]) for k, group in enumerate(groups)]
    return torch.stack(columns, 1)


def tensors_of(case: Case) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{NAME}."): tensor for name, tensor in encode(case.packing, case.layer).items()}


@settings(max_examples=150)
@given(case=cases())
def test_a_slow_reader_computes_the_same_weight(case: Case) -> None:
    expected = slow_weight(case.packing, tensors_of(case), case.layer.scheme)
    assert torch.equal(case.layer.dequantize().double(), expected)


@settings(max_examples=150)
@given(case=cases())
def test_decoding_restores_the_layer(case: Case) -> None:
    tensors = tensors_of(case)
    back = decode(case.packing, NAME, case.layer.scheme, tensors, case.layer.g_idx)
    for ours, theirs in zip(case.layer.parts(), back.parts(), strict=True):
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


@settings(max_examples=150)
@given(case=cases())
def test_measure_derives_bits_and_sizes_from_shapes(case: Case) -> None:
    layer = case.layer
    found = measure(case.packing, {name: tuple(tensor.shape) for name, tensor in tensors_of(case).items()})
    assert found is not None
    assert (found.bits, found.in_features, found.out_features) == (
        layer.scheme.bits, layer.in_features, layer.out_features,
    )  # fmt: skip
    assert found.groups == layer.scheme.groups(layer.in_features)


def config_of(case: Case) -> dict[str, Any]:
    scheme = case.layer.scheme.to_json()
    if case.packing in (GPTQ, GPTQ_V2):
        version = "gptq" if case.packing is GPTQ else "gptq_v2"
        return {
            "quant_method": "gptq",
            "checkpoint_format": version,
            "desc_act": case.layer.g_idx is not None,
            **scheme,
        }
    return {"quant_method": "auto-round", "packing_format": case.packing.name, **scheme}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), dtype=st.sampled_from([torch.float16, torch.float32]))
def test_a_file_with_the_layer_is_read(tmp_path: Path, case: Case, dtype: torch.dtype) -> None:
    tensors = {f"{NAME}.{name}": tensor for name, tensor in tensors_of(case).items()}
    tensors[f"{NAME}.scales"] = tensors[f"{NAME}.scales"].to(dtype)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config_of(case)}))
    layer = QuantizedCheckpoint(tmp_path).layer(NAME)
    for ours, theirs in zip(case.layer.parts(), layer.parts(), strict=True):
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases().filter(lambda case: case.packing.awq))
def test_a_file_of_auto_awq_is_read(tmp_path: Path, case: Case) -> None:
    tensors = {f"{NAME}.{name}": tensor.contiguous() for name, tensor in tensors_of(case).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    scheme = case.layer.scheme
    config = {"quant_method": "awq", "version": "GEMM", "bits": 4, "group_size": scheme.group_size}
    config |= {"zero_point": not scheme.sym, "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    checkpoint = QuantizedCheckpoint(tmp_path)
    assert checkpoint.schemes == {NAME: scheme}
    assert torch.equal(checkpoint.layer(NAME).dequantize(), case.layer.dequantize())
