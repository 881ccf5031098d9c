"""Quantization of the output head, after the last block, on the activations of the quantized model.

Its scales are found by search, weighted by the mean square of each input over the calibration text. Its weights are
then rounded one input at a time, and each rounding error is compensated by the remaining inputs (OPTQ, arXiv
2210.17323). This reduces the error of the logits in closed form; tuning by gradients would need the logits of the
whole vocabulary at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, VerificationFailed
from core.formats.stored import StoredLayer
from core.model.block_runner import logits
from core.model.tree import LayerPlan
from core.model.weights import read_linear
from core.quant.blocks import BlockJob, precision
from core.quant.grid import Grid, new_grid
from core.quant.rtn import search_scale, searchable
from core.quant.sample_activations import SampleActivations

_DAMPING = 0.01
"""Fraction of the mean of the diagonal that is added to the diagonal (damping, as in the paper)."""
_BLOCK = 64
"""Inputs per block: the rest of the row is updated after each block."""
_EVERY = 10
"""Only every tenth candidate for a scale is tried, because the head is much larger than other layers."""
_WEIGHTS = 1 << 22
"""Weights per chunk of rows."""


class _InputRecorder(nn.Module):
    """A replacement of the head that sums the second moments of its inputs, float32 [in, in]."""

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.moments = torch.zeros(width, width, device=device)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        self.moments.addmm_(flat.T, flat)
        self.count += len(flat)
        return x[..., :1]


def quantize_head(job: BlockJob, item: LayerPlan, activations: SampleActivations) -> StoredLayer:
    """Quantize the head with the scheme of its plan, on the outputs of the last block of the quantized model.

    With plain rounding (RTN), which uses no calibration text, the head is rounded to nearest as well.

    Raises:
        Cancelled: a stop was requested.
        CorruptFile: the files of the model changed during the run.
    """
    skeleton, name = job.skeleton, item.linear.name
    weight = read_linear(skeleton.store, skeleton.tree, item.linear).to(job.resolved.torch_device)
    if not job.spec.recipe.reads_text:
        return new_grid(weight, item.scheme, min_zero=job.min_zero).freeze(name)
    moments = input_moments(job, activations, item.linear.in_features)
    searched = None
    if searchable(item.scheme):
        searched = search_scale(weight, item.scheme, moments.diagonal(), every=_EVERY)
    grid = new_grid(
        weight, item.scheme, min_zero=job.min_zero, searched=searched, importance=moments.diagonal().contiguous()
    )
    return round_with_feedback(grid, name, moments, job.should_stop)


def input_moments(job: BlockJob, activations: SampleActivations, width: int) -> Tensor:
    """Return the mean of x x^T over the inputs x of the head for all tokens, float32 [in, in].

    Raises:
        VerificationFailed: the result is not finite.
        Cancelled: a stop was requested.
    """
    skeleton, device = job.skeleton, job.resolved.torch_device
    path = skeleton.head()
    head = skeleton.model.get_submodule(path)
    recorder = _InputRecorder(width, device)
    skeleton.model.set_submodule(path, recorder)
    try:
        for part in activations.slices():
            if job.should_stop():
                raise Cancelled("The run was cancelled.")
            hidden = job.chain.rows_back(activations.quantized.hidden.read(part, device))
            carried = activations.carried(job.chain, len(job.chain.layouts), part, "quantized", device)
            with precision(job.resolved):
                logits(job.chain, hidden, activations.tokens[part], carried)
    finally:
        skeleton.model.set_submodule(path, head)
    if not torch.isfinite(recorder.moments).all():
        raise VerificationFailed(
            "The inputs of the output head are not finite (NaN or infinity).", "Use more bits or another recipe."
        )
    return recorder.moments / recorder.count


@torch.no_grad()
def round_with_feedback(grid: Grid, name: str, moments: Tensor, should_stop: ShouldStop) -> StoredLayer:
    """Round the weights of a grid; the error of each input is distributed over the inputs that follow (OPTQ).

    Args:
        moments: mean of x x^T over the inputs x, float32 [in, in].
    """
    out, width = grid.weight.shape
    factor = _inverse_factor(moments)
    integers = torch.empty(out, width, dtype=torch.uint8)
    store = grid.scheme.levels // 2 if grid.scheme.sym else 0
    rows = max(1, _WEIGHTS // width)
    for start in range(0, out, rows):
        if should_stop():
            raise Cancelled("The run was cancelled.")
        part = slice(start, start + rows)
        weight = grid.weight[part].float()
        if grid.base is not None:
            weight = (weight.view(len(weight), -1, grid.group) - grid.base[part].unsqueeze(-1)).flatten(1)
        levels = _levels_with_feedback(
            weight.T.contiguous(), grid.scale[part].T.contiguous(), grid.shift[part].T.contiguous(),
            factor, grid.group, grid.bounds,
        )  # fmt: skip
        integers[part] = levels.add_(store).to(torch.uint8).T.cpu()
    return grid.stored(name, integers)


def _levels_with_feedback(
    left: Tensor, scales: Tensor, shifts: Tensor, factor: Tensor, group: int, bounds: tuple[int, int]
) -> Tensor:
    """Return the levels [in, rows] of weights [in, rows] less their bases; overwrites the weights.

    For input i with error e_i = (w_i - q_i) / U_ii, every later input j becomes w_j - U_ij e_i (OPTQ, algorithm 1).
    The weights are transposed, so that the memory of one input is contiguous.

    Args:
        left: weights less their bases.
        scales, shifts: [groups, rows].
        factor: upper Cholesky factor U of the inverse moments, [in, in].
    """
    width, levels = len(left), torch.empty_like(left)
    errors = torch.empty(_BLOCK, left.shape[1], device=left.device)
    for first in range(0, width, _BLOCK):
        last = min(width, first + _BLOCK)
        for place in range(first, last):
            scale, shift = scales[place // group], shifts[place // group]
            level = torch.div(left[place], scale, out=levels[place]).round_().add_(shift).clamp_(*bounds)
            error = torch.sub(level, shift, out=errors[place - first]).mul_(-scale).add_(left[place])
            error.div_(factor[place, place])
            left[place + 1 : last].addr_(factor[place, place + 1 : last], error, alpha=-1)
        left[last:].addmm_(factor[first:last, last:].T, errors[: last - first], alpha=-1)
    return levels


def _inverse_factor(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped moments, float32 [in, in]."""
    damped = moments.double() if moments.device.type == "cpu" else moments.clone()
    diagonal = damped.diagonal()
    diagonal += _DAMPING * diagonal.mean().clamp(min=1e-12)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()
