"""Scales and minimums of a GGUF block type during the start of a layer: search, and refit under the Gram matrix.

The scales of K types are integers (codes) times a float16 of their block. A refit changes the codes one group after the
other, each to its best value given all others, and then fits the float16 values by least squares. Both keep the scales
representable, so the values that are tuned are those of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.block_types import TYPES
from core.formats.gguf.blocks import SCALE_RANGE, BlockScales
from core.formats.gguf.code_books import nearest_code
from core.quant.grid import storable
from core.quant.start.least_squares import DAMPING, fit, fit_chunks, products
from core.quant.start.levels import Levels, block_levels, damping, row_chunks
from core.quant.typed_grid import nonzero_scales
from core.schemes import LayerScheme


@torch.no_grad()
def search_blocks(weight: Tensor, scheme: LayerScheme, importance: Tensor | None) -> Levels:
    """Return the levels of rounding to nearest with searched scales of a block type; arguments as in `search`."""
    empty = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    found = block_levels(scheme, empty, nonzero_scales(weight, scheme.type, importance))
    for rows in row_chunks(len(weight), 4 * weight.shape[1]):
        part = found.rows(rows)
        ratio = part.above_base(weight[rows]).view(*part.scale.shape, -1) / part.scale.unsqueeze(-1)
        if scheme.code_book:
            found.levels[rows] = nearest_code(ratio, scheme.type).view_as(part.levels)
            continue
        level = ratio.round_().add_(part.zero.unsqueeze(-1)).clamp_(0, scheme.levels - 1)
        found.levels[rows] = level.view_as(part.levels).to(torch.uint8)
    return found


@torch.no_grad()
def fit_blocks(weight: Tensor, found: Levels, gram: Tensor, aims: Tensor | None = None) -> Levels:
    """Return the same levels with scales and minimums of lower error of the outputs.

    Rows whose error does not fall keep their scales.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
        aims: the result of `products`; None to compute it.
    """
    assert found.blocks is not None
    aims = products(weight, gram) if aims is None else aims
    with damping(gram, DAMPING):
        if found.blocks.scales is not None:
            found = found.with_blocks(_best_codes(weight, found, gram))
        return _better_rows(weight, found, found.with_blocks(_fit_halves(aims, found, gram)), gram)


def _better_rows(weight: Tensor, found: Levels, other: Levels, gram: Tensor) -> Levels:
    """Return the scales with the lower error of each row."""
    assert found.blocks is not None
    assert other.blocks is not None
    better = torch.empty(len(weight), dtype=torch.bool, device=weight.device)
    for rows in row_chunks(len(weight), 4 * weight.shape[1]):
        errors = [weight[rows] - each.values(rows) for each in (found, other)]
        before, after = (((error @ gram) * error).sum(-1) for error in errors)
        better[rows] = after < before
    chosen = [
        None if one is None or two is None else torch.where(better.unsqueeze(-1), two, one)
        for one, two in zip(found.blocks.parts(), other.blocks.parts(), strict=True)
    ]
    assert chosen[0] is not None
    return found.with_blocks(BlockScales(chosen[0], *chosen[1:]))


def _fit_halves(aims: Tensor, found: Levels, gram: Tensor) -> BlockScales:
    """Return the float16 values d and m of least error for the present levels and codes; `aims` as in `fit`."""
    blocks = found.blocks
    assert blocks is not None
    d, m = blocks.d.clone(), None if blocks.m is None else blocks.m.clone()
    halves = [part for part in (d, m) if part is not None]
    for rows in fit_chunks(len(aims), aims.shape[1], len(halves) * d.shape[1]):
        centered = found.centered(rows)
        bases = [_times(centered, None if blocks.scales is None else blocks.scales[rows])]
        if m is not None:
            one = torch.ones_like(centered)
            bases.append(one if blocks.mins is None else _times(one, blocks.mins[rows]).neg_())
        fitted = fit(aims[rows], bases, [half[rows] for half in halves], gram)
        d[rows] = storable(fitted[0], found.scheme.reach if blocks.scales is None else 1)
        if m is not None:
            m[rows] = fitted[1].clamp(-65504, 65504).half().float()
    return BlockScales(d, m, blocks.scales, blocks.mins)


def _times(values: Tensor, codes: Tensor | None) -> Tensor:
    """Return values [rows, in] times the codes [rows, groups] of their groups."""
    if codes is None:
        return values
    return (values.view(*codes.shape, -1) * codes.unsqueeze(-1)).view(values.shape)


def _best_codes(weight: Tensor, found: Levels, gram: Tensor) -> BlockScales:
    """Return the scales after one sweep over the codes of all groups; the error does not increase."""
    blocks, kind = found.blocks, TYPES[found.scheme.type]
    assert blocks is not None
    assert blocks.scales is not None
    scales, mins = blocks.scales.clone(), None if blocks.mins is None else blocks.mins.clone()
    low, high = SCALE_RANGE[kind.name]
    per = kind.block // kind.group
    for rows in row_chunks(len(weight), 3 * weight.shape[1] + 8 * kind.block):
        residual, centered = weight[rows] - found.values(rows), found.centered(rows)
        d = blocks.d[rows]
        m = None if blocks.m is None else blocks.m[rows]
        for block in range(d.shape[1]):
            begin, end = block * kind.block, (block + 1) * kind.block
            slopes = residual @ gram[:, begin:end]
            for group in range(per):
                number, first, last = block * per + group, group * kind.group, (group + 1) * kind.group
                inside = slice(begin + first, begin + last)
                near = _Group(centered[:, inside], gram[inside, inside], slopes[:, first:last])
                if m is None or mins is None:
                    change = near.best_scale(scales[rows, number], d[:, block], low, high)
                else:
                    change = near.best_range(
                        scales[rows, number], mins[rows, number], d[:, block], m[:, block], low, high
                    )
                residual[:, inside] -= change
                slopes[:, last:].addmm_(change, gram[inside, inside.stop : end], alpha=-1)
    return BlockScales(blocks.d, blocks.m, scales, mins)


@dataclass(frozen=True)
class _Group:
    """The columns of one group during a sweep over the codes.

    Attributes:
        levels: float32 [rows, group], without zero points.
        gram: float32 [group, group], its part of the Gram matrix.
        slopes: float32 [rows, group], product of the residual of the whole rows and the Gram matrix.
    """

    levels: Tensor
    gram: Tensor
    slopes: Tensor

    def best_scale(self, codes: Tensor, d: Tensor, low: int, high: int) -> Tensor:
        """Set the codes [rows] to those of least error; return the change of the weights, float32 [rows, group]."""
        stiff = ((self.levels @ self.gram) * self.levels).sum(-1)
        pull = (self.slopes * self.levels).sum(-1)
        best = (codes + pull / (stiff * d)).round_().clamp_(low, high)
        # a step of 0 would make all levels equal
        best = torch.where(best.isfinite() & (best != 0), best, codes)
        change = (best - codes) * d
        codes.copy_(best)
        return self.levels * change.unsqueeze(-1)

    def best_range(self, codes: Tensor, mins: Tensor, d: Tensor, m: Tensor, low: int, high: int) -> Tensor:
        """Set the codes of scales and minimums, [rows] each; as `best_scale`."""
        at_levels, at_one = self.levels @ self.gram, self.gram.sum(0)
        stiff, cross, loose = (at_levels * self.levels).sum(-1), at_levels.sum(-1), at_one.sum()
        pull, lift = (self.slopes * self.levels).sum(-1), self.slopes.sum(-1)
        # change of the error for a change s of the scale and n of the minimum:
        # stiff s^2 + loose n^2 - 2 cross s n - 2 pull s + 2 lift n
        middle = (pull * loose - lift * cross) / (stiff * loose - cross.square()) / d
        least = torch.zeros_like(pull)
        best = torch.zeros_like(pull), torch.zeros_like(pull)
        for candidate in (codes + middle.floor(), codes + middle.ceil(), codes.clone()):
            scale = candidate.clamp(max(low, 1), high)
            s = (scale - codes) * d
            minimum = (mins + (cross * s - lift) / (loose * m)).round_().clamp_(low, high)
            minimum = torch.where(minimum.isfinite(), minimum, mins)
            n = (minimum - mins) * m
            error = stiff * s.square() + loose * n.square() - 2 * (cross * s * n + pull * s - lift * n)
            better = error < least
            least = torch.where(better, error, least)
            best = torch.where(better, scale - codes, best[0]), torch.where(better, minimum - mins, best[1])
        codes += best[0]
        mins += best[1]
        return self.levels * (best[0] * d).unsqueeze(-1) - (best[1] * m).unsqueeze(-1)
