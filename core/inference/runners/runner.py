"""What runs a whole model token by token: the interface that answering, evaluation, benches and the endpoint know.

Knows token ids and logits; nothing of text, sampling or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from core.control import ShouldStop, never


class Runner(Protocol):
    """A loaded model with a key-value cache of the tokens that it has read. Not for use from two threads at once."""

    @property
    def name(self) -> str:
        """`native`, `module` or `llama.cpp`."""

    @property
    def context(self) -> int:
        """Tokens that the cache can hold at most."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def memory_bytes(self) -> int:
        """Of weights and cache as they lie in memory."""

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """Read more tokens behind those in the cache: the logits behind the last one, float32 [vocabulary], on the CPU.

        A call may be stopped between two pieces of a long text; the cache then holds what was read, and nothing else.

        Raises:
            BadInput: no token, a token that the model does not know, or more than the context holds.
            Cancelled: `should_stop` said so.
            OutOfMemory: the device has no room for it.
        """

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on; the next `extend` continues there."""

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits behind every token of a row of its own, float32 [tokens, vocabulary]; the cache is then empty."""

    def close(self) -> None:
        """Give the memory back; nothing else may be called afterwards."""
