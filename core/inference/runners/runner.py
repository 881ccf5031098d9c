"""The interface of a runner: a loaded model with a cache, from token ids to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

from torch import Tensor

from core.control import ShouldStop, never
from core.model.processor import PictureInputs


class Runner(Protocol):
    """A loaded model with a key-value cache of the processed tokens. Not thread-safe."""

    @property
    def name(self) -> str:
        """`native`, `module` or `llama.cpp`."""

    @property
    def context(self) -> int:
        """Maximum number of tokens in the cache."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def memory_bytes(self) -> int:
        """Memory of weights and cache."""

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """Process tokens and append them to the cache.

        A long text is processed in pieces. If the call is stopped between two of them, the cache holds the tokens
        processed until then.

        Returns:
            Logits after the last token, float32 [vocabulary], on the CPU.

        Raises:
            BadInput: `ids` is empty, contains an id outside the vocabulary or does not fit into the context.
            Cancelled: `should_stop` returned True.
            OutOfMemory: the device has too little memory.
        """

    def truncate(self, length: int) -> None:
        """Remove all tokens from `length` on; the next `extend` continues there."""

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the logits after every token of a separate text, float32 [tokens, vocabulary]; empties the cache."""

    def close(self) -> None:
        """Free the memory; the runner cannot be used afterwards."""


class PictureRunner(Runner, Protocol):
    """A runner of a model that reads pictures."""

    def set_pictures(self, pictures: PictureInputs | None) -> None:
        """Set the pictures among the tokens in the cache and those of the next `extend`.

        Without a call, a text has none. They may change only while the cache is empty; the same pictures may be set
        again for a longer text.
        """


def reads_pictures(runner: Runner) -> TypeGuard[PictureRunner]:
    """Return whether a runner can process pictures."""
    return hasattr(runner, "set_pictures")
