"""Mixtures of experts in MXFP4 and FP8 compute as transformers computes with the weights that it unpacks itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

from core.formats.dequantized.source import read_source
from core.inference.loader import load_model
from tests.core.formats.dequantized.stored import e2m1
from tests.core.tiny_architectures import make_model

BLOCK = 32


def to_mxfp4(name: str, weight: Tensor) -> dict[str, Tensor]:
    """Return the two tensors of an expert weight [experts, in, out]."""
    groups = weight.float().transpose(1, 2).contiguous().unflatten(-1, (-1, 32))
    exponents = groups.abs().amax(-1).log2().floor() - 2
    table = torch.tensor([e2m1(code) for code in range(16)])
    codes = ((groups / exponents.exp2().unsqueeze(-1)).unsqueeze(-1) - table).abs().argmin(-1)
    blocks = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
    return {f"{name}_blocks": blocks, f"{name}_scales": (exponents + 127).to(torch.uint8)}


def to_fp8(name: str, weight: Tensor) -> dict[str, Tensor]:
    rows, columns = weight.shape
    filled = torch.nn.functional.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    scales = filled.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).abs().amax((1, 3)) / 448
    wide = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
    return {name: (weight.float() / wide).to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}


FAMILIES: dict[str, tuple[dict[str, Any], Any, str]] = {
    "gpt_oss": ({"quant_method": "mxfp4"}, Mxfp4Config(dequantize=True), "MXFP4"),
    "deepseek_v3": (
        {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]},
        FineGrainedFP8Config(dequantize=True, weight_block_size=(BLOCK, BLOCK)),
        f"FP8 (blocks of {BLOCK}x{BLOCK})",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(family: str, tmp_path: Path) -> None:
    config, theirs, kind = FAMILIES[family]
    make_model(family, tmp_path)
    made: dict[str, Tensor] = {}
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        if family == "gpt_oss" and weight.dim() == 3:
            made |= to_mxfp4(name, weight)
        elif family != "gpt_oss" and name.endswith(("proj.weight", "proj_with_mqa.weight")):
            made |= to_fp8(name, weight)
        else:
            made[name] = weight
    save_file(made, tmp_path / "model.safetensors", metadata={"format": "pt"})
    plain = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**plain, "quantization_config": config})
    (tmp_path / "config.json").write_text(text, encoding="utf-8")

    assert read_source(tmp_path).kind == kind
    ids = torch.arange(5, 45).view(1, -1)
    ours = load_model(str(tmp_path), "cpu", "float32").model
    peer = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=theirs).float()
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, peer(ids).logits, atol=1e-5)
