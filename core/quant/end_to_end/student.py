"""The quantized model whose scales and norms are learned, run block by block.

Weights are dequantized when a block is loaded. Unless all blocks fit into memory, one block is loaded at a time, and
the backward pass runs each block again on its stored input.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.inference.memory import give_back_memory
from core.model.block_runner import BlockCall, first_inputs
from core.quant.blocks import BlockJob, forward, precision
from core.quant.end_to_end.adam import Adam
from core.quant.end_to_end.kept_blocks import KeptBlock, Storage
from core.quant.end_to_end.norms import LearnedNorm
from core.quant.level_grid import LevelGrid


@dataclass(frozen=True)
class LearnedScales:
    """The scales of one grid, and the state of their optimizer.

    Attributes:
        grid: levels and scales.
        slopes: sum of the gradients of the factors of the grid since the last step.
        rate: initial learning rate of the factors.
    """

    grid: LevelGrid
    slopes: Tensor
    adam: Adam
    rate: float

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors."""
        start = self.grid.start
        yield from (start.levels, start.scale, start.zero, self.grid.factor, self.grid.scale)
        yield from (base for base in (start.base, self.grid.now.base) if base is not None)
        yield from (self.slopes, self.adam.mean, self.adam.square)

    def step(self, share: float) -> None:
        """Update the scales, and clear the gradients.

        Args:
            share: fraction of the initial learning rate.
        """
        self.adam.step(self.grid.factor, self.slopes, self.rate * share)
        self.grid.set_scales()
        self.slopes.zero_()


@dataclass(frozen=True)
class StudentBlock:
    """A block of the student.

    Attributes:
        kept: its grids.
        scales: of the grids that are learned, by parameter of the model.
        norms: that are learned.
        norm_rate: initial learning rate of the norms.
    """

    kept: KeptBlock
    scales: dict[str, list[LearnedScales]]
    norms: list[LearnedNorm]
    norm_rate: float


