"""Checkpoints in the formats of other programs, from random bytes, and their weights by the formulas of the specs.

The expected weights are computed in float64 with NumPy, value by value, without the tables and tricks of the reader.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.formats.dequantized.source import read_source
from core.formats.dequantized.store import open_store
from core.model.weights import TensorStore

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StoredModel:
    """Tensors of a checkpoint, its quantization config, and the expected float64 weights by name."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    expected: dict[str, Array]

    def save(self, folder: Path, **changes: Any) -> Path:
        """Save the checkpoint; `changes` replace keys of config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / "model.safetensors")
        config = {"model_type": "llama", "quantization_config": self.config, **changes}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder


def store_of(folder: Path) -> TensorStore:
    return open_store(folder, read_source(folder))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def random_bytes(*shape: int, high: int = 256) -> Tensor:
    return torch.randint(0, high, shape, generator=generator(), dtype=torch.uint8)


def random_float8(*shape: int) -> Tensor:
    """Return all finite E4M3 values in a random order."""
    data = random_bytes(*shape)
    data[(data & 127) == 127] = 5
    return data.view(torch.float8_e4m3fn)


def random_scales(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(shape, generator=generator()) * 0.02 + 0.001).to(dtype)


def e2m1(code: int) -> float:
    """Return an FP4 value; OCP MX specification 1.0, section 5.3.3."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    size = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return math.copysign(size, -1 if sign else 1)


def e4m3(code: int) -> float:
    """Return an FP8 value; OCP FP8 specification 1.0, section 3."""
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8)
    return math.copysign(size, -1 if sign else 1)


def float8_values(values: Tensor) -> Array:
    return np.vectorize(e4m3, otypes=[np.float64])(values.view(torch.uint8).numpy())


