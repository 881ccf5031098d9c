"""Decoding of the number formats of quantized weights: FP4 (E2M1), exponents (E8M0), FP8, and integers in words.

FP4 and E8M0 are defined in the OCP Microscaling Formats (MX) specification 1.0, sections 5.3.3 and 5.4.1.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

FLOAT8: Final = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
"""safetensors dtype code -> torch dtype, for the 8-bit floats of weights."""

_MAGNITUDES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FP4: Final = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)])
_NAN: Final = 255


def fp4(data: Tensor) -> Tensor:
    """Return the FP4 values of bytes [..., n], float32 [..., 2 * n]; the low half of a byte is the first value.

    A value has a sign bit, two exponent bits and a mantissa bit: (-1)^s * 2^(e - 1) * (1 + m / 2), or (-1)^s * m / 2
    for e = 0.
    """
    halves = torch.stack((data & 15, data >> 4), dim=-1)
    return _FP4[halves.flatten(-2).to(torch.int32)]


def powers_of_two(data: Tensor) -> Tensor:
    """Return the E8M0 values 2^(b - 127) of bytes b, float32 of the same shape.

    Raises:
        ValueError: a byte is 255, which means NaN.
    """
    if data.numel() and int(data.max()) == _NAN:
        raise ValueError("values that are not finite (NaN)")
    # The byte is the exponent field of a 32-bit float. 2^-127 is below its normal range, with the highest mantissa bit.
    bits = data.to(torch.int32) << 23
    bits[data == 0] = 1 << 22
    return bits.view(torch.float32)


def packed_integers(words: Tensor, bits: int, columns: int) -> Tensor:
    """Return the unsigned integers in 32-bit words, int32 [rows, columns], from the low bits of the first word up.

    Args:
        words: int32 [rows, words]; integers may be split between two words.
        bits: of an integer.
        columns: number of integers in a row.
    """
    if bits in (4, 8):
        data = words.contiguous().view(torch.uint8)
        data = torch.stack((data & 15, data >> 4), dim=-1).flatten(-2) if bits == 4 else data
        return data[:, :columns].to(torch.int32)
    starts = torch.arange(columns) * bits
    first = starts // 32
    unsigned = words.to(torch.int64) & 0xFFFFFFFF
    unsigned = torch.cat((unsigned, unsigned.new_zeros(len(words), 1)), dim=1)
    pairs = unsigned[:, first] | (unsigned[:, first + 1] << 32)
    # a shift of a negative number fills with ones, which the mask removes
    return ((pairs >> (starts % 32)) & ((1 << bits) - 1)).to(torch.int32)
