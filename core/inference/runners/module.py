"""Runner for transformers models, with layers from any backend.

Supports every device and every architecture that transformers can build and that has a cache. `stepping` determines
whether a model can process a prompt in pieces.
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
"""Tokens processed at once, by kind of device. A stop takes effect between two pieces."""
CACHES = ("past_key_values", "cache_params", "state")
"""Names of the argument and output for the cache: of attention, of Mamba, and of RWKV."""

_FAILED = "transformers cannot compute this model"
_HINT = "Its config.json may not match its weights; download the model again."


class ModuleRunner:
    """A transformers causal LM with the cache of one conversation.

    Args:
        model: the causal LM, with all weights on `device`.
        context: length of the cache in tokens.
        device: torch's device string.
        pieces: process texts in pieces. Otherwise, a text is processed at once if the cache is empty, and token by
            token if not, as some models with recurrent states require.
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
        # Tokens in the cache: fewer than `_ids` after truncating a cache that cannot be cut.
        self._read = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._ids)

    @property
    def memory_bytes(self) -> int:
        """Memory of weights and cache; shared tensors count once."""
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in (*self.model.parameters(), *self.model.buffers())
        }
        return sum(storages.values()) + cache_bytes(self._cache)

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """See `Runner.extend`."""
        self._check(ids)
        if self.length + len(ids) > self.context:
            raise BadInput(
                f"{self.length + len(ids)} tokens do not fit into a context of {self.context}.",
                "Start a new conversation.",
            )
        wanted = [*self._ids, *ids]
        logits = None
        while self._read < len(wanted):
            if should_stop():
                raise Cancelled("Processing the prompt was stopped.")
            piece = wanted[self._read : self._read + self._room()]
            with self._whole_pieces():
                logits = self._forward(piece, keep=1)
            self._read += len(piece)
            self._ids = wanted[: max(self._read, len(self._ids))]
        assert logits is not None
        return logits[-1].float().cpu()

    def truncate(self, length: int) -> None:
        """See `Runner.truncate`."""
        if length >= self.length:
            return
        del self._ids[length:]
        if self._read <= length:
            return
        if can_cut(self._cache):
            cut(self._cache, length)
            self._read = length
        else:
            # Recurrent states cannot be truncated: the remaining tokens are processed again by the next call.
            self._forget()

    def logits(self, ids: Sequence[int]) -> Tensor:
        """See `Runner.logits`."""
        self._check(ids)
        self.truncate(0)
        rows = []
        try:
            size = self._piece if self._pieces else len(ids)
            for start in range(0, len(ids), size):
                with self._whole_pieces():
                    rows.append(self._forward(ids[start : start + size], keep=0).float().cpu())
        finally:
            self._forget()
        return torch.cat(rows)

    def close(self) -> None:
        """See `Runner.close`."""
        self.model = None
        self._forget_all()

    def _check(self, ids: Sequence[int]) -> None:
        known = self.model.get_input_embeddings().weight.shape[0]
        if not len(ids):
            raise BadInput("There is no text to process.", "Write something.")
        # On a GPU, a token id out of range fails a device-side assertion, which ends the process.
        if min(ids) < 0 or max(ids) >= known:
            invalid = next(token for token in ids if not 0 <= token < known)
            raise BadInput(
                f"The tokenizer produced token id {invalid}, but the model's vocabulary has {known} tokens.",
                "The tokenizer does not belong to this model. Download the model again.",
            )

    def _room(self) -> int:
        """Return the number of tokens that may be processed at once now."""
        if self._pieces:
            return self._piece
        return 1 if self._read else self.context

    def _new_cache(self) -> Any:
        """Return an empty cache, or None if the model creates its own."""
        return make_cache(self.model.config) if self._key == CACHES[0] else None

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int], keep: int) -> Tensor:
        """Process one piece and return the logits of its last `keep` tokens (0 for all), [tokens, vocabulary]."""
        given = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        more: dict[str, Any] = {"logits_to_keep": keep} if "logits_to_keep" in self._known else {}
        if self._key:
            more |= {self._key: self._cache, "use_cache": True}
        out = self.model(input_ids=given, **more)
        if self._key:
            self._cache = getattr(out, self._key, self._cache)  # RecurrentGemma does not return it
        logits: Tensor = out.logits[0]
        return logits[-keep:] if keep else logits

    @contextlib.contextmanager
    def _whole_pieces(self) -> Iterator[None]:
        """Translate errors, and remove an incomplete piece from the cache of every layer after an exception."""
        try:
            with translated(UnsupportedModel, _FAILED, _HINT), memory_errors("Processing the prompt"):
                yield
        except BaseException:
            if can_cut(self._cache):
                cut(self._cache, self._read)
            else:
                self._forget()
            raise

    def _forget(self) -> None:
        """Empty the cache; the tokens in `_ids` are processed again by the next call."""
        if can_cut(self._cache):
            cut(self._cache, 0)
        else:
            self._cache = self._new_cache()
        self._read = 0

    def _forget_all(self) -> None:
        self._ids, self._read = [], 0
        del self._cache
