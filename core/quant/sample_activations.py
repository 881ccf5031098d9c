"""The hidden states of the original and of the quantized model for a set of samples, and the inputs of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from core.model.block_runner import BlockCall, BlockChain, LanguageCall, OutputKey, block_input
from core.quant.activations import Activations

Side = Literal["original", "quantized"]


@dataclass(frozen=True)
class CarriedOutputs:
    """Outputs of blocks, other than the hidden states for the next one, that later blocks need.

    Attributes:
        samples: number of samples.
        dtype: of floating-point outputs; others keep their own.
        file: returns the file for an output, or None for memory.
        stored: the outputs so far, [samples, ...].
    """

    samples: int
    dtype: torch.dtype
    file: Callable[[OutputKey], Path | None]
    stored: dict[OutputKey, Activations] = field(default_factory=dict)

    def read(
        self, chain: BlockChain, block: int, index: Tensor | slice, device: torch.device
    ) -> dict[OutputKey, Tensor]:
        """Return the outputs of earlier blocks that a block needs; `block` is the number of blocks for the head."""
        return {key: self.stored[key].read_exact(index, device) for key in chain.needs[block]}

    def write(self, chain: BlockChain, block: int, index: slice, outputs: list[Tensor]) -> None:
        """Store what later blocks need of the outputs of a block."""
        for key in chain.kept[block]:
            value = chain.rows_first(outputs[0]) if key.leaf == 0 else outputs[key.leaf]
            if key not in self.stored:
                dtype = self.dtype if value.dtype.is_floating_point else value.dtype
                self.stored[key] = Activations((self.samples, *value.shape[1:]), dtype, self.file(key))
            self.stored[key].write(index, value)

    def release(self, chain: BlockChain, block: int) -> None:
        """Free the outputs that no block after `block` needs."""
        for key in [key for key in self.stored if chain.last_use(key) <= block]:
            del self.stored[key]


@dataclass(frozen=True)
class ModelActivations:
    """The activations of one model: the output of the last processed block, [samples, ...], and further outputs."""

    hidden: Activations
    carried: CarriedOutputs


@dataclass(frozen=True)
class SampleActivations:
    """Activations of the original and of the quantized model for samples of one length.

    Attributes:
        tokens: int64 [samples, tokens].
        original, quantized: after the last processed block.
        calls: arguments of each block for sequences of this length; empty if they vary with the text.
        batch: samples per forward pass.
        languages: arguments of the language model for each sample with pictures; empty for text. Such samples are
            processed one at a time.
    """

    tokens: Tensor
    original: ModelActivations
    quantized: ModelActivations
    calls: list[BlockCall]
    batch: int
    languages: Sequence[LanguageCall] = ()

    def slices(self) -> Iterator[slice]:
        """Return the slices of samples that make up the batches."""
        count = len(self.tokens)
        return (slice(start, min(count, start + self.batch)) for start in range(0, count, self.batch))

    def side(self, side: Side) -> ModelActivations:
        """Return the activations of one model."""
        return self.original if side == "original" else self.quantized

    def inputs(
        self, chain: BlockChain, block: int, index: Tensor | slice, side: Side, device: torch.device
    ) -> tuple[Tensor, BlockCall]:
        """Return the hidden states that enter a block, as the block takes them, and its other arguments."""
        found = self.side(side)
        hidden = chain.rows_back(found.hidden.read(index, device))
        if not chain.varies and not self.languages:
            return hidden, self.calls[block]
        carried = self.carried(chain, block, index, side, device)
        return block_input(chain, block, self.tokens[index], hidden, carried, self._language(index))

    def _language(self, index: Tensor | slice) -> LanguageCall | None:
        if not self.languages:
            return None
        (sample,) = torch.arange(len(self.tokens))[index].tolist()
        return self.languages[sample]

    def carried(
        self, chain: BlockChain, block: int, index: Tensor | slice, side: Side, device: torch.device
    ) -> dict[OutputKey, Tensor]:
        """Return the outputs of earlier blocks that a block needs; `block` is the number of blocks for the head."""
        return self.side(side).carried.read(chain, block, index, device)

    def write(self, chain: BlockChain, block: int, index: slice, side: Side, outputs: list[Tensor]) -> None:
        """Store the outputs of a block: its hidden states, and what later blocks need."""
        found = self.side(side)
        found.hidden.write(index, chain.rows_first(outputs[0]))
        found.carried.write(chain, block, index, outputs)

    def release(self, chain: BlockChain, block: int, side: Side) -> None:
        """Free the outputs that no block after `block` needs."""
        self.side(side).carried.release(chain, block)


class TuningSamples:
    """The samples of several activation sets, counted through.

    Args:
        sets: of samples of one length. If there are several, samples are asked for one at a time.
    """

    def __init__(self, sets: Sequence[SampleActivations]) -> None:
        self._sets = sets

    def __len__(self) -> int:
        return sum(len(found.tokens) for found in self._sets)

    def inputs(self, chain: BlockChain, block: int, index: Tensor, device: torch.device) -> tuple[Tensor, BlockCall]:
        """Return what `SampleActivations.inputs` returns for the quantized model."""
        found, place = self._find(index)
        return found.inputs(chain, block, place, "quantized", device)

    def targets(self, index: Tensor, device: torch.device) -> Tensor:
        """Return the output of the original block for samples, [samples, ...]."""
        found, place = self._find(index)
        return found.original.hidden.read(place, device)

    def _find(self, index: Tensor) -> tuple[SampleActivations, Tensor]:
        first, left = int(index[0]), index
        for found in self._sets[:-1]:
            if first < len(found.tokens):
                return found, left
            first, left = first - len(found.tokens), left - len(found.tokens)
        return self._sets[-1], left
