"""The calibration text through the whole model and its gradients back, one block at a time.

Forward, the hidden states that enter each block are kept in a file; backward, each block is run again with gradients.
So no more than one block is in memory, whatever the depth. Weights get no gradients: what a layer's weights do to the
loss follows from its inputs and the gradients of its outputs, which is what is handed out. Knows no schemes and no
loss increase.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, CorruptFile
from core.model.block_runner import BlockCall, capture, first_inputs, logits, only_rows, products_in
from core.model.skeleton import Skeleton
from core.quant.activations import Activations
from core.sensitivity.states import HiddenStates

_CHUNK = 128
"""Tokens scored at once: the logits of a long text over a large vocabulary outweigh a block."""


@dataclass(frozen=True)
class CapturedActivations:
    """What a linear layer met on the way.

    Attributes:
        inputs: [tokens, in].
        gradients: of the summed loss with respect to its outputs, [tokens, out]; empty on a way forward alone.
    """

    inputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class Pass:
    """A text on its way through a model.

    Attributes:
        tokens: int64 [samples, tokens].
        states: what enters each block by its number, and last what leaves the last one; filled by `forward`. Inputs and
            gradients of layers are held in the same dtype.
        batch: samples at once.
        step: told after each block of each way.
    """

    skeleton: Skeleton
    tokens: Tensor
    states: HiddenStates
    calls: list[BlockCall]
    device: torch.device
    dtype: torch.dtype
    batch: int
    should_stop: ShouldStop
    step: Callable[[], None]

    def slices(self) -> Iterator[slice]:
        return (slice(start, start + self.batch) for start in range(0, len(self.tokens), self.batch))


@contextlib.contextmanager
def enter(
    skeleton: Skeleton,
    tokens: Tensor,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    should_stop: ShouldStop,
    step: Callable[[], None],
) -> Iterator[Pass]:
    """The text at the door of the first block.

    Args:
        folder: for the file of hidden states.
        dtype: of matrix products; the residual stream stays fp32.
    """
    skeleton.fill("", torch.float32, device, skip=(skeleton.stack, *skeleton.ends()))
    kept = torch.float32 if dtype == torch.float32 else torch.bfloat16  # fp16 has too little range for gradients
    with contextlib.ExitStack() as open_files:
        with only_rows(skeleton, tokens, torch.float32, device):
            calls = capture(skeleton, tokens[:1], device)
            width = first_inputs(skeleton, tokens[:1], device).shape[-1]
            states = open_files.enter_context(HiddenStates((len(tokens), tokens.shape[1], width), kept, folder))
            way = Pass(skeleton, tokens, states, calls, device, dtype, batch, should_stop, step)
            for part in way.slices():
                states.write(0, part, first_inputs(skeleton, tokens[part], device))
        yield way


def forward(way: Pass, visit: Callable[[Mapping[str, CapturedActivations]], None] | None = None) -> None:
    """Fill the states behind every block.

    Args:
        visit: gets the inputs of the linears of each block, by name in the checkpoint; gradients are empty.
    """
    for block in range(way.skeleton.tree.blocks):
        with _filled(way, block) as module, torch.no_grad():
            gathered: dict[str, list[CapturedActivations]] = {}
            for part in way.slices():
                with _watched(way, block) as met, products_in(way.dtype, way.device):
                    after = way.calls[block](module, way.states.read(block, part, way.device))
                way.states.write(block + 1, part, after)
                if visit is not None:
                    for name, (inputs, outputs) in met.items():
                        gathered.setdefault(name, []).append(
                            CapturedActivations(_rows(way, inputs), outputs.new_empty(0))
                        )
            if visit is not None:
                visit(_joined(gathered))
        way.step()


def backward(
    way: Pass, labels: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[tuple[int, dict[str, CapturedActivations]]]:
    """From the last block to the first, what its linears met.

    Args:
        labels: from logits [tokens, vocabulary] and the tokens that follow ([tokens], -1 behind the last) the labels
            whose negative log-likelihood, summed, is the loss; -1: none.
    """
    gradient = _gradient_at_head(way, labels)
    for block in range(way.skeleton.tree.blocks - 1, -1, -1):
        gathered: dict[str, list[CapturedActivations]] = {}
        with _filled(way, block) as module:
            for part in way.slices():
                hidden = way.states.read(block, part, way.device).requires_grad_(True)
                with _watched(way, block) as met, torch.enable_grad():
                    with products_in(way.dtype, way.device):
                        after = way.calls[block](module, hidden)
                    outputs = [output for _, output in met.values()]
                    # A copy: the gradient of a layer that is only added to the stream is this very tensor.
                    behind = gradient.read(part, way.device).clone()
                    found = torch.autograd.grad(after, [hidden, *outputs], behind)
                gradient.write(part, found[0])
                for (name, (inputs, _)), at_output in zip(met.items(), found[1:], strict=True):
                    gathered.setdefault(name, []).append(CapturedActivations(_rows(way, inputs), _rows(way, at_output)))
        yield block, _joined(gathered)
        way.step()


def _gradient_at_head(way: Pass, labels: Callable[[Tensor, Tensor], Tensor]) -> Activations:
    """Gradient of the loss with respect to what leaves the last block."""
    skeleton, last = way.skeleton, way.skeleton.tree.blocks
    gradient = Activations(way.states.shape, torch.float32)
    path = skeleton.head()
    skeleton.fill(path, way.dtype, way.device)
    try:
        for row in range(len(way.tokens)):
            _check_stop(way)
            following = torch.full_like(way.tokens[row], -1)
            following[:-1] = way.tokens[row, 1:]
            state = way.states.read(last, slice(row, row + 1), way.device)
            for start in range(0, len(following), _CHUNK):
                part = slice(start, start + _CHUNK)
                hidden = state[:, part].clone().requires_grad_(True)
                with torch.enable_grad(), products_in(way.dtype, way.device):
                    scores = _checked(logits(skeleton, hidden)[0].float())
                    wanted = labels(scores.detach(), following[part].to(way.device))
                    loss = nn.functional.cross_entropy(scores, wanted, ignore_index=-1, reduction="sum")
                (found,) = torch.autograd.grad(loss, hidden)
                gradient.data[row, part] = found[0].to(gradient.data)
    finally:
        skeleton.unload(path)
    return gradient


@contextlib.contextmanager
def _filled(way: Pass, block: int) -> Iterator[nn.Module]:
    """One block with its weights: those of its linears in the dtype of products, the rest in fp32."""
    _check_stop(way)
    path = f"{way.skeleton.stack}.{block}"
    names = [way.skeleton.module_name(linear.name) for linear in way.skeleton.tree.of_block(block)]
    module = way.skeleton.fill(path, torch.float32, way.device, skip=tuple(names))
    for name in names:
        way.skeleton.fill(name, way.dtype, way.device)
    try:
        yield module
    finally:
        way.skeleton.unload(path)


@contextlib.contextmanager
def _watched(way: Pass, block: int) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Inputs and outputs of the block's linears in one pass, by their names in the checkpoint."""
    _check_stop(way)
    met: dict[str, tuple[Tensor, Tensor]] = {}

    def watcher(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def watch(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            met[name] = args[0].detach(), output

        return watch

    hooks = [
        way.skeleton.model.get_submodule(way.skeleton.module_name(linear.name)).register_forward_hook(
            watcher(linear.name)
        )
        for linear in way.skeleton.tree.of_block(block)
    ]
    try:
        yield met
    finally:
        for hook in hooks:
            hook.remove()


def _rows(way: Pass, value: Tensor) -> Tensor:
    """[..., width] as [tokens, width], checked and in the dtype that is kept."""
    return _checked(value.reshape(-1, value.shape[-1]).to(way.states.dtype))


def _checked(value: Tensor) -> Tensor:
    if not torch.isfinite(value).all():
        raise CorruptFile("The model computes values that are not finite.", "Fetch the model again.")
    return value


def _joined(gathered: Mapping[str, list[CapturedActivations]]) -> dict[str, CapturedActivations]:
    return {
        name: CapturedActivations(
            torch.cat([part.inputs for part in parts]), torch.cat([part.gradients for part in parts])
        )
        for name, parts in gathered.items()
    }


def _check_stop(way: Pass) -> None:
    if way.should_stop():
        raise Cancelled("The analysis was cancelled.")
