"""The measures of sensitivity: the loss increase of one layer under one scheme, from its captured activations.

`fisher`: second-order increase of the loss. At the original weights, the Hessian of the KL divergence between the
predictions of two models is the Fisher information matrix: the expected outer product of the gradients, for labels
sampled from the predictions of the model itself (Martens 2020, "New Insights and Perspectives on the Natural Gradient
Method", section 5). For a layer y = W x with weight error dW and output gradients g, this gives 1/2 E[(g . dW x)^2] per
token, if the contributions of different tokens are assumed to be independent. It needs one matrix product per scheme.

`first-order`: sum |dL/dW * dW| with the gradient of the loss on the text, as in the AutoScheme of auto-round.

`output`: E|dW x|^2 / E|W x|^2, from the mean squares of the inputs and outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.quant.grid import new_grid
from core.schemes import LayerScheme
from core.sensitivity.passes import CapturedActivations

TUNED = 0.4
"""Ratio of the loss increase after tuning to the one of rounding to nearest: 0.28 to 0.48 in six runs of the demo model
(uniform and mixed maps of 2.3 to 4.3 bits per weight, SignRound with 40 iterations of 2 sequences of 256 tokens). As it
is the same for all layers, it does not affect the allocation."""


def error_of(weight: Tensor, scheme: LayerScheme) -> Tensor:
    """Return the error of a weight [out, in] after rounding to nearest, in float32."""
    rounded = torch.empty_like(weight, dtype=torch.float32)
    new_grid(weight, scheme).quantize_into(rounded)
    return rounded.sub_(weight.float())


def fisher(activations: CapturedActivations, error: Tensor) -> float:
    """Return the predicted loss increase of rounding to nearest, in nats per token."""
    output_error = activations.inputs @ error.to(activations.inputs.dtype).T
    projection = (output_error.float() * activations.gradients.float()).sum(-1)
    return 0.5 * float(projection.square().sum()) / activations.tokens


def first_order(activations: CapturedActivations, error: Tensor) -> float:
    """Return the sum of the absolute first-order terms, in nats per token."""
    gradient = activations.gradients.T @ activations.inputs
    return float((gradient.float() * error).abs().sum()) / activations.tokens


def output(activations: CapturedActivations, weight: Tensor, error: Tensor) -> float:
    """Return the relative error of the layer's output: mean square of the error over mean square of the output."""
    squares = activations.inputs.float().square().mean(0)
    size = (activations.inputs @ weight.to(activations.inputs.dtype).T).float().square().mean(0).sum()
    return float((error.square() @ squares).sum() / size.clamp(min=1e-30))
