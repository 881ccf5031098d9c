"""Proof that what lies on disk is what was tuned: read back, compared, scanned, run, and asked to write a few words.

The written checkpoint is read block by block through the same reader that any later use goes through, so the
check needs no more memory than the run. Depends on the files only, not on how they were tuned.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.calibration.documents import Document
from core.calibration.encoding import Encoder
from core.control import ShouldStop, check_stop
from core.errors import VerificationFailed
from core.formats.stored import Checkpoint, digest
from core.inference.evaluate import summarize
from core.inference.memory import give_back_memory
from core.model.block_runner import BlockCall, capture, first_inputs, logits, only_rows
from core.quant.activations import Activations
from core.quant.blocks import BlockJob, forward, insert_linear, precision
from core.quant.heldout import token_losses
from core.quant.streamed_head import streamed_head

PROMPT = "The capital of France is"
TOKENS = 4


@dataclass(frozen=True)
class VerificationResult:
    """What was checked.

    Attributes:
        layers: equal to the bit to what was tuned.
        other_tensors: equal to the source's.
        rounded: tensors that were rounded without tuning, such as the embedding -> their block type.
        perplexity, sample: what the files computed.
    """

    layers: int
    other_tensors: int
    rounded: dict[str, str]
    perplexity: float
    sample: str


def check_layers(written: Checkpoint, digests: dict[str, str], should_stop: ShouldStop) -> None:
    """Compare every layer on disk with what was tuned, and look for NaN and inf.

    Raises:
        VerificationFailed: the first difference, by name.
    """
    for name, expected in digests.items():
        check_stop(should_stop)
        layer = written.layer(name)
        if digest(layer) != expected:
            raise VerificationFailed(f"{name} reads back different from what was tuned.", "Please report this.")
        if not all(torch.isfinite(part).all() for part in layer.parts() if part.dtype.is_floating_point):
            raise VerificationFailed(f"{name} has a scale that is not finite.", "Try more samples or another recipe.")


@dataclass(frozen=True)
class WrittenCheckpoint:
    """A checkpoint on disk that is run block by block; `job` holds a skeleton over the written files."""

    job: BlockJob
    checkpoint: Checkpoint

    @contextlib.contextmanager
    def ends(self) -> Iterator[None]:
        """Give everything outside the blocks its weights while entered; of the embedding only rows are ever loaded."""
        skeleton, device = self.job.skeleton, self.job.resolved.torch_device
        skeleton.fill("", torch.float32, device, skip=(skeleton.stack, *skeleton.ends()))
        tree = skeleton.tree
        head = tree.tied_head.name if tree.tied_head else tree.lm_head
        quantized = head is not None and head in self.checkpoint.schemes
        with streamed_head(self.job, self.checkpoint.layer(head) if head is not None and quantized else None):
            yield

    def advance(self, states: Activations, calls: list[BlockCall]) -> None:
        """Send hidden states through all blocks, in place, holding one block at a time."""
        skeleton, device = self.job.skeleton, self.job.resolved.torch_device
        for block in range(skeleton.tree.blocks):
            names = [item.name for item in skeleton.tree.of_block(block) if item.name in self.checkpoint.schemes]
            path = f"{skeleton.stack}.{block}"
            skip = tuple(skeleton.module_name(name) for name in names)
            module = skeleton.fill(path, torch.float32, device, skip=skip)
            for name in names:
                insert_linear(self.job, name, self.checkpoint.layer(name).dequantize())
            for row in range(len(states)):
                part = slice(row, row + 1)
                states.write(part, forward(self.job, calls[block], module, states.read(part, device)))
            skeleton.unload(path)
            give_back_memory()

    def enter(self, tokens: Tensor) -> tuple[Activations, list[BlockCall]]:
        """Hidden states at block 0 for tokens (int64 [windows, tokens]), and how the blocks are called for them."""
        skeleton, device = self.job.skeleton, self.job.resolved.torch_device
        with only_rows(skeleton, tokens, torch.float32, device):
            calls = capture(skeleton, tokens[:1], device)
            rows = [first_inputs(skeleton, tokens[row : row + 1], device) for row in range(len(tokens))]
        state = Activations((len(rows), *rows[0].shape[1:]), torch.float32)
        for row, value in enumerate(rows):
            state.write(slice(row, row + 1), value)
        return state, calls


def check_answers(written: WrittenCheckpoint, tokens: Tensor, tokenizer: Any) -> tuple[float, str]:
    """Run the held-out windows and write a few words, from the files alone.

    Args:
        tokens: int64 [windows, tokens].

    Returns:
        Perplexity on the windows, and the prompt with its greedy continuation.

    Raises:
        VerificationFailed: no finite answer.
    """
    with written.ends():
        state, calls = written.enter(tokens)
        written.advance(state, calls)
        value = summarize(token_losses(written.job, state, tokens), tokens).value
        if not math.isfinite(value):
            raise VerificationFailed(
                "The written model gives no finite probabilities.", "Try more bits or another recipe."
            )
        encoder = Encoder(tokenizer)
        ids = torch.tensor([[*encoder.prefix, *encoder.encode([Document(text=PROMPT)])[0]]])
        for _ in range(TOKENS):
            state, calls = written.enter(ids)
            written.advance(state, calls)
            hidden = state.read(slice(0, 1), written.job.resolved.torch_device)[:, -1:]
            with precision(written.job.resolved):
                scores = logits(written.job.skeleton, hidden)[0, -1]
            if not torch.isfinite(scores).all():
                raise VerificationFailed(
                    "The written model gives no finite answer.", "Try more bits or another recipe."
                )
            ids = torch.cat([ids, scores.argmax().view(1, 1).cpu()], dim=1)
    return value, tokenizer.decode(ids[0], skip_special_tokens=True)
