"""Quantized layers in GGUF block types: their integers and scales, encoding to bytes and decoding.

The byte layouts are ggml's (ggml-common.h, ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.block_types import TYPES, BlockType
from core.formats.gguf.code_books import decoded
from core.schemes import LayerScheme

_CHUNK = 1 << 20
"""Most weights processed at once, which limits the size of temporaries."""


@dataclass(frozen=True)
class _Plane:
    """The bytes that hold some bits of every integer: `bits` of them from bit `low` on, several integers to a byte.

    Each `run` bytes hold run * 8 / bits integers: byte i has integers i, i + run, i + 2 run and so on, the first in its
    lowest bits. With `flipped`, the top bit is inverted.
    """

    low: int
    bits: int
    run: int
    flipped: bool = False

    def nbytes(self, block: int) -> int:
        return block * self.bits // 8


_Field = Literal["d", "m", "scales"] | _Plane
_NIBBLES = _Plane(0, 4, 16)
_FIFTH = _Plane(4, 1, 1)
_LAYOUTS: dict[str, tuple[_Field, ...]] = {
    "q4_0": ("d", _NIBBLES),
    "q4_1": ("d", "m", _NIBBLES),
    "q5_0": ("d", _FIFTH, _NIBBLES),
    "q5_1": ("d", "m", _FIFTH, _NIBBLES),
    "q8_0": ("d", _Plane(0, 8, 1, flipped=True)),
    "q2_k": ("scales", _Plane(0, 2, 32), "d", "m"),
    "q3_k": (_Plane(2, 1, 32), _Plane(0, 2, 32), "scales", "d"),
    "q4_k": ("d", "m", "scales", _Plane(0, 4, 32)),
    "q5_k": ("d", "m", "scales", _Plane(4, 1, 32), _Plane(0, 4, 32)),
    "q6_k": (_Plane(0, 4, 64), _Plane(4, 2, 32), "scales", "d"),
    "iq4_nl": ("d", _NIBBLES),
    "iq4_xs": ("d", "scales", _NIBBLES),
}
_SCALE_BYTES = {"q2_k": 16, "q3_k": 12, "q4_k": 12, "q5_k": 12, "q6_k": 16, "iq4_xs": 6}
SCALE_RANGE = {
    "q2_k": (0, 15), "q3_k": (-32, 31), "q4_k": (0, 63), "q5_k": (0, 63), "q6_k": (-128, 127), "iq4_xs": (-32, 31),
}  # fmt: skip
"""Smallest and largest integer scale of a type; minimums have the same range."""


@dataclass(frozen=True, eq=False)
class BlockLinear:
    """A linear layer quantized in a block type.

    With q an integer, d and m the float16 of its block, s and n the small integers of its group, a weight is
        q4_0, q5_0, q8_0   d (q - 2^(b-1))
        q4_1, q5_1         d q + m
        q2_k, q4_k, q5_k   (d s) q - (m n)
        q3_k, q6_k         (d s) (q - 2^(b-1)), s signed
        iq4_nl             d c, with c the value of q in the code book
        iq4_xs             (d s) c, s signed

    Attributes:
        name: in the checkpoint, without `.weight`.
        scheme: of the block type.
        ints: uint8 [out, in], q, each below 2^bits.
        d: float16 [out, blocks].
        m: float16 [out, blocks] of types with minimums, else None.
        scales: int8 [out, groups] of K types, s (`SCALE_RANGE`) and IQ4_XS, else None.
        mins: int8 [out, groups] of q2_k, q4_k and q5_k, else None.
    """

    name: str
    scheme: LayerScheme
    ints: Tensor
    d: Tensor
    m: Tensor | None = None
    scales: Tensor | None = None
    mins: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.scheme.type or self.ints.dim() != 2 or self.in_features % self.type.block:
            raise ValueError(f"{self.name} is not a matrix of whole blocks")
        blocks = (self.out_features, self.in_features // self.type.block)
        groups = (self.out_features, self.in_features // self.type.group) if self.type.nested else None
        expected = (
            ("ints", self.ints, torch.uint8, tuple(self.ints.shape)),
            ("d", self.d, torch.float16, blocks),
            ("m", self.m, torch.float16, None if self.type.sym else blocks),
            ("scales", self.scales, torch.int8, groups),
            ("mins", self.mins, torch.int8, None if self.type.sym else groups),
        )
        for what, tensor, dtype, shape in expected:
            if (tensor is None) != (shape is None):
                raise ValueError(f"{self.name}: {self.type.name} has {'no ' if shape is None else ''}{what}")
            if tensor is not None and (tensor.dtype != dtype or tuple(tensor.shape) != shape):
                raise ValueError(
                    f"{self.name}: {what} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}"
                )

    @property
    def type(self) -> BlockType:
        return TYPES[self.scheme.type]

    @property
    def in_features(self) -> int:
        return self.ints.shape[1]

    @property
    def out_features(self) -> int:
        return self.ints.shape[0]

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors of the layer."""
        return tuple(part for part in (self.ints, self.d, self.m, self.scales, self.mins) if part is not None)

    def take(self, order: Tensor) -> BlockLinear:
        """Return the layer with these rows, int64 [rows], in this order."""
        rest = (None if part is None else part[order] for part in (self.m, self.scales, self.mins))
        return BlockLinear(self.name, self.scheme, self.ints[order], self.d[order], *rest)

    def dequantize(self) -> Tensor:
        """Return the weight, float32 [out, in].

        Bit-identical to ggml's `dequantize_row_*`: the same float32 operations in the same order.
        """
        weight = torch.empty(self.ints.shape, dtype=torch.float32, device=self.ints.device)
        step, low = self.steps()
        shift = self.scheme.levels // 2
        for rows in _chunks(*self.ints.shape):
            part = weight[rows].view(-1, self.in_features // self.type.group, self.type.group)
            if self.type.code_book:
                part.copy_(decoded(self.ints[rows], self.type.name).view(part.shape)).mul_(step[rows].unsqueeze(-1))
                continue
            part.copy_(self.ints[rows].reshape(part.shape))
            if low is None:
                part.sub_(shift).mul_(step[rows].unsqueeze(-1))
            else:
                part.mul_(step[rows].unsqueeze(-1)).add_(low[rows].unsqueeze(-1))
        return weight

    def steps(self) -> tuple[Tensor, Tensor | None]:
        """Return the step and, for types with minimums, the value of level 0 of every group, float32 [out, groups]."""
        return grid_steps(self.d, self.m, self.scales, self.mins)

    def encode(self) -> Tensor:
        """Return the bytes of the blocks, uint8 [out, bytes of a row].

        Raises:
            ValueError: an integer, scale or minimum does not fit into its bits.
        """
        self._check_ranges()
        blocks = self.in_features // self.type.block
        data = torch.empty(self.out_features, blocks, self.type.nbytes, dtype=torch.uint8, device=self.ints.device)
        for rows in _chunks(*self.ints.shape):
            ints = self.ints[rows].reshape(-1, blocks, self.type.block)
            for field, place in _places(self.type):
                if isinstance(field, _Plane):
                    data[rows, :, place] = _pack_plane(ints, field)
                elif field == "scales":
                    assert self.scales is not None
                    mins = None if self.mins is None else self.mins[rows].reshape(ints.shape[0], blocks, -1)
                    scales = self.scales[rows].reshape(ints.shape[0], blocks, -1)
                    data[rows, :, place] = _pack_scales(self.type.name, scales, mins)
                else:
                    halves = self.d if field == "d" else self.m
                    assert halves is not None
                    data[rows, :, place] = halves[rows].contiguous().view(torch.uint8).view(-1, blocks, 2)
        return data.flatten(1)

    def _check_ranges(self) -> None:
        bounds = SCALE_RANGE.get(self.type.name, (0, 0))
        limits = (("ints", self.ints, (0, self.scheme.levels - 1)), ("scales", self.scales, bounds))
        for what, tensor, (low, high) in (*limits, ("mins", self.mins, bounds)):
            if tensor is not None and tensor.numel() and not (low <= int(tensor.min()) and int(tensor.max()) <= high):
                raise ValueError(f"{self.name}: {what} of {self.type.name} lie in {low} to {high}")


@dataclass(frozen=True)
class BlockScales:
    """The scales and minimums of a `BlockLinear`, as float32 with exactly the values that are stored.

    Attributes:
        d: [out, blocks], float16 values.
        m: [out, blocks], float16 values, of types with minimums, else None.
        scales: [out, groups], integers, of K types, else None.
        mins: [out, groups], integers, of K types with minimums, else None.
    """

    d: Tensor
    m: Tensor | None
    scales: Tensor | None
    mins: Tensor | None

    def parts(self) -> tuple[Tensor | None, ...]:
        """Return d, m, scales and mins."""
        return self.d, self.m, self.scales, self.mins

    def rows(self, index: Tensor | slice) -> BlockScales:
        """Return the scales and minimums of some rows."""
        return BlockScales(self.d[index], *(None if part is None else part[index] for part in self.parts()[1:]))

    def steps(self) -> tuple[Tensor, Tensor | None]:
        """Return the step and, for types with minimums, the value of level 0 of every group, float32 [out, groups]."""
        return grid_steps(self.d, self.m, self.scales, self.mins)

    def layer(self, name: str, scheme: LayerScheme, integers: Tensor) -> BlockLinear:
        """Return the quantized layer with these scales, on the CPU.

        Args:
            integers: uint8 [out, in].
        """
        return BlockLinear(
            name,
            scheme,
            integers.cpu(),
            self.d.half().cpu(),
            None if self.m is None else self.m.half().cpu(),
            *(None if part is None else part.to(torch.int8).cpu() for part in (self.scales, self.mins)),
        )


def joined_scales(parts: Sequence[BlockScales]) -> BlockScales:
    """Return the rows of several matrices of one type as those of one matrix."""
    columns = zip(*(part.parts()[1:] for part in parts), strict=True)
    present = [[value for value in column if value is not None] for column in columns]
    return BlockScales(
        torch.cat([part.d for part in parts]), *(torch.cat(column) if column else None for column in present)
    )


def grid_steps(d: Tensor, m: Tensor | None, scales: Tensor | None, mins: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the step and, with minimums, the value of level 0 of every group, float32 [out, groups] each.

    The arguments are the tensors of a `BlockLinear`, in any dtypes that hold the same values.
    """
    step, low = d.to(torch.float32), None if m is None else m.to(torch.float32)
    if scales is None:
        return step, low
    repeats = scales.shape[1] // max(1, d.shape[1])
    step = step.repeat_interleave(repeats, 1).mul_(scales.to(torch.float32))
    if low is None:
        return step, None
    assert mins is not None
    # x - y equals x + (-y) exactly.
    return step, low.repeat_interleave(repeats, 1).mul_(mins.to(torch.float32)).neg_()


def decode(name: str, type_name: str, data: Tensor) -> BlockLinear:
    """Decode blocks to a layer; every pattern of bytes is valid.

    Args:
        name: of the layer.
        type_name: one of `core.block_types.TYPES`.
        data: uint8 [out, bytes of a row], whole blocks.
    """
    kind, device = TYPES[type_name], data.device
    out, blocks = data.shape[0], data.shape[1] // kind.nbytes
    groups = blocks * kind.block // kind.group
    data = data.reshape(out, blocks, kind.nbytes)
    ints = torch.empty(out, blocks * kind.block, dtype=torch.uint8, device=device)
    halves = {key: torch.empty(out, blocks, dtype=torch.float16, device=device) for key in ("d", "m")}
    codes = {key: torch.empty(out, groups, dtype=torch.int8, device=device) for key in ("scales", "mins")}
    for rows in _chunks(*ints.shape):
        into = ints[rows].view(-1, blocks, kind.block).zero_()
        for field, place in _places(kind):
            raw = data[rows, :, place]
            if isinstance(field, _Plane):
                _unpack_plane(raw, field, into)
            elif field == "scales":
                scales, mins = _unpack_scales(type_name, raw)
                codes["scales"][rows] = scales.view(-1, groups)
                if mins is not None:
                    codes["mins"][rows] = mins.view(-1, groups)
            else:
                halves[field][rows] = raw.contiguous().view(torch.float16).view(-1, blocks)
    return BlockLinear(
        name,
        LayerScheme.of_type(type_name),
        ints,
        halves["d"],
        None if kind.sym else halves["m"],
        codes["scales"] if kind.nested else None,
        codes["mins"] if kind.nested and not kind.sym else None,
    )


def _chunks(out: int, width: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, width))
    return (slice(start, min(out, start + rows)) for start in range(0, out, rows))


def _places(kind: BlockType) -> Iterator[tuple[_Field, slice]]:
    """Return the fields of a block and their bytes."""
    start = 0
    for field in _LAYOUTS[kind.name]:
        if isinstance(field, _Plane):
            length = field.nbytes(kind.block)
        else:
            length = _SCALE_BYTES[kind.name] if field == "scales" else 2
        yield field, slice(start, start + length)
        start += length


def _pack_plane(ints: Tensor, plane: _Plane) -> Tensor:
    """Pack bits of uint8 [rows, blocks, block] into uint8 [rows, blocks, bytes]."""
    if plane.bits == 8:
        return ints ^ 0x80 if plane.flipped else ints
    mask, lanes = (1 << plane.bits) - 1, 8 // plane.bits
    parts = ints.view(*ints.shape[:2], -1, lanes, plane.run)
    data = torch.zeros_like(parts[..., 0, :])
    for lane in range(lanes):
        data |= ((parts[..., lane, :] >> plane.low) & mask) << lane * plane.bits
    return data.flatten(2)


def _unpack_plane(raw: Tensor, plane: _Plane, into: Tensor) -> None:
    """Unpack bits and add them to `into`, the inverse of `_pack_plane`."""
    if plane.bits == 8:
        into.copy_(raw ^ 0x80 if plane.flipped else raw)
        return
    mask, lanes = (1 << plane.bits) - 1, 8 // plane.bits
    parts = into.view(*into.shape[:2], -1, lanes, plane.run)
    raw = raw.reshape(*parts.shape[:3], plane.run)
    for lane in range(lanes):
        parts[..., lane, :] |= ((raw >> lane * plane.bits) & mask) << plane.low


def _pack_scales(name: str, scales: Tensor, mins: Tensor | None) -> Tensor:
    """Pack scales and minimums, int8 [rows, blocks, groups of a block], into uint8 [rows, blocks, bytes]."""
    if name == "q6_k":
        return scales.contiguous().view(torch.uint8)
    if name == "q3_k":
        s = (scales + 32).to(torch.uint8)
        high = s >> 4
        packed = high[..., 0:4] | high[..., 4:8] << 2 | high[..., 8:12] << 4 | high[..., 12:16] << 6
        return torch.cat([(s[..., :8] & 15) | (s[..., 8:] & 15) << 4, packed], -1)
    if name == "iq4_xs":
        s = (scales + 32).to(torch.uint8)
        high = s >> 4
        packed = high[..., 0::4] | high[..., 1::4] << 2 | high[..., 2::4] << 4 | high[..., 3::4] << 6
        return torch.cat([packed, (s[..., 0::2] & 15) | (s[..., 1::2] & 15) << 4], -1)
    assert mins is not None
    s, n = scales.to(torch.uint8), mins.to(torch.uint8)
    if name == "q2_k":
        return s | n << 4
    first = [part[..., :4] | (part[..., 4:] >> 4) << 6 for part in (s, n)]
    return torch.cat([*first, (s[..., 4:] & 15) | (n[..., 4:] & 15) << 4], -1)


def _unpack_scales(name: str, raw: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return scales and minimums, int8 [rows, blocks, groups of a block]."""
    if name == "q6_k":
        return raw.contiguous().view(torch.int8), None
    if name == "q2_k":
        return (raw & 15).to(torch.int8), (raw >> 4).to(torch.int8)
    if name == "q3_k":
        low = torch.cat([raw[..., :8] & 15, raw[..., :8] >> 4], -1)
        high = torch.cat([(raw[..., 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], -1)
        return (low | high << 4).to(torch.int8) - 32, None
    if name == "iq4_xs":
        low = torch.stack([raw[..., 2:] & 15, raw[..., 2:] >> 4], -1).flatten(-2)
        high = torch.stack([(raw[..., :2] >> shift) & 3 for shift in (0, 2, 4, 6)], -1).flatten(-2)
        return (low | high << 4).to(torch.int8) - 32, None
    s, n, rest = raw[..., :4], raw[..., 4:8], raw[..., 8:]
    scales = torch.cat([s & 63, (rest & 15) | (s >> 6) << 4], -1)
    mins = torch.cat([n & 63, (rest >> 4) | (n >> 6) << 4], -1)
    return scales.to(torch.int8), mins.to(torch.int8)
