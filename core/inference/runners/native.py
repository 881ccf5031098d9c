"""A model run by the compiled program: weights packed once, every step one call.

Knows checkpoints and token ids; nothing of text. How the layers become operations is in `core.inference.native`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled
from core.formats.stored import Checkpoint
from core.inference.memory import memory_errors
from core.inference.native import model_spec
from core.inference.native.program import Program
from core.inference.native.weights import fill_program
from core.model.skeleton import Skeleton


class NativeRunner:
    """A program with the cache of one conversation; see `core.inference.runners.runner.Runner`."""

    name = "native"

    def __init__(self, program: Program, context: int) -> None:
        self.context = context
        self._program = program
        self._length = 0
        # Only kept for models that read a text again when it becomes long.
        self._ids = torch.empty(0, dtype=torch.int32)
        self._bytes = program.memory_bytes

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._length

    @property
    def memory_bytes(self) -> int:
        """Of weights, cache and buffers."""
        return self._bytes

    @property
    def program(self) -> Program:
        """What it runs, for profiles."""
        return self._program

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """Read more tokens: the logits behind the last one, float32 [vocabulary].

        Raises:
            BadInput: no token, a token that the model does not know, or more than the context holds.
            Cancelled: `should_stop` said so; the cache has what was read before.
        """
        tokens = self._tokens(ids)
        if self._length + len(tokens) > self.context:
            raise BadInput(
                f"{self._length + len(tokens)} tokens are more than the {self.context} that fit.", "Start a new one."
            )
        tokens = self._turned(tokens)
        logits = torch.empty(1, self._program.spec.vocab_size)
        for start in range(0, len(tokens), self._program.rows):
            piece = tokens[start : start + self._program.rows]
            last = start + len(piece) == len(tokens)
            if should_stop() or not self._program.step(
                piece, self._length, logits if last else None, should_stop if len(piece) > 1 else None
            ):
                raise Cancelled("Reading the text was stopped.")
            self._length += len(piece)
            if self._program.spec.short_context:
                self._ids = torch.cat([self._ids[: self._length - len(piece)], piece])
        return logits[0]

    def _turned(self, tokens: Tensor) -> Tensor:
        """What has to be read for these tokens: with them all that came before, where a text becomes too long or short
        for the rotations that it was read with."""
        if not self._program.select_rope_tables(self._length + len(tokens)):
            return tokens
        tokens = torch.cat([self._ids[: self._length], tokens])
        self._length = 0
        return tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        self._length = min(self._length, max(0, length))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits behind every token of a row of its own, float32 [tokens, vocabulary]; empties the cache."""
        tokens = self._tokens(ids)
        if len(tokens) > self.context:
            raise BadInput(f"{len(tokens)} tokens are more than the {self.context} that fit.", "Start a new one.")
        self._length = 0
        self._program.select_rope_tables(len(tokens))
        with memory_errors("Reading the text"):
            logits = torch.empty(len(tokens), self._program.spec.vocab_size)
        for start in range(0, len(tokens), self._program.rows):
            end = min(len(tokens), start + self._program.rows)
            self._program.step(tokens[start:end], start, logits[start:end])
        return logits

    def close(self) -> None:
        """Give the memory back."""
        del self._program
        self._length = 0

    def _tokens(self, ids: Sequence[int]) -> Tensor:
        """The ids, int32, each of them one that the model knows."""
        if not len(ids):
            raise BadInput("There is nothing to read.", "Write something.")
        known = self._program.spec.vocab_size
        odd = next((token for token in ids if not 0 <= token < known), None)
        if odd is not None:
            raise BadInput(
                f"The tokenizer makes token {odd}, but the model knows only {known} tokens.",
                "The tokenizer is not this model's: fetch the model again.",
            )
        return torch.tensor(ids, dtype=torch.int32)


def build(
    checkpoint: Checkpoint,
    skeleton: Skeleton,
    context: int,
    *,
    threads: int = 0,
    planes: int = 2,
    dtype: torch.dtype = torch.float16,
    progress: Callable[[int, int], None] = lambda done, all_blocks: None,
    should_stop: ShouldStop = never,
) -> NativeRunner:
    """Read a checkpoint layer by layer into a program.

    Ask `refusal` first.

    Args:
        checkpoint: any that is open.
        skeleton: of the same model; only its config, names and rotary tables are used.
        context: tokens that the cache shall hold.
        threads: that compute; 0 for one a core.
        planes: of 8 bits that activations have in front of packed weights, 1 or 2. With one, a small model that
            hesitates between two words may take another than in float32; two cost nothing where memory is the limit,
            as in answers, and 1.7 times the time where products are, as in reading a prompt.
        dtype: of the cache, float16 or float32; where the machine does not convert float16, always float32.
        progress: called with blocks read and all blocks.

    Raises:
        Cancelled: `should_stop` said so.
        MissingDependency: no compiler.
        OutOfMemory: no room for the weights.
    """
    program = fill_program(
        checkpoint, skeleton, context, threads, planes, dtype, progress=progress, should_stop=should_stop
    )
    return NativeRunner(program, context)


def refusal(skeleton: Skeleton) -> str:
    """Why the native program cannot compute this model, as one sentence; "" where it can."""
    return model_spec.refusal(skeleton.model.config.get_text_config(decoder=True).to_dict(), skeleton.tree)
