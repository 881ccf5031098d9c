"""Forward and backward pass of the calibration text through the whole model, one block at a time.

The forward pass stores the hidden states that enter each block in a file. The backward pass runs each block again with
gradients. So only one block is in memory at a time. Weights get no gradients: the effect of a layer's weights on the
loss follows from its inputs and the gradients of its outputs, which are captured.
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
"""Number of tokens whose logits are computed at once: those of a long text and a large vocabulary exceed a block."""


@dataclass(frozen=True)
class CapturedActivations:
    """The inputs of a linear layer and the gradients of its outputs.

    Attributes:
        inputs: [tokens, in].
        gradients: Gradients of the summed loss with respect to the outputs, [tokens, out]; empty without a backward
            pass.
    """

    inputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class Pass:
    """A block-by-block pass of a text through a model.

    Attributes:
        tokens: int64 [samples, tokens].
        states: Inputs of each block by its number, then the outputs of the last block; filled by `forward`. Inputs and
            gradients of layers are stored in the same dtype.
        calls: The call of each block, with its other arguments.
        device, dtype: Device and dtype of matrix products.
        batch: Number of samples per batch.
        step: Called after each block of each pass.
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
        """Return the slices of the samples, one per batch."""
        return (slice(start, start + self.batch) for start in range(0, len(self.tokens), self.batch))


@contextlib.contextmanager
def open_pass(
    skeleton: Skeleton,
    tokens: Tensor,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    should_stop: ShouldStop,
    step: Callable[[], None],
) -> Iterator[Pass]:
    """Open a pass and compute the inputs of the first block.

    Args:
        tokens: int64 [samples, tokens].
        folder: Folder for the file of hidden states.
        dtype: Dtype of matrix products; the residual stream is float32.
        batch: Number of samples per batch.
        step: Called after each block of each pass.
    """
    skeleton.fill("", torch.float32, device, skip=(skeleton.stack, *skeleton.ends()))
    kept = torch.float32 if dtype == torch.float32 else torch.bfloat16  # fp16 has too little range for gradients
    with contextlib.ExitStack() as open_files:
        with only_rows(skeleton, tokens, torch.float32, device):
            calls = capture(skeleton, tokens[:1], device)
            width = first_inputs(skeleton, tokens[:1], device).shape[-1]
            states = open_files.enter_context(HiddenStates((len(tokens), tokens.shape[1], width), kept, folder))
            model_pass = Pass(skeleton, tokens, states, calls, device, dtype, batch, should_stop, step)
            for part in model_pass.slices():
                states.write(0, part, first_inputs(skeleton, tokens[part], device))
        yield model_pass


def forward(model_pass: Pass, visit: Callable[[Mapping[str, CapturedActivations]], None] | None = None) -> None:
    """Compute the outputs of every block and store them in the states.

    Args:
        visit: Called with the inputs of the linear layers of each block, by their names in the checkpoint, without
            gradients.
    """
    for block in range(model_pass.skeleton.tree.blocks):
        with _loaded_block(model_pass, block) as module, torch.no_grad():
            gathered: dict[str, list[CapturedActivations]] = {}
            for part in model_pass.slices():
                with _captured_linears(model_pass, block) as captured, products_in(model_pass.dtype, model_pass.device):
                    after = model_pass.calls[block](module, model_pass.states.read(block, part, model_pass.device))
                model_pass.states.write(block + 1, part, after)
                if visit is not None:
                    for name, (inputs, outputs) in captured.items():
                        gathered.setdefault(name, []).append(
                            CapturedActivations(_captured_rows(model_pass, inputs), outputs.new_empty(0))
                        )
            if visit is not None:
                visit(_concatenated(gathered))
        model_pass.step()


