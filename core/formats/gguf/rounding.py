"""Plain rounding of a weight to the grid of a GGUF block type: the best scales and minimums, and the nearest integers.

The search itself is `core.formats.gguf.search`; this is what it is asked for, and how. Knows one matrix at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from core.block_types import TYPES, BlockType
from core.formats.gguf import search
from core.formats.gguf.blocks import SCALE_RANGE, BlockLinear, grid_steps
from core.schemes import LayerScheme

_CHUNK = 1 << 22
"""Weights handled at once, so that the float32 copy stays small."""
_SMALLEST_SHARE = 1 << 13
"""Weights below which a second thread costs more than it brings."""
_NOTHING = 1e-9
"""Weights below it are 0: half of the smallest float16 is 3e-8, and it is the smallest weight above 0 of any type."""
_MOST = 1e9
"""More than any type holds."""
_INNER = 14
"""Multiples that the largest scale of a block may be, from the outermost inwards."""
_SHARES = {3: 14, 4: 20, 5: 24, 6: 28, 8: 24}
"""Candidates for a scale, per sign, by bits: more levels, more and narrower valleys. Twice as many lower the error of
real weights by less than one percent (8 bits: ten, of next to nothing)."""

_FINDERS: dict[tuple[bool, bool], Callable[..., None]] = {
    (False, True): search.legacy_scales,
    (False, False): search.legacy_ranges,
    (True, True): search.nested_scales,
    (True, False): search.nested_ranges,
}
"""By whether scales are nested and whether the type is symmetric."""


@dataclass(frozen=True)
class Start:
    """A grid without integers: the tensors of a `BlockLinear` as float32 that hold exactly what is stored.

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


@torch.no_grad()
def start(weight: Tensor, type_name: str, importance: Tensor | None = None) -> Start:
    """The grid of least weighted squared error for a weight, on its device.

    Args:
        weight: [out, in], any float type; `in` a multiple of the type's block.
        type_name: one of `core.block_types.TYPES`.
        importance: mean square of every input over a calibration text, [in]; None weighs all alike.

    Raises:
        ValueError: a weight or an importance is not finite.
    """
    kind = TYPES[type_name]
    out, width = weight.shape
    blocks, groups = (out, width // kind.block), (out, width // kind.group)
    grid = Start(
        torch.zeros(blocks),
        None if kind.sym else torch.zeros(blocks),
        torch.zeros(groups) if kind.nested else None,
        torch.zeros(groups) if kind.nested and not kind.sym else None,
    )
    counts = _counts(importance, width)
    for rows in _chunks(out, width):
        values = weight[rows].cpu().float()
        if not bool(values.isfinite().all()):
            raise ValueError("A weight is not finite.")
        values = values.masked_fill(values.abs() < _NOTHING, 0).clamp_(-_MOST, _MOST).contiguous()
        _fill(kind, values.numpy(), counts, [None if p is None else p[rows].numpy() for p in _parts(grid)])
    rest = (None if part is None else part.to(weight.device) for part in (grid.m, grid.scales, grid.mins))
    return Start(grid.d.to(weight.device), *rest)


@torch.no_grad()
def round_to(weight: Tensor, type_name: str, importance: Tensor | None, name: str) -> BlockLinear:
    """The layer of least weighted squared error on the grid of a type; arguments and errors as of `start`."""
    kind = TYPES[type_name]
    grid = start(weight, type_name, importance)
    step, low = grid_steps(grid.d, grid.m, grid.scales, grid.mins)
    inverse = torch.where(step == 0, 0.0, 1.0 / torch.where(step == 0, 1.0, step))
    shift = 1 << (kind.bits - 1) if kind.sym else 0
    ints = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for rows in _chunks(*weight.shape):
        q = weight[rows].float().unflatten(1, (-1, kind.group))
        if low is not None:
            q = q - low[rows].unsqueeze(-1)
        q = (q * inverse[rows].unsqueeze(-1)).round_().add_(shift).clamp_(0, (1 << kind.bits) - 1)
        ints[rows] = q.flatten(1).to(torch.uint8)
    codes = [None if part is None else part.to(torch.int8) for part in (grid.scales, grid.mins)]
    m = None if grid.m is None else grid.m.half()
    return BlockLinear(name, LayerScheme.of_type(type_name), ints, grid.d.half(), m, *codes)


def _parts(grid: Start) -> tuple[Tensor | None, ...]:
    return grid.d, grid.m, grid.scales, grid.mins


def _chunks(out: int, width: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, width))
    return (slice(begin, min(out, begin + rows)) for begin in range(0, out, rows))


def _counts(importance: Tensor | None, width: int) -> search.Array:
    """What the squared error of every input counts, float32 [in], 1 on average."""
    if importance is None:
        return np.ones(width, np.float32)
    if not bool(importance.isfinite().all()):
        raise ValueError("An importance is not finite.")
    counts = importance.cpu().double().clamp(min=0)
    mean = counts.mean()
    # Inputs that were never driven count a little, so that their groups get a grid as well.
    counts = counts / mean + 1e-5 if mean > 0 else torch.ones_like(counts)
    return np.ascontiguousarray(counts.float().numpy())


def _fill(kind: BlockType, values: search.Array, counts: search.Array, parts: list[search.Array | None]) -> None:
    """Search the rows of `values`; `parts` are d, m, scales and mins of these rows."""
    room = [part for part in parts if part is not None]
    arguments = (values, counts, kind.bits, _shares(kind.bits) if kind.sym else _cuts(kind.bits))
    tries = _tries(kind.name) if kind.nested else ()
    work = partial(_FINDERS[kind.nested, kind.sym], *arguments, *tries, *room)
    rows = values.shape[0]
    shares = max(1, min(torch.get_num_threads(), rows, values.size // _SMALLEST_SHARE))
    edges = [rows * share // shares for share in range(shares + 1)]
    if shares == 1:
        work(0, rows)
    else:
        list(_threads().map(work, edges[:-1], edges[1:]))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="blocks")


@cache
def _tries(name: str) -> tuple[search.Array, search.Array]:
    """Multiples that the largest scale of a block may be, and the bounds of all of them."""
    low, high = SCALE_RANGE[name]
    tries = [*range(max(1, high - _INNER + 1), high + 1), *(range(low, low + _INNER) if low else ())]
    # So few only where the float16 would be too small for its precision, or for being more than 0.
    tries += [1 << k for k in range(high.bit_length()) if 1 << k not in tries]
    return np.array(tries, np.float32), np.array([low, high], np.float32)


@cache
def _shares(bits: int) -> search.Array:
    """Candidates for a scale as shares of the one that reaches the largest weight."""
    half = 1 << (bits - 1)
    # The whole range, and the range without its lowest level: what others' files were rounded to.
    return np.array([1.0, half / (half - 1), *np.geomspace(0.3, 1.1, _SHARES[bits])], np.float32)


@cache
def _cuts(bits: int) -> search.Array:
    """Candidates for a range: steps that are cut off it below and above."""
    top = (1 << bits) - 1
    if bits == 2:
        ends = [-0.3, *np.linspace(0.3, 0.5 * top, 4)]
        return np.array([(under, over) for under in ends for over in ends], np.float32)
    ends = list(np.linspace(-0.06, 0.36, 16) * top)
    both = [(share * top, share * top) for share in (0.05, 0.1, 0.15, 0.25)]
    pairs = [(0, 0), (0, -1), *((0, end) for end in ends), *((end, 0) for end in ends[::2]), *both]
    return np.array(pairs, np.float32)
