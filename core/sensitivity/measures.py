"""From what a layer met to the loss increase of a scheme. Knows one layer at a time.

`fisher`: the growth of the loss to second order. Where two models agree, the Hessian of the divergence between their
predictions is the Fisher information: the expected outer product of gradients, for labels drawn from the model's own
predictions (Martens 2020, "New Insights and Perspectives on the Natural Gradient Method", section 5). For a layer
y = W x with error dW and such gradients g that is 1/2 E[(g . dW x)^2] a token, when what different tokens do is taken
as independent. One product a scheme.

`first-order`: sum |dL/dW * dW| with the gradient of the text's own loss, as auto-round's AutoScheme scores layers.

`output`: E|dW x|^2 / E|W x|^2, from the mean squares of inputs and outputs alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.quant.grid import new_grid, quantize_into
from core.schemes import LayerScheme
from core.sensitivity.passes import CapturedActivations

TUNED = 0.4
"""Share of the loss increase of plain rounding that tuning leaves: 0.28 to 0.48 in six runs of the demo model (uniform
and mixed maps of 2.3 to 4.3 bits a weight, recipe `quick`). The same for all layers, so that it decides nothing."""


def error_of(weight: Tensor, scheme: LayerScheme) -> Tensor:
    """What rounding to nearest does to a weight [out, in], fp32."""
    rounded = torch.empty_like(weight, dtype=torch.float32)
    quantize_into(new_grid(weight, scheme), rounded)
    return rounded.sub_(weight.float())


def fisher(activations: CapturedActivations, error: Tensor) -> float:
    """Predicted growth of the loss in nats a token, before any tuning."""
    output_error = activations.inputs @ error.to(activations.inputs.dtype).T
    projection = (output_error.float() * activations.gradients.float()).sum(-1)
    return 0.5 * float(projection.square().mean())


def first_order(activations: CapturedActivations, error: Tensor) -> float:
    """Sum of the absolute first-order terms in nats a token."""
    gradient = activations.gradients.T @ activations.inputs
    return float((gradient.float() * error).abs().sum()) / len(activations.inputs)


def output(activations: CapturedActivations, weight: Tensor, error: Tensor) -> float:
    """Error of the layer's output as a share of its size."""
    squares = activations.inputs.float().square().mean(0)
    size = (activations.inputs @ weight.to(activations.inputs.dtype).T).float().square().mean(0).sum()
    return float((error.square() @ squares).sum() / size.clamp(min=1e-30))