def backward(
    model_pass: Pass, labels: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[tuple[int, dict[str, CapturedActivations]]]:
    """Yield the number of each block, from the last to the first, with the captured activations of its linear layers.

    Args:
        labels: Function that returns the labels [tokens] from logits [tokens, vocabulary] and the next tokens [tokens],
            which are -1 after the last token. The loss is the sum of their negative log-likelihoods; labels of -1 are
            ignored.
    """
    gradient = _gradient_at_head(model_pass, labels)
    for block in range(model_pass.skeleton.tree.blocks - 1, -1, -1):
        gathered: dict[str, list[CapturedActivations]] = {}
        with _loaded_block(model_pass, block) as module:
            for part in model_pass.slices():
                hidden = model_pass.states.read(block, part, model_pass.device).requires_grad_(True)
                with _captured_linears(model_pass, block) as captured, torch.enable_grad():
                    with products_in(model_pass.dtype, model_pass.device):
                        after = model_pass.calls[block](module, hidden)
                    outputs = [output for _, output in captured.values()]
                    # copied, because autograd may return this tensor itself as the gradient of a layer's output
                    output_gradient = gradient.read(part, model_pass.device).clone()
                    found = torch.autograd.grad(after, [hidden, *outputs], output_gradient)
                gradient.write(part, found[0])
                for (name, (inputs, _)), at_output in zip(captured.items(), found[1:], strict=True):
                    gathered.setdefault(name, []).append(
                        CapturedActivations(_captured_rows(model_pass, inputs), _captured_rows(model_pass, at_output))
                    )
        yield block, _concatenated(gathered)
        model_pass.step()


def _gradient_at_head(model_pass: Pass, labels: Callable[[Tensor, Tensor], Tensor]) -> Activations:
    """Return the gradient of the loss with respect to the outputs of the last block."""
    skeleton, last = model_pass.skeleton, model_pass.skeleton.tree.blocks
    gradient = Activations(model_pass.states.shape, torch.float32)
    path = skeleton.head()
    skeleton.fill(path, model_pass.dtype, model_pass.device)
    try:
        for row in range(len(model_pass.tokens)):
            _check_stop(model_pass)
            following = torch.full_like(model_pass.tokens[row], -1)
            following[:-1] = model_pass.tokens[row, 1:]
            state = model_pass.states.read(last, slice(row, row + 1), model_pass.device)
            for start in range(0, len(following), _CHUNK):
                part = slice(start, start + _CHUNK)
                hidden = state[:, part].clone().requires_grad_(True)
                with torch.enable_grad(), products_in(model_pass.dtype, model_pass.device):
                    scores = _require_finite(logits(skeleton, hidden)[0].float())
                    targets = labels(scores.detach(), following[part].to(model_pass.device))
                    loss = nn.functional.cross_entropy(scores, targets, ignore_index=-1, reduction="sum")
                (found,) = torch.autograd.grad(loss, hidden)
                gradient.data[row, part] = found[0].to(gradient.data)
    finally:
        skeleton.unload(path)
    return gradient


@contextlib.contextmanager
def _loaded_block(model_pass: Pass, block: int) -> Iterator[nn.Module]:
    """Load one block: the weights of its linear layers in the dtype of matrix products, the others in float32."""
    _check_stop(model_pass)
    path = f"{model_pass.skeleton.stack}.{block}"
    names = [model_pass.skeleton.module_name(linear.name) for linear in model_pass.skeleton.tree.of_block(block)]
    module = model_pass.skeleton.fill(path, torch.float32, model_pass.device, skip=tuple(names))
    for name in names:
        model_pass.skeleton.fill(name, model_pass.dtype, model_pass.device)
    try:
        yield module
    finally:
        model_pass.skeleton.unload(path)


@contextlib.contextmanager
def _captured_linears(model_pass: Pass, block: int) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Capture the inputs and outputs of the linear layers of a block, by their names in the checkpoint."""
    _check_stop(model_pass)
    captured: dict[str, tuple[Tensor, Tensor]] = {}

    def make_hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            captured[name] = args[0].detach(), output

        return hook

    handles = [
        model_pass.skeleton.model.get_submodule(model_pass.skeleton.module_name(linear.name)).register_forward_hook(
            make_hook(linear.name)
        )
        for linear in model_pass.skeleton.tree.of_block(block)
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _captured_rows(model_pass: Pass, value: Tensor) -> Tensor:
    """Reshape [..., features] to [tokens, features] in the dtype of the states, and check that it is finite."""
    return _require_finite(value.reshape(-1, value.shape[-1]).to(model_pass.states.dtype))


def _require_finite(value: Tensor) -> Tensor:
    if not torch.isfinite(value).all():
        raise CorruptFile("The model computes NaN or infinite values.", "Download the model again.")
    return value


def _concatenated(gathered: Mapping[str, list[CapturedActivations]]) -> dict[str, CapturedActivations]:
    return {
        name: CapturedActivations(
            torch.cat([part.inputs for part in parts]), torch.cat([part.gradients for part in parts])
        )
        for name, parts in gathered.items()
    }


def _check_stop(model_pass: Pass) -> None:
    if model_pass.should_stop():
        raise Cancelled("The analysis was cancelled.")
