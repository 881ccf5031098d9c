"""A transformers model run token by token, whatever computes its layers.

Runs on every device and every architecture that transformers can build and that has a cache; `stepping` proves which
way of reading is right for one. Knows token ids and logits; nothing of text.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled, UnsupportedModel, translated
from core.inference.memory import memory_errors
from core.inference.runners.cache import cache_bytes, can_cut, cut, make_cache

PIECE = {"cpu": 128, "cuda": 1024, "xpu": 1024}
"""Tokens read at once by kind of device: a stop takes effect between two pieces."""
CACHES = ("past_key_values", "cache_params", "state")
"""What models call the cache that they take and give back: that of attention, that of Mamba, that of RWKV."""

_FAILED = "transformers cannot compute this model"
_HINT = "Its config.json may not be that of its weights; fetch the model again."


class ModuleRunner:
    """A transformers causal LM with the cache of one conversation.

    Args:
        model: the causal LM, with all weights on `device`.
        context: tokens that the cache may hold.
        device: torch's name of it.
        pieces: a text may be read in pieces. Else an empty cache reads all of it at once, and one with states in it a
            token at a time, as some models with recurrent states need it.
    """

    name = "module"

    def __init__(self, model: Any, context: int, device: str, *, pieces: bool = True) -> None:
        self.model = model
        self.context = context
        self._device = torch.device(device)
        self._piece = PIECE.get(self._device.type, 128)
        self._pieces = pieces
        self._known = inspect.signature(type(model).forward).parameters
        self._key = next((key for key in CACHES if key in self._known), None)
        self._cache = self._new_cache()
        self._ids: list[int] = []
        # Tokens that the cache really holds: fewer than `_ids` after a cut that it cannot follow.
        self._read = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._ids)

    @property
    def memory_bytes(self) -> int:
        """Of weights and cache as they lie in memory; what two modules share counts once."""
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in (*self.model.parameters(), *self.model.buffers())
        }
        return sum(storages.values()) + cache_bytes(self._cache)

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """Read more tokens: the logits behind the last one, float32 [vocabulary], on the CPU; errors as `Runner`."""
        self._check(ids)
        if self.length + len(ids) > self.context:
            raise BadInput(
                f"{self.length + len(ids)} tokens are more than the {self.context} that fit.", "Start a new one."
            )
        wanted = [*self._ids, *ids]
        logits = None
        while self._read < len(wanted):
            if should_stop():
                raise Cancelled("Reading the text was stopped.")
            piece = wanted[self._read : self._read + self._room()]
            with self._whole():
                logits = self._forward(piece, keep=1)
            self._read += len(piece)
            self._ids = wanted[: max(self._read, len(self._ids))]
        assert logits is not None
        return logits[-1].float().cpu()

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        if length >= self.length:
            return
        del self._ids[length:]
        if self._read <= length:
            return
        if can_cut(self._cache):
            cut(self._cache, length)
            self._read = length
        else:
            # States without a length: what is kept is read again, with the next text.
            self._forget()

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits behind every token of a row of its own, float32 [tokens, vocabulary]; empties the cache."""
        self._check(ids)
        self.truncate(0)
        rows = []
        try:
            size = self._piece if self._pieces else len(ids)
            for start in range(0, len(ids), size):
                with self._whole():
                    rows.append(self._forward(ids[start : start + size], keep=0).float().cpu())
        finally:
            self._forget()
        return torch.cat(rows)

    def close(self) -> None:
        """Give the memory back."""
        self.model = None
        self._forget_all()

    def _check(self, ids: Sequence[int]) -> None:
        known = self.model.get_input_embeddings().weight.shape[0]
        if not len(ids):
            raise BadInput("There is nothing to read.", "Write something.")
        # A GPU answers a token out of range with an assertion that kills the process.
        if min(ids) < 0 or max(ids) >= known:
            odd = next(token for token in ids if not 0 <= token < known)
            raise BadInput(
                f"The tokenizer makes token {odd}, but the model knows only {known} tokens.",
                "The tokenizer is not this model's: fetch the model again.",
            )

    def _room(self) -> int:
        """Tokens that may be read at once now."""
        if self._pieces:
            return self._piece
        return 1 if self._read else self.context

    def _new_cache(self) -> Any:
        """An empty cache; None where the model makes one of its own kind."""
        return make_cache(self.model.config) if self._key == CACHES[0] else None

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int], keep: int) -> Tensor:
        """Logits [tokens kept, vocabulary] of one piece; `keep` of them from the end, 0 for all."""
        given = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        more: dict[str, Any] = {"logits_to_keep": keep} if "logits_to_keep" in self._known else {}
        if self._key:
            more |= {self._key: self._cache, "use_cache": True}
        out = self.model(input_ids=given, **more)
        if self._key:
            self._cache = getattr(out, self._key, self._cache)  # RecurrentGemma does not give it back
        logits: Tensor = out.logits[0]
        return logits[-keep:] if keep else logits

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Whatever happens inside: the cache holds whole pieces only, the same in every layer."""
        try:
            with translated(UnsupportedModel, _FAILED, _HINT), memory_errors("Reading the text"):
                yield
        except BaseException:
            if can_cut(self._cache):
                cut(self._cache, self._read)
            else:
                self._forget()
            raise

    def _forget(self) -> None:
        """Empty the cache; tokens that stay in `_ids` are read again."""
        if can_cut(self._cache):
            cut(self._cache, 0)
        else:
            self._cache = self._new_cache()
        self._read = 0

    def _forget_all(self) -> None:
        self._ids, self._read = [], 0
        del self._cache
