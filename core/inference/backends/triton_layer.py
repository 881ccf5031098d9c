"""A quantized linear layer computed by the Triton kernels: packing, choice of the kernel, and the module.

The packed layout is described in `core.inference.backends.triton_kernels`. The row limits of the kernels and the tile
sizes were chosen from the compiler's output (registers, shared memory, width of the loads), not by measurement on a
device; `tests/benchmarks/gpu_kernels.py` measures them. Imports triton.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.inference.backends.triton_kernels import (
    CONSTANT_ZERO,
    LOWEST,
    ZERO_POINTS,
    few_rows,
    many_rows,
    whole_weight,
)
from core.inference.current_device import current_device

FEW = 4
"""Largest number of rows for `few_rows`, which reads the weights once per row; a tile has at least 16 rows."""
MANY = 256
"""Largest number of rows for `many_rows`; with more, the weight is dequantized and multiplied by torch."""
INTERPRETED = not isinstance(few_rows, triton.JITFunction)
"""True if TRITON_INTERPRET was set when triton was imported, so that kernels run slowly on the CPU, for tests."""
_CHUNK = 1 << 24
"""Number of weights packed at once."""

Tiles = dict[str, int]

FEW_TILES: tuple[tuple[Tiles, int], ...] = (
    # (tile sizes, warps). With 128 words per warp, threads need no exchange before the final reduction.
    ({"BLOCK_N": 4, "BLOCK_W": 128}, 1),
    ({"BLOCK_N": 8, "BLOCK_W": 128}, 1),
    ({"BLOCK_N": 4, "BLOCK_W": 256}, 2),
    ({"BLOCK_N": 8, "BLOCK_W": 256}, 2),
    ({"BLOCK_N": 4, "BLOCK_W": 512}, 4),
)
MANY_TILES: dict[int, tuple[tuple[Tiles, int], ...]] = {
    16: (
        ({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_W": 32}, 4),
        ({"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_W": 32}, 4),
        ({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_W": 64}, 4),
    ),
    64: (
        ({"BLOCK_M": 32, "BLOCK_N": 64, "BLOCK_W": 32}, 4),
        ({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_W": 32}, 4),
        ({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_W": 16}, 4),
    ),
    MANY: (
        ({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_W": 32}, 4),
        ({"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_W": 16}, 4),
        ({"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_W": 16}, 4),
        ({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_W": 16}, 8),
    ),
}
"""Largest number of rows -> (tile sizes, warps)."""
STAGES = 2
"""Stages of the software pipeline; with 3, tiles of 64 rows need more shared memory than consumer devices have."""
_WEIGHT_TILES: Tiles = {"BLOCK_N": 16, "BLOCK_W": 64}


def pack(ints: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """Pack integers into the words `low` and, for 3 bits, `high` of the kernels, int32.

    Args:
        ints: uint8 [outputs, inputs], inputs a multiple of 32.
        bits: 2, 3, 4 or 8.

    Returns:
        `low`, and `high` or None.
    """
    outputs, inputs = ints.shape
    plane = 2 if bits == 3 else bits
    low = torch.zeros(outputs, inputs // 32 * plane, dtype=torch.int32, device=ints.device)
    high = torch.zeros(outputs, inputs // 32, dtype=torch.int32, device=ints.device) if bits == 3 else None
    step = max(1, _CHUNK // inputs)
    for start in range(0, outputs, step):
        rows = slice(start, start + step)
        codes = ints[rows].view(-1, inputs // 32, 32 // plane, plane)
        words = low[rows].view(-1, inputs // 32, plane)
        for position in range(32 // plane):
            words |= (codes[:, :, position] & ((1 << plane) - 1)).to(torch.int32) << (position * plane)
        if high is None:
            continue
        for position in range(16):
            for half in range(2):
                high[rows] |= (codes[:, :, position, half] >> 2).to(torch.int32) << (position + 16 * half)
    return low, high


class TritonLinear(nn.Module):
    """A linear layer with packed weights, [..., inputs] -> [..., outputs], for float16, bfloat16 and float32 inputs.

    Sums are kept in float32. Up to FEW rows are multiplied by the weights in float32; more rows by weights rounded to
    the dtype of the input, as in a dense product.
    """

    low: Tensor
    high: Tensor | None
    scales: Tensor
    offsets: Tensor | None
    order: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: StoredLayer, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = (int(size) for size in layer.ints.shape)
        if self.in_features % 32:
            raise ValueError(f"{layer.name}: {self.in_features} inputs are not a multiple of 32")
        self.bits, self.group, self.grid = layer.scheme.bits, layer.scheme.group_size, CONSTANT_ZERO
        ints = layer.ints.to(device)
        order: Tensor | None = None
        offsets: Tensor | None = None
        if isinstance(layer, QuantizedLinear):
            scales = layer.scales
            if layer.g_idx is not None:
                order = torch.argsort(layer.g_idx, stable=True).to(device)
                ints = ints[:, order]
            if not layer.scheme.sym:
                self.grid, offsets = ZERO_POINTS, layer.zeros
        else:
            assert isinstance(layer, BlockLinear)
            scales, offsets = layer.steps()
            if offsets is not None:
                self.grid = LOWEST
            if self.bits in (5, 6):  # stored in 8 bits, shifted to the zero level of 8 bits
                ints, self.bits = ints + (0 if offsets is not None else 128 - (1 << (self.bits - 1))), 8
        self.groups = int(scales.shape[1])
        if self.groups == 1:
            self.group = 0
        low, high = pack(ints.contiguous(), self.bits)
        values = {"low": low, "high": high, "scales": scales, "offsets": offsets, "order": order, "bias": bias}
        for name, value in values.items():
            moved = None if value is None else value.to(device).contiguous()
            self.register_buffer(name, moved.to(dtype) if name == "bias" and moved is not None else moved)

    @property
    def nbytes(self) -> int:
        """Memory of all buffers."""
        return sum(value.nbytes for value in self.buffers())

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + bias in the dtype of `x`."""
        rows = x.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        count = rows.shape[0]
        # float32 tiles do not use tensor cores, so that torch's product is faster.
        if count > (FEW if x.dtype == torch.float32 else MANY):
            bias = None if self.bias is None else self.bias.to(x.dtype)
            y = nn.functional.linear(rows, self._ordered(x.dtype), bias)
        else:
            y = self._product(rows.contiguous(), count <= FEW)
        return y.view(*x.shape[:-1], self.out_features)

    def weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dequantized weight, [outputs, inputs]."""
        weight = self._ordered(dtype)
        return weight if self.order is None else weight[:, torch.argsort(self.order)]

    def _ordered(self, dtype: torch.dtype) -> Tensor:
        """Return the dequantized weight with its inputs sorted by group."""
        weight = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.low.device)
        width = self.low.shape[1]
        sizes = _WEIGHT_TILES
        grid = (triton.cdiv(self.out_features, sizes["BLOCK_N"]) * triton.cdiv(width, sizes["BLOCK_W"]),)
        with current_device(weight.device):
            whole_weight[grid](weight, *self._stored(), *self._counts(), **self._constants(), **sizes)
        return weight

    def _product(self, x: Tensor, few: bool) -> Tensor:
        rows = x.shape[0]
        y = torch.empty(rows, self.out_features, dtype=x.dtype, device=x.device)
        if rows == 0:
            return y

        def grid(meta: dict[str, Any]) -> tuple[int]:
            lines = rows if few else triton.cdiv(rows, meta["BLOCK_M"])
            return (lines * triton.cdiv(self.out_features, meta["BLOCK_N"]),)

        bias = self.scales if self.bias is None else self.bias
        key = (
            few,
            rows_up_to(rows),
            x.dtype,
            x.device,
            self.out_features,
            self.in_features,
            *self._constants().values(),
        )
        kernel, sizes = choose_kernel(key)
        with current_device(x.device):
            kernel[grid](
                x, y, *self._stored(), bias, rows, *self._counts(),
                BIAS=self.bias is not None, **self._constants(), **sizes,
            )  # fmt: skip
        return y

    def _stored(self) -> tuple[Tensor, ...]:
        """Return the tensor arguments of all kernels, with a placeholder for each missing tensor."""
        high = self.low if self.high is None else self.high
        return self.low, high, self.scales, self.scales if self.offsets is None else self.offsets

    def _counts(self) -> tuple[int, int, int]:
        return self.out_features, self.in_features // 32, self.groups

    def _constants(self) -> dict[str, Any]:
        # Set explicitly because triton 3.9 warns otherwise: a product and its sum may be rounded once (FMA).
        return {"BITS": self.bits, "GROUP": self.group, "GRID": self.grid, "enable_fp_fusion": True}


def rows_up_to(rows: int) -> int:
    """Return the largest number of rows covered by the same tile sizes as `rows`."""
    return next(top for top in (FEW, *MANY_TILES) if rows <= top)


def choose_kernel(key: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
    """Return a kernel and its remaining keyword arguments, such as the tile sizes.

    On a device, the tile sizes are tuned with the first layer of each kind, which takes some seconds for compilation.
    Triton caches both the code and the choice on disk. In the interpreter, the first tile sizes are used.

    Args:
        key: whether there are at most FEW rows, the result of `rows_up_to`, and everything else that the best tile
            sizes depend on.
    """
    few, top = key[0], key[1]
    kernel = few_rows if few else many_rows
    if INTERPRETED:
        return kernel, dict((FEW_TILES if few else MANY_TILES[top])[0][0])
    if key in _best:  # triton's own look-up takes as long as the launch
        return kernel, _best[key]
    return _Autotuned(_tuned(few, top), key), {}


_best: dict[tuple[Any, ...], dict[str, Any]] = {}


class _Autotuned:
    """A kernel that tunes its tile sizes at the first launch and stores the best ones in `_best`."""

    def __init__(self, tuned: Any, key: tuple[Any, ...]) -> None:
        self.tuned, self.key = tuned, key

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            self.tuned[grid](*args, **kwargs)
            _best[self.key] = dict(self.tuned.best_config.all_kwargs())

        return launch


@functools.cache
def _tuned(few: bool, top: int) -> Any:
    tiles = FEW_TILES if few else MANY_TILES[top]
    configs = [triton.Config(sizes, num_warps=warps, num_stages=STAGES) for sizes, warps in tiles]
    key = ["outputs", "blocks", "BITS", "GROUP", "GRID"]
    return triton.autotune(configs=configs, key=key, cache_results=True)(few_rows if few else many_rows)
