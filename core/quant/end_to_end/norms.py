"""The weights of norms that the end-to-end stage learns.

All outputs keep these tensors in the dtype of the source. Each pass uses the values that this dtype represents, as
the scales of layers are float16 values in each pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.formats.stored import FormatPlan
from core.model.skeleton import Skeleton
from core.quant.end_to_end.adam import Adam


@dataclass
class LearnedNorm:
    """The weight of a norm.

    Attributes:
        parameter: name in the model.
        tensor: name in the checkpoint.
        start: the tensor of the checkpoint.
        value: float32, the present weight before it is rounded to the dtype of the checkpoint.
        adam: state of the optimizer.
    """

    parameter: str
    tensor: str
    start: Tensor
    value: Tensor
    adam: Adam

    @property
    def stored(self) -> Tensor:
        """The weight as it is written, in the dtype of the checkpoint."""
        return self.value.to(self.start.dtype)

    def place(self, skeleton: Skeleton) -> nn.Parameter:
        """Return the parameter of the model with the values of `stored`, which is in the model afterwards."""
        return place(skeleton, self.parameter, self.stored)


def place(skeleton: Skeleton, parameter: str, values: Tensor) -> nn.Parameter:
    """Replace a parameter of the model by a float32 copy of `values`, and return it."""
    made = nn.Parameter(values.float(), requires_grad=False)
    skeleton.replace(parameter, made)
    return made


@contextlib.contextmanager
def norms_in_place(skeleton: Skeleton, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace loaded parameters of the model by others for the duration of the context."""
    before = {name: skeleton.model.get_parameter(name) for name in values}
    for name, value in values.items():
        place(skeleton, name, value)
    try:
        yield
    finally:
        for name, parameter in before.items():
            skeleton.replace(name, parameter)


def norm_names(skeleton: Skeleton, below: str) -> list[str]:
    """Return the parameters of the model that are weights of norms.

    Args:
        below: path of a block; "" for the modules outside the blocks.
    """
    found = []
    for path, module in skeleton.model.named_modules():
        inside = path.startswith(f"{below}.") if below else not path.startswith(f"{skeleton.stack}.")
        if not inside or "norm" not in type(module).__name__.lower():
            continue
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 1:
            found.append(f"{path}.weight")
    return found


def learned_norms(
    skeleton: Skeleton, below: str, formats: Iterable[FormatPlan], device: torch.device
) -> list[LearnedNorm]:
    """Return the norms of a block, or those outside the blocks, that all outputs copy from the source."""
    copied = [frozenset(plan.copied) - plan.rounded.keys() for plan in formats]
    found = []
    for name in norm_names(skeleton, below):
        tensor = skeleton.checkpoint_name(name)
        if tensor is None or not all(tensor in names for names in copied):
            continue
        dtype = skeleton.store.dtype(tensor)
        if dtype.is_floating_point and dtype.itemsize > 1:
            start = skeleton.store.get(tensor)
            value = start.to(device, torch.float32, copy=True)
            found.append(LearnedNorm(name, tensor, start, value, Adam(value)))
    return found