@dataclass
class Student:
    """The quantized model without its head.

    Attributes:
        job: settings of the run, and the model.
        blocks: all blocks.
        resident: blocks stay loaded.
    """

    job: BlockJob
    blocks: Sequence[StudentBlock]
    resident: bool
    _loaded: set[int] = field(default_factory=set)

    def inputs(self, tokens: Tensor) -> Tensor:
        """Return the input of block 0, as the blocks take it, for tokens (int64 [batch, tokens])."""
        return first_inputs(self.job.skeleton, tokens, self.job.resolved.torch_device)

    def outputs(self, calls: list[BlockCall], states: list[Tensor]) -> list[Tensor]:
        """Return the outputs of the last block without gradients; arguments as in `advance`."""
        return deque(self.advance(calls, states), maxlen=1).pop()

    def advance(self, calls: list[BlockCall], states: list[Tensor]) -> Iterator[list[Tensor]]:
        """Run all blocks without gradients; yield the inputs of each block and last the outputs of the last one.

        Args:
            calls: arguments of the blocks.
            states: inputs of block 0 for several batches.
        """
        yield states
        for number in range(len(self.blocks)):
            with self._block(number) as module:
                states = [forward(self.job, calls[number], module, state)[0] for state in states]
            yield states

    def step(
        self, calls: list[BlockCall], tokens: list[Tensor], head: Callable[[int, Tensor], Tensor], share: float
    ) -> None:
        """Apply one step to the scales and norms of all blocks.

        Args:
            calls: arguments of the blocks.
            tokens: batches, int64 [batch, tokens].
            head: returns, for the number of a batch and the output of the last block, the gradient of that output.
            share: fraction of the initial learning rate.
        """
        *states, outputs = (
            self._kept(number, found)
            for number, found in enumerate(self.advance(calls, [self.inputs(part) for part in tokens]))
        )
        slopes = [head(number, output) for number, output in enumerate(outputs)]
        del outputs
        for number in reversed(range(len(self.blocks))):
            with self._block(number) as module:
                slopes = self._backward(number, module, calls[number], states.pop(), slopes)
                block = self.blocks[number]
                for scales in (learned for same in block.scales.values() for learned in same):
                    scales.step(share)
                for norm in block.norms:
                    gradient = self.job.skeleton.model.get_parameter(norm.parameter).grad
                    if gradient is not None:
                        norm.adam.step(norm.value, gradient, block.norm_rate * share)
                if self.resident:
                    self._write(number)

    def _kept(self, number: int, states: list[Tensor]) -> list[Tensor]:
        """Return the inputs of a block in the storage of the run, for the backward pass."""
        return [self._storage.store(state, f"inputs-{number}-{part}") for part, state in enumerate(states)]

    @property
    def _storage(self) -> Storage:
        assert self.job.keep is not None
        return self.job.keep

    def unload(self) -> None:
        """Free the memory of all loaded blocks."""
        for number in sorted(self._loaded):
            self.job.skeleton.unload(f"{self.job.skeleton.stack}.{number}")
        self._loaded.clear()
        give_back_memory()

    @contextlib.contextmanager
    def _block(self, number: int) -> Iterator[nn.Module]:
        """Load a block with the present scales and norms for the duration of the context."""
        skeleton, names = self.job.skeleton, list(self.blocks[number].kept.grids)
        path = f"{skeleton.stack}.{number}"
        if number not in self._loaded:
            partial = [name for name in names if not self._complete(number, name)]
            skip = tuple(name for name in names if name not in partial)
            device, dtype = self.job.resolved.torch_device, self.job.resolved.compute_dtype
            self._loaded.add(number)
            skeleton.fill(path, torch.float32, device, skip=skip)
            for name in names:
                whole = torch.empty(skeleton.shapes[name], dtype=dtype, device=device)
                if name in partial:
                    whole.copy_(skeleton.model.get_parameter(name).data)
                skeleton.replace(name, nn.Parameter(whole, requires_grad=False))
            self._write(number)
        try:
            yield skeleton.model.get_submodule(path)
        finally:
            scales = (learned for same in self.blocks[number].scales.values() for learned in same)
            self._storage.release(tensor for learned in scales for tensor in learned.tensors())
            if not self.resident:
                skeleton.unload(path)
                self._loaded.discard(number)

    def _complete(self, number: int, name: str) -> bool:
        """Return whether all rows of a parameter are quantized."""
        weights = sum(
            (part.stop - part.start) * part.item.linear.in_features
            for kept in self.blocks[number].kept.grids[name]
            for part in kept.rows
        )
        return weights == torch.Size(self.job.skeleton.shapes[name]).numel()

    def _write(self, number: int) -> None:
        """Write the present weights and norms into a loaded block."""
        block, skeleton = self.blocks[number], self.job.skeleton
        for name, grids in block.kept.grids.items():
            for kept in grids:
                kept.write(skeleton.model.get_parameter(name).data)
        for norm in block.norms:
            norm.place(skeleton)

    def _backward(
        self, number: int, module: nn.Module, call: BlockCall, inputs: list[Tensor], slopes: list[Tensor]
    ) -> list[Tensor]:
        """Add up the gradients of scales and norms of a block, and return the gradients of its inputs.

        Args:
            slopes: gradients of its outputs.
        """
        block, model = self.blocks[number], self.job.skeleton.model
        parameters = {name: model.get_parameter(name) for name in block.scales}
        hooks = [
            parameter.requires_grad_(True).register_post_accumulate_grad_hook(_collector(block, name))
            for name, parameter in parameters.items()
        ]
        norms = [model.get_parameter(norm.parameter).requires_grad_(True) for norm in block.norms]
        found = []
        try:
            for stored, slope in zip(inputs, slopes, strict=True):
                hidden = stored.to(self.job.resolved.torch_device).requires_grad_(number > 0)
                with torch.enable_grad(), precision(self.job.resolved):
                    output = call.outputs(module, hidden)[0]
                if output.requires_grad:
                    output.backward(slope)
                found.append(hidden.new_empty(0) if hidden.grad is None else hidden.grad)
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in (*parameters.values(), *norms):
                parameter.requires_grad_(False)
        return found


def _collector(block: StudentBlock, name: str) -> Callable[[Tensor], None]:
    """Return a hook that adds the gradients of the scales of a parameter, and frees the gradient of its weights."""

    def hook(parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        for (kept, _), scales in zip(block.kept.learned(name), block.scales[name], strict=True):
            scales.slopes.add_(kept.slopes(gradient))

    return hook
