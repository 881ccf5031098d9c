"""Runner for the native program, which computes a whole step in one call of compiled code.

The translation of layers to operations is in `core.inference.native`.
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
    """A native program with the cache of one conversation."""

    name = "native"

    def __init__(self, program: Program, context: int) -> None:
        self.context = context
        self._program = program
        self._length = 0
        # Used only for models that must process a text again when it crosses the limit of their short context.
        self._ids = torch.empty(0, dtype=torch.int32)
        self._bytes = program.memory_bytes

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._length

    @property
    def memory_bytes(self) -> int:
        """Memory of weights, cache and buffers."""
        return self._bytes

    @property
    def program(self) -> Program:
        """The program, for profiling."""
        return self._program

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """See `Runner.extend`."""
        tokens = self._tokens(ids)
        if self._length + len(tokens) > self.context:
            raise BadInput(
                f"{self._length + len(tokens)} tokens do not fit into a context of {self.context}.",
                "Start a new conversation.",
            )
        tokens = self._with_cached(tokens)
        logits = torch.empty(1, self._program.spec.vocab_size)
        for start in range(0, len(tokens), self._program.rows):
            piece = tokens[start : start + self._program.rows]
            last = start + len(piece) == len(tokens)
            if should_stop() or not self._program.step(
                piece, self._length, logits if last else None, should_stop if len(piece) > 1 else None
            ):
                raise Cancelled("Processing the prompt was stopped.")
            self._length += len(piece)
            if self._program.spec.short_context:
                self._ids = torch.cat([self._ids[: self._length - len(piece)], piece])
        return logits[0]

    def _with_cached(self, tokens: Tensor) -> Tensor:
        """Return the tokens to process: also all cached ones if the new length needs other rotary frequencies.

        Models with `short_context` use two sets of rotary frequencies, for short and for long texts.
        """
        if not self._program.select_rope_tables(self._length + len(tokens)):
            return tokens
        tokens = torch.cat([self._ids[: self._length], tokens])
        self._length = 0
        return tokens

    def truncate(self, length: int) -> None:
        """See `Runner.truncate`."""
        self._length = min(self._length, max(0, length))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """See `Runner.logits`."""
        tokens = self._tokens(ids)
        if len(tokens) > self.context:
            raise BadInput(f"{len(tokens)} tokens do not fit into a context of {self.context}.", "Use a shorter text.")
        self._length = 0
        self._program.select_rope_tables(len(tokens))
        with memory_errors("Processing the text"):
            logits = torch.empty(len(tokens), self._program.spec.vocab_size)
        for start in range(0, len(tokens), self._program.rows):
            end = min(len(tokens), start + self._program.rows)
            self._program.step(tokens[start:end], start, logits[start:end])
        return logits

    def close(self) -> None:
        """See `Runner.close`."""
        del self._program
        self._length = 0

    def _tokens(self, ids: Sequence[int]) -> Tensor:
        """Check the token ids and return them as int32."""
        if not len(ids):
            raise BadInput("There is no text to process.", "Write something.")
        known = self._program.spec.vocab_size
        invalid = next((token for token in ids if not 0 <= token < known), None)
        if invalid is not None:
            raise BadInput(
                f"The tokenizer produced token id {invalid}, but the model's vocabulary has {known} tokens.",
                "The tokenizer does not belong to this model. Download the model again.",
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
    """Load a checkpoint layer by layer into a native program. `refusal` must have returned "".

    Args:
        checkpoint: an opened checkpoint.
        skeleton: skeleton of the same model; only its config, names and rotary tables are used.
        context: length of the cache in tokens.
        threads: number of threads; 0 for one per core.
        planes: number of 8-bit planes of the activations in products with packed weights, 1 or 2. With one plane, a
            small model may select another token than in float32 if two are almost equally likely. Two planes cost
            nothing in decoding, which is limited by memory bandwidth, and take 1.7 times as long in prefill.
        dtype: dtype of the cache, float16 or float32; always float32 if the CPU cannot convert float16.
        progress: called with the number of loaded blocks and of all blocks.
        should_stop: polled between layers.

    Raises:
        Cancelled: `should_stop` returned True.
        MissingDependency: there is no compiler.
        OutOfMemory: the weights do not fit into memory.
    """
    program = fill_program(
        checkpoint, skeleton, context, threads, planes, dtype, progress=progress, should_stop=should_stop
    )
    return NativeRunner(program, context)


def refusal(skeleton: Skeleton) -> str:
    """Return the reason, as one sentence, why the native program does not support the model, or ""."""
    return model_spec.refusal(skeleton.model.config.get_text_config(decoder=True).to_dict(), skeleton.tree)
