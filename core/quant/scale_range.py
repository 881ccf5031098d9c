"""Layers whose weights are too small or too large for scales in float16, found before the run from samples of rows.

All formats store scales as float16. Below 2^-24 there is none, so that a layer with weights of about 1e-6 and less
loses its levels, and one with weights beyond 10^7 is cut off. Such a layer stays in 16 bits. Knows weights and grids,
not files or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.formats.gguf.mixes import tuned_as
from core.model.tree import LayerPlan, ModelTree
from core.model.weights import TensorStore
from core.quant.grid import new_grid, quantize_into
from core.schemes import UNTOUCHED, LayerScheme

_ROWS = 16
"""Rows of a layer that are looked at first."""
_USUAL = (1e-4, 1e4)
"""Root mean square of weights that float16 scales hold without a doubt."""
_GROWTH = 1.25
"""Error of rounding, as a multiple of that of the same weights in the middle of the range, from which levels are lost.
Two thirds of the multiples are lost at 2.0."""
_SHARE = 0.002
"""And by how much of the weights' own size it is larger, at least."""


def within_float16(tree: ModelTree, plans: Sequence[LayerPlan], store: TensorStore) -> Sequence[LayerPlan]:
    """Return the plans with 16 bits, and the reason, for each layer that float16 scales cannot hold."""
    changed = {}
    for number, item in enumerate(plans):
        if item.scheme.quantized and _out_of_range(tree, item, store):
            reason = "its weights are too small or too large for scales in float16: left in 16 bits"
            changed[number] = replace(item, scheme=LayerScheme(bits=UNTOUCHED), fallback=reason)
    return [changed.get(number, item) for number, item in enumerate(plans)] if changed else plans


def loses_levels(weight: Tensor, scheme: LayerScheme) -> bool:
    """Tell whether rounding a weight [rows, in] is much less exact than rounding a multiple of it of usual size."""
    weight = weight.float()
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    if not 0 < largest < torch.inf:
        return False
    unit = 2.0 ** -int(torch.tensor(largest).log2().floor())
    middle = weight * unit if unit < 2.0**126 else (weight * 2.0**100) * (unit / 2.0**100)
    size = float(middle.norm())
    here, there = _error(weight, scheme), _error(middle, scheme)
    here = here * unit if unit < 2.0**126 else here * 2.0**100 * (unit / 2.0**100)
    return here > _GROWTH * there and here - there > _SHARE * size


def _out_of_range(tree: ModelTree, item: LayerPlan, store: TensorStore) -> bool:
    name, height = tree.weight_of(item.linear), item.linear.out_features
    if item.linear.transposed:
        whole = store.get(name).float().t()
        sample = whole[torch.arange(_ROWS) * height // _ROWS]
    else:
        whole = None
        sample = store.rows(name, torch.arange(min(_ROWS, height)) * height // min(_ROWS, height)).float()
    spread = float(sample.square().mean().sqrt())
    if not torch.isfinite(sample).all() or _USUAL[0] <= spread <= _USUAL[1] or spread == 0:
        return False
    scheme = tuned_as(item.scheme.type) if item.scheme.type else item.scheme
    if not loses_levels(sample, scheme):
        return False
    # Rows differ: where others carry the layer, those of the sample do not matter.
    return loses_levels(store.get(name) if whole is None else whole, scheme)


def _error(weight: Tensor, scheme: LayerScheme) -> float:
    rounded = torch.empty_like(weight)
    quantize_into(new_grid(weight, scheme), rounded)
    return float((rounded - weight).double().norm())
