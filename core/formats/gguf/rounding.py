"""Rounding of weights to GGUF block types: scales and minimums of least error, and the nearest integers.

The search itself is in `core.formats.gguf.search`; this module chooses its candidates and processes the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from core.block_types import TYPES, BlockType
from core.formats.gguf import search
from core.formats.gguf.blocks import SCALE_RANGE, BlockLinear, BlockScales
from core.formats.gguf.code_books import code_values, nearest_code, nearest_in_cell
from core.schemes import LayerScheme

_CHUNK = 1 << 22
"""Most weights processed at once, which limits the size of the float32 copy."""
_SMALLEST_SHARE = 1 << 13
"""Fewest weights for which a second thread is worth its cost."""
_NOTHING = 1e-9
"""Smaller weights are treated as 0: half of the smallest float16, 3e-8, is the smallest weight above 0 of any type."""
_MOST = 1e9
"""Larger than any representable weight."""
_INNER = 14
"""Candidates for the multiple of the largest scale of a block, from the largest down."""
_SHARES = {3: 14, 4: 20, 5: 24, 6: 28, 8: 24}
"""Number of candidates for a scale, per sign, by bits: more levels give more and narrower local minima. Twice as many
lower the error of real weights by less than one percent (8 bits: by ten percent of a negligible error)."""

_FINDERS: dict[tuple[bool, bool], Callable[..., None]] = {
    (False, True): search.legacy_scales,
    (False, False): search.legacy_ranges,
    (True, True): search.nested_scales,
    (True, False): search.nested_ranges,
}
"""Search functions by (scales are nested, type is symmetric)."""


@torch.no_grad()
def search_scales(weight: Tensor, type_name: str, importance: Tensor | None = None) -> BlockScales:
    """Return the scales and minimums of least weighted squared error for a weight, on its device.

    Args:
        weight: [out, in], any float type; `in` a multiple of the type's block.
        type_name: one of `core.block_types.TYPES`.
        importance: mean square of every input over a calibration text, [in]; None weights all inputs equally.

    Raises:
        ValueError: a weight or an importance is not finite.
    """
    kind = TYPES[type_name]
    out, width = weight.shape
    blocks, groups = (out, width // kind.block), (out, width // kind.group)
    grid = BlockScales(
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
        _fill(kind, values.numpy(), counts, [None if p is None else p[rows].numpy() for p in grid.parts()])
    rest = (None if part is None else part.to(weight.device) for part in (grid.m, grid.scales, grid.mins))
    return BlockScales(grid.d.to(weight.device), *rest)


@torch.no_grad()
def round_to(weight: Tensor, type_name: str, importance: Tensor | None, name: str) -> BlockLinear:
    """Return the layer of least weighted squared error in a block type; arguments and errors as for `search_scales`."""
    kind = TYPES[type_name]
    grid = search_scales(weight, type_name, importance)
    step, low = grid.steps()
    inverse = torch.where(step == 0, 0.0, 1.0 / torch.where(step == 0, 1.0, step))
    shift = 1 << (kind.bits - 1) if kind.sym else 0
    ints = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for rows in _chunks(*weight.shape):
        q = weight[rows].float().unflatten(1, (-1, kind.group))
        if low is not None:
            q = q - low[rows].unsqueeze(-1)
        q = q * inverse[rows].unsqueeze(-1)
        if kind.code_book:
            ints[rows] = nearest_code(q, kind.name).flatten(1)
            continue
        ints[rows] = q.round_().add_(shift).clamp_(0, (1 << kind.bits) - 1).flatten(1).to(torch.uint8)
    codes = [None if part is None else part.to(torch.int8) for part in (grid.scales, grid.mins)]
    m = None if grid.m is None else grid.m.half()
    return BlockLinear(name, LayerScheme.of_type(type_name), ints, grid.d.half(), m, *codes)


def _chunks(out: int, width: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, width))
    return (slice(begin, min(out, begin + rows)) for begin in range(0, out, rows))


def _counts(importance: Tensor | None, width: int) -> search.Array:
    """Return the weight of the squared error of every input, float32 [in], 1 on average."""
    if importance is None:
        return np.ones(width, np.float32)
    if not bool(importance.isfinite().all()):
        raise ValueError("An importance is not finite.")
    counts = importance.cpu().double().clamp(min=0)
    mean = counts.mean()
    # Inputs that were never active get a small weight, so that their groups get scales as well.
    counts = counts / mean + 1e-5 if mean > 0 else torch.ones_like(counts)
    return np.ascontiguousarray(counts.float().numpy())


def _fill(kind: BlockType, values: search.Array, counts: search.Array, parts: list[search.Array | None]) -> None:
    """Search the rows of `values`; `parts` are d, m, scales and mins of these rows."""
    room = [part for part in parts if part is not None]
    arguments = (values, counts, *_levels(kind.name), _shares(kind.bits) if kind.sym else _cuts(kind.bits))
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
def _levels(name: str) -> tuple[np.float32, np.float32, search.Array | None]:
    """Return the smallest and largest level of a group, and the nearest level in each cell of a code book."""
    kind = TYPES[name]
    if kind.code_book:
        book = code_values(name)[nearest_in_cell(name).int()].numpy()
        return np.float32(kind.code_book[0]), np.float32(kind.code_book[-1]), book
    half = 1 << (kind.bits - 1)
    low, high = (-half, half - 1) if kind.sym else (0, 2 * half - 1)
    return np.float32(low), np.float32(high), None


@cache
def _tries(name: str) -> tuple[search.Array, search.Array]:
    """Return the candidates for the multiple of the largest scale of a block, and the range of all multiples."""
    low, high = SCALE_RANGE[name]
    tries = [*range(max(1, high - _INNER + 1), high + 1), *(range(low, low + _INNER) if low else ())]
    # Small multiples are only tried if the float16 would otherwise lose precision or become 0.
    tries += [1 << k for k in range(high.bit_length()) if 1 << k not in tries]
    return np.array(tries, np.float32), np.array([low, high], np.float32)


@cache
def _shares(bits: int) -> search.Array:
    """Return the candidates for a scale, relative to the scale that reaches the largest weight."""
    half = 1 << (bits - 1)
    # The whole range, and the range without its lowest level, which other quantizers use.
    return np.array([1.0, half / (half - 1), *np.geomspace(0.3, 1.1, _SHARES[bits])], np.float32)


@cache
def _cuts(bits: int) -> search.Array:
    """Return the candidates for a range: steps cut off at both ends."""
    top = (1 << bits) - 1
    if bits == 2:
        ends = [-0.3, *np.linspace(0.3, 0.5 * top, 4)]
        return np.array([(under, over) for under in ends for over in ends], np.float32)
    ends = list(np.linspace(-0.06, 0.36, 16) * top)
    both = [(share * top, share * top) for share in (0.05, 0.1, 0.15, 0.25)]
    pairs = [(0, 0), (0, -1), *((0, end) for end in ends), *((end, 0) for end in ends[::2]), *both]
    return np.array(pairs, np.float32)
