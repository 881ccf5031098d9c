"""Least-squares fit of the scales of all groups of a row together, given the levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

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

    The result is not rounded to float16. Scales that become zero or not finite keep their values.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
        aims: the result of `products`; None to compute it.
    """
    out, width = weight.shape
    scales = found.scale.clone()
    aims = products(weight, gram) if aims is None else aims
    with damping(gram, DAMPING):
        for rows in fit_chunks(out, width, scales.shape[1]):
            (scales[rows],) = fit(aims[rows], [found.centered(rows)], [found.scale[rows]], gram)
    return replace(found, scale=scales)


def fit_chunks(out: int, width: int, unknowns: int) -> Iterator[slice]:
    """Return slices of rows for which `fit` with so many unknowns per row needs little memory."""
    return row_chunks(out, 4 * width + 2 * unknowns * unknowns)


@torch.no_grad()
def fit(aims: Tensor, bases: Sequence[Tensor], present: Sequence[Tensor], gram: Tensor) -> list[Tensor]:
    """Return the coefficients c of least error of the outputs for rows that are sums of c times a basis, by part.

    A row is divided into equal parts, and each basis has a coefficient for each part. With X_a a part of a basis,
    the coefficients of a row w solve A c = b with A_ab = X_a G X_b^T and b_a = X_a G w^T. Coefficients that become
    zero or not finite keep their values.

    Args:
        aims: G w of the rows, float32 [rows, in], from `products`.
        bases: float32 [rows, in] each.
        present: float32 [rows, parts], present coefficients of each basis.
        gram: float32 [in, in], damped.
    """
    (count, width), parts = aims.shape, present[0].shape[1]
    size, total = width // parts, parts * len(bases)
    normal = torch.empty(count, total, total, device=aims.device)
    views = [basis.view(count, parts, size) for basis in bases]
    aim = torch.cat([(aims.view(count, parts, size) * view).sum(-1) for view in views], -1)
    for one, basis in enumerate(bases):
        for part in range(parts):
            inside, until = slice(part * size, (part + 1) * size), part + 1  # A is symmetric
            product = (basis[:, inside] @ gram[inside, : inside.stop]).view(count, until, size)
            for other, view in enumerate(views):
                values = (product * view[:, :until]).sum(-1)
                columns = slice(other * parts, other * parts + until)
                normal[:, one * parts + part, columns] = values
                normal[:, columns, one * parts + part] = values
    held = torch.cat(list(present), -1)
    missing = aim.unsqueeze(-1) - normal @ held.unsqueeze(-1)
    for one in range(len(bases)):
        inside = slice(one * parts, (one + 1) * parts)
        diagonal = normal[:, inside, inside].diagonal(dim1=1, dim2=2)
        diagonal.add_(_RIDGE * diagonal.mean(-1, keepdim=True) + 1e-30)
    solved, _ = torch.linalg.solve_ex(normal, missing)
    fitted = held + solved.squeeze(-1)
    usable = fitted.isfinite() & (fitted.abs() > 1e-8 * held.abs())
    return list(torch.where(usable, fitted, held).split(parts, -1))
