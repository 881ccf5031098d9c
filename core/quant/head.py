"""Quantization of the output head, after the last block, on the activations of the quantized model.

It gets the start of a layer (`core.quant.start`) in parts of its rows, which needs only the second moments of its
inputs over the calibration text; tuning by gradients would need the logits of the whole vocabulary at every step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, VerificationFailed
from core.formats.stored import StoredLayer
from core.model.block_runner import logits
from core.model.tree import LayerPlan
from core.model.weights import read_linear
from core.quant.blocks import BlockJob, precision
from core.quant.grid import new_grid
from core.quant.level_grid import level_grid
from core.quant.sample_activations import SampleActivations
from core.quant.start.feedback import error_factors
from core.quant.start.layer import start_layer
from core.quant.start.levels import joined_levels
from core.schemes import LayerScheme

_OPERATIONS = 1 << 31
"""Weights times inputs of the rows that are started at once, about a second on a CPU; between them a run can stop."""


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
        return new_grid(weight, item.scheme, min_zero=job.min_zero, importance=job.importance.get(name)).freeze(name)
    moments = input_moments(job, activations, item.linear.in_features)
    return round_head(weight, name, item.scheme, moments, job.min_zero, job.should_stop)


@torch.no_grad()
def round_head(
    weight: Tensor, name: str, scheme: LayerScheme, moments: Tensor, min_zero: int, should_stop: ShouldStop
) -> StoredLayer:
    """Return the quantized weight of a head.

    Args:
        weight: [out, in], in any float dtype.
        moments: mean of x x^T over the inputs x, float32 [in, in].
        min_zero: smallest zero point that the output format can store.

    Raises:
        Cancelled: a stop was requested.
    """
    factors = error_factors(moments)
    parts = [
        start_layer(weight[rows].float(), scheme, moments, min_zero, factors).levels
        for rows in _chunks(weight, should_stop)
    ]
    return level_grid(joined_levels(parts)).freeze(name)


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


def _chunks(weight: Tensor, should_stop: ShouldStop) -> Iterator[slice]:
    """Yield slices of the rows of a weight [out, in] of about `_OPERATIONS` each.

    Raises:
        Cancelled: a stop was requested.
    """
    out, width = weight.shape
    step = max(1, _OPERATIONS // width**2)
    for first in range(0, out, step):
        if should_stop():
            raise Cancelled("The run was cancelled.")
        yield slice(first, min(out, first + step))
