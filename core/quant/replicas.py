"""Replicas of a block on further devices, each of which computes a share of the samples of a forward pass.

The grids and the tuned parameters are on the first device. Each pass copies the parameters to the other devices, and
the backward pass adds the gradients of all devices, in the order of the devices, before a parameter is stepped. So all
replicas have the same values in every pass, and the result equals that of one device except for the order of sums.

The devices are driven by threads of one process, and autograd has a thread for each device. So the grids, their start
and the activations exist once, and no library for communication between processes is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from core.inference.current_device import current_device
from core.model.block_runner import BlockCall

Run = Callable[[Callable[..., Any], Tensor, BlockCall], Tensor]
"""Runs a block on hidden states, and returns its output with the batch in the first dimension."""


class Replicas:
    """A block on several devices.

    Args:
        module: the block, with all its weights on the first device.
        tuned: its parameters that change.
        devices: the first is that of the block. A device may be named more than once.
    """

    def __init__(self, module: nn.Module, tuned: Sequence[Tensor], devices: Sequence[torch.device]) -> None:
        self.devices = tuple(devices)
        self._tuned = list(tuned)
        numbers = {id(parameter): number for number, parameter in enumerate(self._tuned)}
        self._names = {
            f"{path}.{name}".removeprefix("."): numbers[id(parameter)]
            for path, part in module.named_modules()  # each once: functional_call would not restore one under two names
            for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False)
            if id(parameter) in numbers
        }
        self._modules = [module, *(_copied(module, set(numbers), device) for device in self.devices[1:])]
        self._calls: dict[int, tuple[BlockCall, BlockCall]] = {}
        self._pool = ThreadPoolExecutor(max_workers=len(self.devices), thread_name_prefix="replica")

    def outputs(self, inputs: Sequence[tuple[Tensor, BlockCall]], run: Run) -> Tensor:
        """Return the outputs of the block for the parts of a batch, joined on the first device.

        Args:
            inputs: hidden states and arguments, at most one part for each device.
            run: runs the block of one device; called in a thread for each device.
        """
        parameters = [_Copies.apply(parameter, self.devices) for parameter in self._tuned]
        grad = torch.is_grad_enabled()

        def work(number: int) -> Tensor:
            device, (hidden, call) = self.devices[number], inputs[number]
            values = {name: parameters[at][number] for name, at in self._names.items()}

            def block(*args: Any, **kwargs: Any) -> Any:
                return functional_call(self._modules[number], values, args, kwargs, tie_weights=False)

            with current_device(device), torch.set_grad_enabled(grad):  # both are settings of a thread
                return run(block, hidden.to(device), self._call_on(number, call)).to(self.devices[0])

        return torch.cat(list(self._pool.map(work, range(len(inputs)))))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _call_on(self, number: int, call: BlockCall) -> BlockCall:
        """Return the arguments of a block on a device; those that are the same in each pass are copied once."""
        if number not in self._calls or self._calls[number][0] is not call:
            self._calls[number] = (call, _moved(call, self.devices[number]))
        return self._calls[number][1]


class _Copies(torch.autograd.Function):
    """A parameter on each device. Its gradient is the sum of those of the copies, in the order of the devices."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, devices: Sequence[torch.device]) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.device = parameter.device
        return (parameter.view_as(parameter), *(parameter.to(device, copy=True) for device in devices[1:]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        total: Tensor | None = None
        for gradient in gradients:
            if gradient is not None:
                moved = gradient.to(ctx.device)
                total = moved if total is None else total + moved
        return total, None


def _copied(module: nn.Module, tuned: set[int], device: torch.device) -> nn.Module:
    """Return a copy of a block on a device; its tuned parameters, given by `id`, have no memory."""
    known: dict[int, Any] = {}
    for parameter in module.parameters():
        place = torch.device("meta") if id(parameter) in tuned else device
        known[id(parameter)] = nn.Parameter(parameter.detach().to(place), requires_grad=False)
    for part in module.modules():
        for value in (*vars(part).values(), *part.buffers(recurse=False)):
            if isinstance(value, Tensor):
                known.setdefault(id(value), value.to(device))
    return copy.deepcopy(module, known)


def _moved(call: BlockCall, device: torch.device) -> BlockCall:
    args, kwargs = pytree.tree_map_only(Tensor, lambda value: value.to(device), (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs)
