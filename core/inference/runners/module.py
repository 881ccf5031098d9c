"""Runner for transformers models, with layers from any backend.

Supports every device and every architecture that transformers can build. `stepping` determines by which calls a model
processes a text correctly.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled, UnsupportedModel, translated
from core.inference.memory import memory_errors
from core.inference.runners.cache import CacheSnapshot, cache_bytes, can_cut, cut, make_cache, restore, snapshot
from core.inference.runners.runner import Runner
from core.model.processor import PictureInputs

PIECE = {"cpu": 128, "cuda": 1024, "xpu": 1024}
"""Tokens processed at once, by kind of device. A stop takes effect between two pieces."""
CACHES = ("past_key_values", "cache_params", "state")
"""Names of the argument and output for the cache: of attention, of Mamba, and of RWKV."""

_TAIL: Final = 8
"""Tokens at the end of a prompt that are processed after the snapshot of recurrent states. The next question often
replaces them: they are the beginning of an answer, which the chat template writes differently afterwards."""
_SNAPSHOTS: Final = 4
"""Most snapshots of recurrent states that are kept, of the last prompts."""

_FAILED = "transformers cannot compute this model"
_HINT = "Its config.json may not match its weights; download the model again."


Calls = Literal["pieces", "tokens", "whole"]


@dataclass(frozen=True)
class Stepping:
    """The calls by which a model processes a text.

    Attributes:
        calls: `pieces` of many tokens; `tokens`: all at once if the cache is empty and token by token if not, as some
            models with recurrent states require; or `whole`: the whole text again in every call, without a cache.
        positions: pass `position_ids`. Some models count the positions from 0 in every call if they are not given.
    """

    calls: Calls = "pieces"
    positions: bool = False


PIECES: Final = Stepping()
"""The calls that most models support."""


class ModuleRunner:
    """A transformers causal LM with the cache of one conversation.

    Args:
        model: the causal LM, with all weights on `device`.
        context: length of the cache in tokens.
        device: torch's device string.
        stepping: the calls by which the model processes a text.
        towers: context in which the weights of the model's towers are loaded, for the processing of pictures.
    """

    name = "module"

    def __init__(
        self,
        model: Any,
        context: int,
        device: str,
        stepping: Stepping = PIECES,
        towers: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.model = model
        self.context = context
        self._device = torch.device(device)
        self._piece = PIECE.get(self._device.type, 128)
        self._stepping = stepping
        self._known = inspect.signature(type(model).forward).parameters
        self._key = cache_key(model) if stepping.calls != "whole" else None
        self._cache = self._new_cache()
        self._short_context = short_context(model.config)
        self._ids: list[int] = []
        # Tokens in the cache: fewer than `_ids` after truncating a cache that cannot be cut.
        self._read = 0
        self._snapshots: list[CacheSnapshot] = []
        self._towers = towers
        self._pictures: PictureInputs | None = None
        # Models with M-RoPE store how far the positions of text after a picture differ from the numbers of tokens.
        self._shifted = [module for module in model.modules() if hasattr(module, "rope_deltas")]

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._ids)

    @property
    def memory_bytes(self) -> int:
        """Memory of weights and cache; shared tensors count once."""
        return self._weight_bytes + cache_bytes(self._cache) + cache_bytes(self._snapshots)

    @cached_property
    def _weight_bytes(self) -> int:
        """Memory of all parameters and buffers; a mixture has tens of thousands."""
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in (*self.model.parameters(), *self.model.buffers())
            if not value.is_meta
        }
        return sum(storages.values())

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """See `Runner.extend`."""
        self._check(ids)
        if self.length + len(ids) > self.context:
            raise BadInput(
                f"{self.length + len(ids)} tokens do not fit into a context of {self.context}.",
                "Start a new conversation.",
            )
        wanted = [*self._ids, *ids]
        if not self._key or self._crosses(self._read, len(wanted)):
            self._forget()
        pictures = self._pictures
        if pictures is not None and 0 < self._read < pictures.end:
            self._forget()
        tail = len(wanted) - _TAIL
        logits = None
        while self._read < len(wanted):
            if should_stop():
                raise Cancelled("Processing the prompt was stopped.")
            before_tail = bool(self._key) and self._read < tail and not can_cut(self._cache)
            last = tail if before_tail else len(wanted)
            if pictures is not None and not self._read:
                end = max(last, pictures.end)
                with self._whole_pieces(), self._towers():
                    logits = self._forward(wanted[:end], keep=1, pictures=pictures)
            else:
                end = min(self._read + self._room(len(wanted)), last)
                with self._whole_pieces():
                    logits = self._forward(wanted[self._read : end], keep=1)
            self._read = end
            self._ids = wanted[: max(self._read, len(self._ids))]
            if before_tail and end >= tail:
                self._keep_snapshot()
        assert logits is not None
        return logits[-1].float().cpu()

    def set_pictures(self, pictures: PictureInputs | None) -> None:
        """See `PictureRunner.set_pictures`."""
        if (None if pictures is None else pictures.digests) != (self._pictures and self._pictures.digests):
            self.truncate(0)
        self._pictures = pictures

    def truncate(self, length: int) -> None:
        """See `Runner.truncate`."""
        if length >= self.length:
            return
        del self._ids[length:]
        if self._pictures is not None and length < self._pictures.end:
            self._pictures = None
            self._forget()
        if self._read > length:
            if self._crosses(length, self._read):
                self._forget()
            self._rewind(length)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """See `Runner.logits`."""
        self._check(ids)
        self.truncate(0)
        self._forget()
        rows = []
        try:
            while self._read < len(ids):
                size = self._room(len(ids)) if self._stepping.calls == "pieces" else len(ids)
                piece = ids[self._read : self._read + size]
                with self._whole_pieces():
                    rows.append(self._forward(piece, keep=0).float().cpu())
                self._read += len(piece)
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

    def _room(self, length: int) -> int:
        """Return the number of tokens that may be processed at once now, on the way to a text of `length` tokens."""
        if self._stepping.calls != "pieces":
            return 1 if self._read and self._key else self.context
        # The first call determines the rotary frequencies of its tokens: they must be those of a long text.
        return max(self._piece, self._short_context + 1) if self._crosses(self._read, length) else self._piece

    def _crosses(self, shorter: int, longer: int) -> bool:
        """Return whether texts of these lengths have different rotary frequencies."""
        return shorter <= self._short_context < longer and self._short_context > 0

    def _new_cache(self) -> Any:
        """Return an empty cache, or None if the model creates its own."""
        return make_cache(self.model) if self._key == CACHES[0] else None

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int], keep: int, pictures: PictureInputs | None = None) -> Tensor:
        """Process one piece and return the logits of its last `keep` tokens (0 for all), [tokens, vocabulary].

        Args:
            pictures: among the tokens, which are then all of the text.
        """
        given = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        more: dict[str, Any] = {"logits_to_keep": keep} if "logits_to_keep" in self._known else {}
        if pictures is not None:
            more |= self._picture_arguments(pictures, len(ids))
        if self._stepping.positions and not (self._shifted and self._pictures is not None):
            more["position_ids"] = torch.arange(self._read, self._read + len(ids), device=self._device)[None]
        if self._key:
            more |= {self._key: self._cache, "use_cache": True}
        elif self._stepping.calls == "whole":
            more["use_cache"] = False
        out = self.model(input_ids=given, **more)
        if self._key:
            self._cache = getattr(out, self._key, self._cache)  # RecurrentGemma does not return it
        logits: Tensor = out.logits[0]
        return logits[-keep:] if keep else logits

    def _picture_arguments(self, pictures: PictureInputs, tokens: int) -> dict[str, Tensor]:
        """Return the arguments that the model's forward pass knows, on its device and in its dtype."""
        dtype = self.model.get_input_embeddings().weight.dtype
        return {
            name: value.to(self._device, dtype if value.is_floating_point() else value.dtype)
            for name, value in pictures.sized(tokens).items()
            if name in self._known
        }

    @contextlib.contextmanager
    def _whole_pieces(self) -> Iterator[None]:
        """Translate errors, and return the cache to its state before an incomplete piece after an exception."""
        try:
            with translated(UnsupportedModel, _FAILED, _HINT), memory_errors("Processing the prompt"):
                yield
        except BaseException:
            self._rewind(self._read)
            raise

    def _keep_snapshot(self) -> None:
        """Keep a snapshot of the cache, which holds `_read` tokens."""
        taken = snapshot(self._cache, self._read)
        if taken is not None:
            self._snapshots = [*self._snapshots[1 - _SNAPSHOTS :], taken]

    def _rewind(self, length: int) -> None:
        """Return the cache to at most `length` tokens; the next call processes the remaining tokens of `_ids` again.

        Recurrent states cannot be truncated. They are restored from a snapshot or computed again.
        """
        if not length:
            self._forget()
            return
        self._snapshots = [saved for saved in self._snapshots if saved.length <= length]
        if can_cut(self._cache):
            cut(self._cache, length)
            self._read = length
        elif self._snapshots:
            restore(self._cache, self._snapshots[-1])
            self._read = self._snapshots[-1].length
        else:
            self._forget()

    def _forget(self) -> None:
        """Empty the cache; the tokens in `_ids` are processed again by the next call."""
        if can_cut(self._cache):
            cut(self._cache, 0)
        else:
            self._cache = self._new_cache()
        for module in self._shifted:
            module.rope_deltas = None
        self._read = 0
        self._snapshots = []

    def _forget_all(self) -> None:
        self._ids, self._read, self._snapshots, self._pictures, self._shifted = [], 0, [], None, []
        del self._cache


def picture_refusal(runner: Runner) -> str:
    """Return the reason, as a sentence, why a runner of a vision-language model cannot process pictures, or ""."""
    if not isinstance(runner, ModuleRunner):
        return f"This model can see pictures, but the backend {runner.name} reads text only."
    name, known = type(runner.model).__name__, inspect.signature(type(runner.model).forward).parameters
    if "pixel_values" not in known:
        return f"This model can see pictures, but {name} of transformers reads text only."
    # The attention to pictures would need further arguments for every token of an answer (Llama 3.2 Vision).
    return f"Pictures for {name} are not supported yet." if "cross_attention_mask" in known else ""


def cache_key(model: Any) -> str | None:
    """Return the name of the argument and output of a model for its cache; None if it has no cache."""
    known = inspect.signature(type(model).forward).parameters
    return next((key for key in CACHES if key in known), None)


def short_context(config: Any) -> int:
    """Return the longest text for which a model uses the first of its two sets of rotary frequencies (LongRoPE).

    A longer text needs other frequencies for all of its tokens, also for the cached ones. Returns 0 for other models.
    """
    rope = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return 0
    return int(rope.get("original_max_position_embeddings") or 0)
