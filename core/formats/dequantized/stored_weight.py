"""The description of a weight that is stored in 8 bits or less: its tensors and the layout of its scales.

Does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from core.model.headers import TensorInfo

Encoding = Literal["float8", "float4", "int8", "packed"]
"""Encoding of the values: FP8 or INT8 (one value per byte), FP4 (E2M1, two values per byte), or integers in words."""

FLOAT8: Final = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
"""safetensors dtype codes of 8-bit floats."""

EXPONENTS: Final = ("U8", "F8_E8M0")
"""Dtype codes of scales that are powers of two (E8M0): the byte b is 2^(b - 127)."""


@dataclass(frozen=True)
class StoredWeight:
    """A weight `values * scale` that consists of `matrices` matrices [rows, columns] with one scale for each block.

    Attributes:
        info: the weight as a tensor of the original model; its byte range is valid only in length.
        values: its stored values.
        encoding: of the values.
        matrices, rows, columns: number of matrices (experts) and their size, as stored.
        scales: the scales.
        grid: number of scales of a matrix along its rows and columns; (0, 0): one scale for all matrices.
        block: rows and columns of a matrix that share a scale.
        factor: second scale for a whole matrix; None if there is none.
        divides: True if the scales are divided by `factor` (compressed-tensors) instead of multiplied (ModelOpt).
        bits: bits of a value.
        zeros: zero points of integers; None if they are symmetric.
        order: the group of each input, for integers in the order of activation (`g_idx`); None for the natural order.
        transposed: True if the matrices of the original model are [columns, rows].
    """

    info: TensorInfo
    values: TensorInfo
    encoding: Encoding
    matrices: int
    rows: int
    columns: int
    scales: TensorInfo
    grid: tuple[int, int]
    block: tuple[int, int]
    factor: TensorInfo | None = None
    divides: bool = False
    bits: int = 8
    zeros: TensorInfo | None = None
    order: TensorInfo | None = None
    transposed: bool = False

    @property
    def exact(self) -> bool:
        """True if the weight is representable in `info.dtype` without rounding, except for extreme exponents.

        A product with a power of two has the significant bits of the stored value: at most 4 of an 8-bit float.
        """
        return self.encoding in ("float8", "float4") and self.scales.dtype in EXPONENTS and self.factor is None

    @property
    def label(self) -> str:
        """Name of the format for display, with the size of the blocks, such as `FP8 (128x128)`."""
        if self.encoding == "float4":
            return "NVFP4" if self.scales.dtype == "F8_E4M3" else "MXFP4"
        name = {"float8": "FP8", "int8": "INT8", "packed": f"INT{self.bits}"}[self.encoding]
        if self.encoding == "float8" and self.scales.dtype in EXPONENTS and self.block == (1, 32):
            return "MXFP8"
        height, width = self.block
        if height == 1:
            return f"{name} (per channel)" if width >= self.columns else f"{name} (groups of {width})"
        whole = height >= self.rows and width >= self.columns
        return f"{name} (per tensor)" if whole else f"{name} (blocks of {height}x{width})"
