"""Decoding of the number formats of quantized weights: FP4 (E2M1), exponents (E8M0), FP8, and integers in words.

FP4 and E8M0 are defined in the OCP Microscaling Formats (MX) specification 1.0, sections 5.3.3 and 5.4.1.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from core.formats.pack import unpack_outputs
from core.formats.packing import block_values

FLOAT8: Final = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
"""safetensors dtype code -> torch dtype, for the 8-bit floats of weights."""

_MAGNITUDES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FP4: Final = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)])
# A pair of 32-bit floats for each byte, looked up as one 64-bit number: 12 times as fast as one by one.
_BYTES: Final = torch.arange(256)
_FP4_PAIRS: Final = torch.stack((_FP4[_BYTES & 15], _FP4[_BYTES >> 4]), dim=-1).view(torch.float64).reshape(-1)
_FLOAT8_VALUES: Final = {code: _BYTES.to(torch.uint8).view(dtype).to(torch.float32) for code, dtype in FLOAT8.items()}
_NAN: Final = 255


def fp4(data: Tensor) -> Tensor:
    """Return the FP4 values of bytes [..., n], float32 [..., 2 * n]; the low half of a byte is the first value.

    A value has a sign bit, two exponent bits and a mantissa bit: (-1)^s * 2^(e - 1) * (1 + m / 2), or (-1)^s * m / 2
    for e = 0.
    """
    pairs = _FP4_PAIRS.index_select(0, data.reshape(-1).to(torch.int32))
    return pairs.view(torch.float32).reshape(*data.shape[:-1], 2 * data.shape[-1])


def float8(data: Tensor, code: str) -> Tensor:
    """Return the FP8 values of bytes in the dtype `code`, float32 of the same shape."""
    return _FLOAT8_VALUES[code].index_select(0, data.reshape(-1).to(torch.int32)).reshape(data.shape)


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
    if bits in (4, 8):  # no integer is in two bytes, which is ten times as fast
        data = words.contiguous().view(torch.uint8)
        data = torch.stack((data & 15, data >> 4), dim=-1).flatten(-2) if bits == 4 else data
        return data[:, :columns].to(torch.int32)
    period = block_values(bits) * bits // 32
    filled = torch.nn.functional.pad(words, (0, -words.shape[1] % period))
    return unpack_outputs(filled, bits).T[:, :columns].to(torch.int32)
