"""Packing of unsigned integers into 32-bit words, and unpacking.

There are two orders. The plain order is a little-endian bitstream: value k of a row is in bits k*b to k*b+b-1, so that
3-bit values may span two words. AWQ's order (4 bits) is the same stream with each eight values permuted. GPTQ packs a
weight along its inputs, AWQ along its outputs, and both pack zero points along the outputs. The functions process
slices of rows that fit into the processor cache, which keeps temporary memory small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from core.formats.packing import PLAIN_ORDER, block_values

_SLICE_VALUES = 1 << 18
_WORD = 32


def pack_inputs(ints: Tensor, bits: int) -> Tensor:
    """Pack uint8 [out, in] into int32 [in*bits/32, out], GPTQ's `qweight`.

    Raises:
        ValueError: a value is 2^bits or more, or the inputs do not fill whole words.
    """
    _check_values(ints, bits)
    packed = torch.empty(_words(ints.shape[1], bits), ints.shape[0], dtype=torch.int32, device=ints.device)
    for rows in _slices(ints.shape[0], ints.shape[1]):
        packed[:, rows] = _pack_rows(ints[rows], bits, PLAIN_ORDER).T
    return packed


def unpack_inputs(words: Tensor, bits: int) -> Tensor:
    """Unpack int32 [in*bits/32, out] into uint8 [out, in]; the inverse of `pack_inputs`."""
    columns = _values(words.shape[0], bits)
    ints = torch.empty(words.shape[1], columns, dtype=torch.uint8, device=words.device)
    for rows in _slices(words.shape[1], columns):
        ints[rows] = _unpack_rows(words[:, rows].T.contiguous(), bits, PLAIN_ORDER)
    return ints


def pack_outputs(values: Tensor, bits: int, order: tuple[int, ...] = PLAIN_ORDER) -> Tensor:
    """Pack uint8 [out, n] into int32 [n, out*bits/32]: `qzeros` for n groups, AWQ's `qweight` for n inputs.

    Raises:
        ValueError: a value is 2^bits or more, or the outputs do not fill whole words.
    """
    _check_values(values, bits)
    packed = torch.empty(values.shape[1], _words(values.shape[0], bits), dtype=torch.int32, device=values.device)
    for rows in _slices(values.shape[1], values.shape[0]):
        packed[rows] = _pack_rows(values[:, rows].T.contiguous(), bits, order)
    return packed


def unpack_outputs(words: Tensor, bits: int, order: tuple[int, ...] = PLAIN_ORDER) -> Tensor:
    """Unpack int32 [n, out*bits/32] into uint8 [out, n]; the inverse of `pack_outputs`."""
    columns = _values(words.shape[1], bits)
    values = torch.empty(columns, words.shape[0], dtype=torch.uint8, device=words.device)
    for rows in _slices(words.shape[0], columns):
        values[:, rows] = _unpack_rows(words[rows].contiguous(), bits, order).T
    return values


def _pack_rows(values: Tensor, bits: int, order: tuple[int, ...]) -> Tensor:
    block = _period(bits, order)
    step = block * bits // _WORD
    packed = torch.zeros(values.shape[0], _words(values.shape[1], bits), dtype=torch.int32, device=values.device)
    for slot in range(block):
        column = slot - slot % len(order) + order[slot % len(order)]
        value = values[:, column::block].to(torch.int32)
        word, shift = divmod(slot * bits, _WORD)
        packed[:, word::step] |= value << shift
        if shift + bits > _WORD:
            packed[:, word + 1 :: step] |= value >> (_WORD - shift)
    return packed


def _unpack_rows(words: Tensor, bits: int, order: tuple[int, ...]) -> Tensor:
    block = _period(bits, order)
    step = block * bits // _WORD
    columns = _values(words.shape[1], bits)
    values = torch.empty(words.shape[0], columns, dtype=torch.uint8, device=words.device)
    for slot in range(block):
        column = slot - slot % len(order) + order[slot % len(order)]
        word, shift = divmod(slot * bits, _WORD)
        low = min(bits, _WORD - shift)
        # Shifting a negative word fills it with ones, which the mask removes.
        value = (words[:, word::step] >> shift) & ((1 << low) - 1)
        if low < bits:
            value |= (words[:, word + 1 :: step] & ((1 << (bits - low)) - 1)) << low
        values[:, column::block] = value
    return values


def _period(bits: int, order: tuple[int, ...]) -> int:
    """Return the number of values after which both the word boundaries and the order repeat."""
    return math.lcm(block_values(bits), len(order))


def _words(values: int, bits: int) -> int:
    if values % block_values(bits):
        raise ValueError(f"{values} values of {bits} bits do not fill whole words")
    return values * bits // _WORD


def _values(words: int, bits: int) -> int:
    if (words * _WORD) % (bits * block_values(bits)):
        raise ValueError(f"{words} words do not contain whole blocks of {bits} bits")
    return words * _WORD // bits


def _slices(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _SLICE_VALUES // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _check_values(values: Tensor, bits: int) -> None:
    if values.dtype != torch.uint8 or values.dim() != 2:
        raise ValueError(f"expected a uint8 matrix, not {values.dtype} {tuple(values.shape)}")
    if values.numel() and int(values.max()) >= 1 << bits:
        raise ValueError(f"a value of {int(values.max())} does not fit into {bits} bits")
