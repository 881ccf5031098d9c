"""Detection of layers whose weights are too small or too large for float16 scales, from a sample of rows.

All formats store scales as float16, whose smallest positive value is 2^-24: layers with weights of about 1e-6 or less
lose levels, and those with weights above 10^7 are clipped. Such layers stay in 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.formats.gguf.mixes import tuned_as
from core.model.tree import LayerPlan, ModelTree
from core.model.weights import TensorStore, read_linear
from core.quant.grid import new_grid
from core.schemes import UNTOUCHED, LayerScheme

_ROWS = 16
"""Number of sampled rows."""
_USUAL = (1e-4, 1e4)
"""Range of the root mean square of weights in which float16 scales are always sufficient."""
_GROWTH = 1.25
"""Minimum ratio of the rounding error to that of the same weights scaled to the middle of the range, from which levels
count as lost. With a ratio of 2.0, two thirds of them are lost."""
_SHARE = 0.002
"""Minimum increase of the rounding error, as a fraction of the norm of the weights."""


def within_float16(tree: ModelTree, plans: Sequence[LayerPlan], store: TensorStore) -> Sequence[LayerPlan]:
    """Return the plans with 16 bits, and the reason, for each layer whose scales exceed the range of float16."""
    changed, usual = {}, set[str]()
    for number, item in enumerate(plans):
        part = item.linear.part
        stacked = part.tensor if part is not None and part.expert is not None else ""
        if not item.scheme.quantized or stacked in usual:
            continue
        found = _out_of_range(tree, item, store)
        if stacked and not found:
            usual.add(stacked)  # all experts in one tensor have weights of similar size
        if found:
            reason = "its weights are too small or too large for float16 scales: left in 16 bits"
            changed[number] = replace(item, scheme=LayerScheme(bits=UNTOUCHED), fallback=reason)
    return [changed.get(number, item) for number, item in enumerate(plans)] if changed else plans


def loses_levels(weight: Tensor, scheme: LayerScheme) -> bool:
    """Return whether rounding a weight [rows, in] has a larger relative error than rounding it scaled to about 1."""
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
    linear = item.linear
    name, height = tree.weight_of(linear), linear.out_features
    whole = None
    if linear.transposed or (linear.part is not None and linear.part.expert is not None):
        whole = read_linear(store, tree, linear).float()
        sample = whole[torch.arange(_ROWS) * height // _ROWS]
    else:
        sample = store.rows(name, torch.arange(min(_ROWS, height)) * height // min(_ROWS, height)).float()
    spread = float(sample.square().mean().sqrt())
    if not torch.isfinite(sample).all() or _USUAL[0] <= spread <= _USUAL[1] or spread == 0:
        return False
    scheme = tuned_as(item.scheme.type) if item.scheme.type else item.scheme
    if not loses_levels(sample, scheme):
        return False
    # The sampled rows may be exceptions, so the whole layer decides.
    return loses_levels(store.get(name) if whole is None else whole, scheme)


def _error(weight: Tensor, scheme: LayerScheme) -> float:
    rounded = torch.empty_like(weight)
    new_grid(weight, scheme).quantize_into(rounded)
    return float((rounded - weight).double().norm())
