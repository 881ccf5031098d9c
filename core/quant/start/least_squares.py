"""Least-squares fit of the scales of all groups of a row together, given the levels."""

from __future__ import annotations

import torch
from torch import Tensor

from core.quant.start.levels import Levels, damped_diagonal, damping, row_chunks

DAMPING = 0.003
_RIDGE = 1e-4
"""Share of the mean diagonal of the normal equations that is added to it; it pulls towards the present scales."""


@torch.no_grad()
def products(weight: Tensor, gram: Tensor) -> Tensor:
    """Return the products G w of all rows w of a weight with the damped Gram matrix, float32 [out, in].

    They are the same for every fit of the scales of a layer.
    """
    return (weight @ gram).addcmul_(weight, damped_diagonal(gram, DAMPING) - gram.diagonal())


@torch.no_grad()
def fit_scales(weight: Tensor, found: Levels, gram: Tensor, aims: Tensor | None = None) -> Levels:
    """Return the same levels with the scales that minimize the squared error of the outputs.

    With X_a the centered levels of group a in a row w, the scales s solve A s = b with A_ab = X_a G X_b^T and
    b_a = X_a G w^T. Scales that become zero or not finite keep their values. The result is not rounded to float16.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
        aims: the result of `products`; None to compute it.
    """
    (out, width), group = weight.shape, found.group
    groups = width // group
    scales = found.scale.clone()
    aims = products(weight, gram) if aims is None else aims
    with damping(gram, DAMPING):
        for rows in row_chunks(out, 4 * width + 2 * groups * groups):
            levels = found.centered(rows)
            by_group = levels.view(-1, groups, group)
            present = found.scale[rows]
            normal = torch.empty(len(levels), groups, groups, device=weight.device)
            for number in range(groups):
                part, until = slice(number * group, (number + 1) * group), number + 1  # A is symmetric
                product = (levels[:, part] @ gram[part, : part.stop]).view(-1, until, group)
                values = (product * by_group[:, :until]).sum(-1)
                normal[:, number, :until] = values
                normal[:, :until, number] = values
            diagonal = normal.diagonal(dim1=1, dim2=2)
            diagonal.add_(_RIDGE * diagonal.mean(-1, keepdim=True) + 1e-30)
            aim = (aims[rows].view_as(by_group) * by_group).sum(-1)
            missing = aim.unsqueeze(-1) - normal @ present.unsqueeze(-1)
            solved, _ = torch.linalg.solve_ex(normal, missing)
            fitted = present + solved.squeeze(-1)
            usable = fitted.isfinite() & (fitted.abs() > 1e-8 * present.abs())
            scales[rows] = torch.where(usable, fitted, present)
    return Levels(found.scheme, found.levels, scales, found.zero)
