"""Weights equal those that transformers unpacks from the same tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from core.formats.dequantized.source import read_source
from core.formats.dequantized.store import open_store
from tests.core.formats.dequantized.stored import fp8_blocks, fp8_experts, gpt_oss, store_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu, torch.uint8])
def test_fp8_in_blocks(dtype: torch.dtype, tmp_path: Path) -> None:
    model = fp8_blocks(dtype, (64, 96))
    peer = Fp8Dequantize(None)._dequantize_one(
        model.tensors["a.weight"], model.tensors["a.weight_scale_inv"], torch.bfloat16
    )
    assert torch.equal(store_of(model.save(tmp_path)).get("a.weight"), peer)


def test_fp8_experts_whose_last_block_is_incomplete(tmp_path: Path) -> None:
    model = fp8_experts()
    values, scales = model.tensors["experts.up_proj"], model.tensors["experts.up_proj_scale_inv"]
    # the peer has no incomplete blocks: the missing rows are added, and removed from its result
    filled = torch.cat((values.float(), torch.zeros(3, 16, 64)), dim=1).to(torch.float8_e4m3fn)
    peer = Fp8Dequantize(None)._dequantize_one(filled, scales, torch.bfloat16)[:, :48]
    assert torch.equal(store_of(model.save(tmp_path)).get("experts.up_proj"), peer)


def test_mxfp4_experts_of_gpt_oss(tmp_path: Path) -> None:
    model = gpt_oss()
    peer = convert_moe_packed_tensors(
        model.tensors["experts.down_proj_blocks"], model.tensors["experts.down_proj_scales"]
    )
    store = store_of(model.save(tmp_path))
    assert torch.equal(store.get("experts.down_proj"), peer)
    assert torch.equal(store.rows("experts.down_proj", torch.tensor([1])), peer[1:2])


def test_scales_that_are_not_powers_of_two_are_used_as_stored(tmp_path: Path) -> None:
    model = fp8_blocks(torch.float32, (64, 96))
    folder = model.save(tmp_path, quantization_config={**model.config, "scale_fmt": "ue8m0"})
    found = open_store(folder, read_source(folder)).get("a.weight")
    peer = Fp8Dequantize(None)._dequantize_one(
        model.tensors["a.weight"], model.tensors["a.weight_scale_inv"], torch.bfloat16
    )
    assert torch.equal(found, peer)