def fp4_values(packed: Tensor) -> Array:
    codes = packed.numpy()
    both = np.stack((codes % 16, codes // 16), axis=-1).reshape(*codes.shape[:-1], -1)
    return np.vectorize(e2m1, otypes=[np.float64])(both)


def spread(scales: Array, block: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the scale of each value of a matrix `shape`, with one scale for each block."""
    rows, columns = shape
    return np.array([[scales[row // block[0], column // block[1]] for column in range(columns)] for row in range(rows)])


def fp8_blocks(scale_dtype: torch.dtype = torch.float32, shape: tuple[int, int] = (72, 80)) -> StoredModel:
    """Return a layer of DeepSeek's kind in blocks of 32x32, the last of which are incomplete."""
    values, grid = random_float8(*shape), (-(-shape[0] // 32), -(-shape[1] // 32))
    if scale_dtype == torch.uint8:
        scales = random_bytes(*grid, high=8) + 118
        factors = 2.0 ** (scales.numpy().astype(np.float64) - 127)
    elif scale_dtype == torch.float8_e8m0fnu:
        exponents = random_bytes(*grid, high=8) + 118
        scales, factors = exponents.view(scale_dtype), 2.0 ** (exponents.numpy().astype(np.float64) - 127)
    else:
        scales = random_scales(*grid, dtype=scale_dtype)
        factors = scales.double().numpy()
    config: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"}
    if scale_dtype != torch.float32:
        config["scale_fmt"] = "ue8m0"
    tensors = {"a.weight": values, "a.weight_scale_inv": scales, "norm.weight": torch.ones(8)}
    return StoredModel(tensors, config, {"a.weight": float8_values(values) * spread(factors, (32, 32), shape)})


def fp8_per(granularity: str, method: str = "fp8", suffix: str = "weight_scale") -> StoredModel:
    """Return a layer with a scale for the whole tensor or for each row."""
    values = random_float8(24, 40)
    shape = {"tensor": (), "tensor1": (1,), "channel": (24, 1), "channel1": (24,)}[granularity]
    scales = random_scales(*shape)
    factors = scales.double().numpy().reshape(-1, 1)
    config: dict[str, Any] = {"quant_method": method}
    if method == "compressed-tensors":
        config = compressed(granularity.removesuffix("1"), 8, "float", "float-quantized")
    if method == "modelopt":
        config["quant_algo"] = "FP8"
    tensors = {"a.weight": values, f"a.{suffix}": scales, "a.input_scale": torch.ones(1), "k.k_scale": torch.ones(1)}
    return StoredModel(tensors, config, {"a.weight": float8_values(values) * factors})


def compressed(strategy: str, bits: int, kind: str, layout: str, **weights: Any) -> dict[str, Any]:
    """Return a quantization config of compressed-tensors."""
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, **weights},
    }
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}


def gpt_oss(experts: int = 3, rows: int = 12, columns: int = 64) -> StoredModel:
    """Return an expert tensor of gpt-oss: MXFP4, stored [experts, out, in] and used [experts, in, out]."""
    blocks = random_bytes(experts, rows, columns // 32, 16)
    scales = random_bytes(experts, rows, columns // 32, high=12) + 116
    values = fp4_values(blocks.reshape(experts, rows, columns // 2))
    factors = np.repeat(2.0 ** (scales.numpy().astype(np.float64) - 127), 32, axis=-1)
    tensors = {
        "experts.down_proj_blocks": blocks, "experts.down_proj_scales": scales,
        "experts.down_proj_bias": torch.ones(experts, rows).bfloat16(),
    }  # fmt: skip
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    return StoredModel(tensors, config, {"experts.down_proj": (values * factors).transpose(0, 2, 1)})


def nvfp4(method: str) -> StoredModel:
    """Return a layer in NVFP4; compressed-tensors divides by the global scale, ModelOpt multiplies."""
    packed, scales = random_bytes(10, 24), random_float8(10, 3).abs()
    factor = torch.tensor([384.5])
    fine = float8_values(scales)
    if method == "modelopt":
        factor = 1 / factor
        tensors = {"a.weight": packed, "a.weight_scale": scales, "a.weight_scale_2": factor.reshape(())}
        config: dict[str, Any] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
        whole = fine * factor.double().numpy()
    else:
        tensors = {"a.weight_packed": packed, "a.weight_scale": scales, "a.weight_global_scale": factor}
        config = compressed("tensor_group", 4, "float", "nvfp4-pack-quantized", group_size=16)
        whole = fine / factor.double().numpy()
    tensors["a.input_scale" if method == "modelopt" else "a.input_global_scale"] = torch.ones(1)
    return StoredModel(tensors, config, {"a.weight": fp4_values(packed) * np.repeat(whole, 16, axis=1)})


def mxfp4() -> StoredModel:
    """Return a layer in MXFP4 of compressed-tensors."""
    packed, scales = random_bytes(10, 32), random_bytes(10, 2, high=10) + 120
    factors = np.repeat(2.0 ** (scales.numpy().astype(np.float64) - 127), 32, axis=1)
    config = compressed("group", 4, "float", "mxfp4-pack-quantized", group_size=32)
    return StoredModel(
        {"a.weight_packed": packed, "a.weight_scale": scales}, config, {"a.weight": fp4_values(packed) * factors}
    )


def to_words(unsigned: Array, bits: int) -> Tensor:
    """Return the bitstream of unsigned integers [rows, n] in 32-bit words [rows, words], low bits first."""
    rows = [sum(int(value) << (bits * number) for number, value in enumerate(row)) for row in unsigned]
    count = -(-unsigned.shape[1] * bits // 32)
    words = [[row >> (32 * number) & 0xFFFFFFFF for number in range(count)] for row in rows]
    return torch.from_numpy(np.array(words, dtype=np.uint32).view(np.int32))


def packed(
    bits: int, *, group: int = 32, symmetric: bool = True, ordered: bool = False, dtype: torch.dtype = torch.bfloat16
) -> StoredModel:
    """Return a layer of compressed-tensors' pack-quantized integers; group 0 is one scale for each row."""
    rows, columns = 40, 96
    groups = columns // group if group else 1
    draw = np.random.default_rng(5)
    ints = draw.integers(0, 1 << bits, (rows, columns))
    zeros = draw.integers(0, 1 << bits, (rows, groups)) if not symmetric else np.full((rows, groups), 1 << (bits - 1))
    scales = random_scales(rows, groups, dtype=dtype)
    order = draw.permutation(np.arange(columns) // (group or columns))
    index = order if ordered else np.arange(columns) // (group or columns)
    weight = (ints - zeros[:, index]) * scales.double().numpy()[:, index]
    tensors = {
        "a.weight_packed": to_words(ints, bits), "a.weight_scale": scales,
        "a.weight_shape": torch.tensor([rows, columns]),
    }  # fmt: skip
    if not symmetric:
        tensors["a.weight_zero_point"] = to_words(zeros.T, bits).T
    if ordered:
        tensors["a.weight_g_idx"] = torch.from_numpy(order.astype(np.int32))
    size = {"group_size": group} if group else {}
    config = compressed("group" if group else "channel", bits, "int", "pack-quantized", symmetric=symmetric, **size)
    return StoredModel(tensors, config, {"a.weight": weight})


def int8(granularity: str, *, symmetric: bool = True) -> StoredModel:
    """Return a layer with an integer in each byte."""
    values = random_bytes(24, 40).view(torch.int8)
    rows = {"tensor": 1, "channel": 24}[granularity]
    scales = random_scales(rows, 1, dtype=torch.bfloat16)
    zeros = random_bytes(rows, 1).view(torch.int8)
    tensors = {"a.weight": values, "a.weight_scale": scales, "a.weight_zero_point": zeros}
    shifted = values.numpy().astype(np.float64) - (0 if symmetric else zeros.numpy().astype(np.float64))
    config = compressed(granularity, 8, "int", "int-quantized", symmetric=symmetric)
    return StoredModel(tensors, config, {"a.weight": shifted * scales.double().numpy()})


def fp8_experts() -> StoredModel:
    """Return fused experts in FP8 with a grid of scales for each expert."""
    values, scales = random_float8(3, 48, 64), random_scales(3, 2, 2)
    wide = np.stack([spread(one, (32, 32), (48, 64)) for one in scales.double().numpy()])
    config = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    tensors = {"experts.up_proj": values, "experts.up_proj_scale_inv": scales}
    return StoredModel(tensors, config, {"experts.up_proj": float8_values(values) * wide})


KINDS: Mapping[str, Callable[[], StoredModel]] = {
    "fp8 blocks": fp8_blocks,
    "fp8 blocks, bf16 scales": lambda: fp8_blocks(torch.bfloat16),
    "fp8 blocks, E8M0 scales": lambda: fp8_blocks(torch.float8_e8m0fnu),
    "fp8 blocks, E8M0 bytes": lambda: fp8_blocks(torch.uint8),
    "fp8 tensor": lambda: fp8_per("tensor"),
    "fp8 tensor, inverse": lambda: fp8_per("tensor", suffix="weight_scale_inv"),
    "fp8 channel, fbgemm": lambda: fp8_per("channel", "fbgemm_fp8"),
    "fp8 tensor, ModelOpt": lambda: fp8_per("tensor", "modelopt"),
    "fp8 channel, ModelOpt": lambda: fp8_per("channel1", "modelopt"),
    "fp8 tensor, compressed-tensors": lambda: fp8_per("tensor1", "compressed-tensors"),
    "fp8 channel, compressed-tensors": lambda: fp8_per("channel", "compressed-tensors"),
    "fp8 experts": fp8_experts,
    "mxfp4 gpt-oss": gpt_oss,
    "mxfp4 compressed-tensors": mxfp4,
    "nvfp4 ModelOpt": lambda: nvfp4("modelopt"),
    "nvfp4 compressed-tensors": lambda: nvfp4("compressed-tensors"),
    "int4": lambda: packed(4),
    "int4 asymmetric": lambda: packed(4, symmetric=False),
    "int4 channel": lambda: packed(4, group=0),
    "int4 act-order": lambda: packed(4, ordered=True, symmetric=False),
    "int3": lambda: packed(3, symmetric=False),
    "int8 packed": lambda: packed(8, dtype=torch.float16),
    "int8 channel": lambda: int8("channel"),
    "int8 tensor asymmetric": lambda: int8("tensor", symmetric=False),
}
"""Description -> builder, for every layout."""


def save_quantized_model(folder: Path, kind: str) -> Path:
    """Write the tiny model with its linear layers in FP8 with blocks, in NVFP4 of ModelOpt or as packed INT4."""
    from tests.core.tiny_model import save_model

    save_model(folder)
    tensors, made = load_file(folder / "model.safetensors"), dict[str, Tensor]()
    for name, weight in tensors.items():
        layer = name.removesuffix(".weight")
        made |= PACKERS[kind](layer, weight.float()) if name.endswith("_proj.weight") else {name: weight}
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = CONFIGS[kind]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def save_unpacked_twin(folder: Path, source: Path) -> Path:
    """Write the same model with its weights as they are read: an ordinary checkpoint."""
    shutil.copytree(source, folder)
    store = store_of(source)
    save_file({name: store.get(name) for name in store.table}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _to_fp8(layer: str, weight: Tensor) -> dict[str, Tensor]:
    blocks = weight.unfold(0, 32, 32).unfold(1, 32, 32)
    scales = blocks.abs().amax((-1, -2)) / 448
    values = weight / scales.repeat_interleave(32, 0).repeat_interleave(32, 1)
    return {f"{layer}.weight": values.to(torch.float8_e4m3fn), f"{layer}.weight_scale_inv": scales}


def _to_nvfp4(layer: str, weight: Tensor) -> dict[str, Tensor]:
    factor = weight.abs().max() / (6 * 448)
    scales = (weight.unflatten(1, (-1, 16)).abs().amax(-1) / 6 / factor).to(torch.float8_e4m3fn)
    table = torch.tensor([e2m1(code) for code in range(16)])
    codes = ((weight / (scales.float() * factor).repeat_interleave(16, 1)).unsqueeze(-1) - table).abs().argmin(-1)
    values = (codes[:, ::2] + 16 * codes[:, 1::2]).to(torch.uint8)
    return {f"{layer}.weight": values, f"{layer}.weight_scale": scales, f"{layer}.weight_scale_2": factor}


def _to_int4(layer: str, weight: Tensor) -> dict[str, Tensor]:
    scales = (weight.unflatten(1, (-1, 32)).abs().amax(-1) / 7).to(torch.bfloat16)
    ints = (weight / scales.float().repeat_interleave(32, 1)).round().clamp(-8, 7).to(torch.int64) + 8
    shape = torch.tensor(weight.shape)
    return {
        f"{layer}.weight_packed": to_words(ints.numpy(), 4), f"{layer}.weight_scale": scales,
        f"{layer}.weight_shape": shape,
    }  # fmt: skip


PACKERS: Mapping[str, Callable[[str, Tensor], dict[str, Tensor]]] = {
    "fp8": _to_fp8,
    "nvfp4": _to_nvfp4,
    "int4": _to_int4,
}
CONFIGS: Mapping[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"},
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    "int4": compressed("group", 4, "int", "pack-quantized", group_size=32),
}
