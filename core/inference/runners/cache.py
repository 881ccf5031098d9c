"""A cache for transformers models that grows without copying for each token and can be truncated.

transformers' own cache copies all keys and values for every token, and discards those outside a sliding window, so that
it cannot be truncated there. Recurrent states (linear attention, state-space models, convolutions) have a constant size
and cannot be truncated; `snapshot` copies them, so that `restore` can return to an earlier length.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    get_layer_types_and_kwargs,
)

_INITIAL_TOKENS = 128
"""Initial capacity in tokens."""
_GROWING = frozenset({"keys", "values", "_room", "_used"})
"""Attributes of `GrowingLayer` that `cut` maintains."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, [1, num_kv_heads, tokens, head_dim] each, in memory that doubles when it is full.

    `keys` and `values` are views of the used part.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < end:
            self._room = (self._grown(0, key_states, end), self._grown(1, value_states, end))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[..., self._used : end, :] = states
        self._set_used(end)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last `-tokens_to_remove` tokens."""
        self._set_used(max(0, self._used - abs(tokens_to_remove)))

    def cut(self, length: int) -> None:
        """Remove all tokens from `length` on."""
        self._set_used(min(length, self._used))

    @property
    def nbytes(self) -> int:
        """Allocated memory, used or not."""
        return 0 if self._room is None else sum(part.nbytes for part in self._room)

    def _grown(self, which: int, like: Tensor, end: int) -> Tensor:
        size = max(end, _INITIAL_TOKENS, 0 if self._room is None else 2 * self._room[which].shape[-2])
        room = like.new_empty(*like.shape[:-2], size, like.shape[-1])
        if self._room is not None:
            room[..., : self._used, :] = self._room[which][..., : self._used, :]
        return room

    def _set_used(self, end: int) -> None:
        self._used = end
        if self._room is not None:
            self.keys, self.values = (part[..., :end, :] for part in self._room)


class GrowingIndexedLayer(GrowingLayer, DynamicIndexedLayer):
    """A `GrowingLayer` with the keys of an indexer, [1, tokens, index_head_dim] (sparse attention of DeepSeek V3.2)."""

    def cut(self, length: int) -> None:
        """Remove all tokens from `length` on."""
        super().cut(length)
        if self.indexer_keys is not None:
            self.indexer_keys = self.indexer_keys[:, :length]
        if self.indexer_position_ids is not None:
            self.indexer_position_ids = self.indexer_position_ids[..., :length]


class GrowingHybridLayer(LinearAttentionAndFullAttentionLayer, GrowingLayer):  # type: ignore[override,misc]
    """A `GrowingLayer` with the recurrent states of the same block (Falcon-H1), which `cut` does not change."""

    def __init__(self, number_of_states: int = 1, **_: Any) -> None:
        super().__init__(number_of_states)
        self._room, self._used = None, 0


_LAYERS: dict[str, type[Any]] = {
    # The masks exclude tokens outside the window, so that a layer that keeps all tokens is correct.
    **dict.fromkeys(("full_attention", "sliding_attention", "chunked_attention"), GrowingLayer),
    **dict.fromkeys(("hybrid", "hybrid_sliding"), GrowingHybridLayer),
    "indexed_attention": GrowingIndexedLayer,
}
"""Type of a layer in transformers -> class of its cache, if it is not that of transformers."""


class AttentionCache(DynamicCache):
    """The keys and values of a model that stores its recurrent states in its modules (RecurrentGemma)."""


def make_cache(model: Any) -> Cache | None:
    """Return an empty cache for a transformers model; it can be truncated if `can_cut` is true.

    Returns None for a model with a cache class of its own (MiniMax), which it creates itself if it gets none.
    """
    module = sys.modules[type(model).__module__]
    classes = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Cache))
    if any(cls.__module__ == module.__name__ for cls in classes):
        return None
    kinds, settings = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    reset = getattr(model.base_model, "_setup_cache", None)
    cache = DynamicCache() if reset is None else AttentionCache()
    if reset is not None:
        weight = model.get_input_embeddings().weight
        reset(model.config, 1, weight.device, weight.dtype)
    cache.layer_class_to_replicate = GrowingLayer  # for models with more layers than the config has
    cache.layers = [
        (_LAYERS.get(kind) or DYNAMIC_LAYER_TYPE_MAPPING[kind])(**options)
        for kind, options in zip(kinds, settings, strict=True)
    ]
    return cache


def can_cut(cache: Any) -> bool:
    """Return whether `cut` works, which needs layers without recurrent states that keep all tokens."""
    return isinstance(cache, Cache) and all(_keeps_all(layer) for layer in cache.layers)


def cut(cache: Cache, length: int) -> None:
    """Remove all tokens from `length` on, in every layer."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.cut(length)


@dataclass(frozen=True)
class CacheSnapshot:
    """A copy of the part of a cache that `cut` cannot truncate.

    Attributes:
        length: number of tokens in the cache.
        states: a state for each layer.
    """

    length: int
    states: tuple[Any, ...]


def snapshot(cache: Any, length: int) -> CacheSnapshot | None:
    """Return a snapshot of a cache of `length` tokens; None if the cache is of a kind that cannot be restored."""
    if type(cache) is DynamicCache:
        return CacheSnapshot(length, tuple(_state(layer) for layer in cache.layers))
    if isinstance(cache, list) and all(isinstance(state, Tensor) for state in cache):  # RWKV
        return CacheSnapshot(length, tuple(copy.deepcopy(cache)))
    return None


def restore(cache: Any, saved: CacheSnapshot) -> None:
    """Return a cache to a snapshot of it, from which only tokens were added since."""
    if not isinstance(cache, Cache):
        cache[:] = copy.deepcopy(list(saved.states))
        return
    for layer, state in zip(cache.layers, saved.states, strict=True):
        vars(layer).update(copy.deepcopy(state))
    cut(cache, saved.length)


def _keeps_all(layer: Any) -> bool:
    return isinstance(layer, GrowingLayer | DummyLayer) and not isinstance(layer, GrowingHybridLayer)


def _state(layer: Any) -> dict[str, Any]:
    """Return a copy of the attributes of a layer, without those that `cut` maintains."""
    if _keeps_all(layer):
        return {}
    growing = _GROWING if isinstance(layer, GrowingLayer) else frozenset()
    return {name: copy.deepcopy(value) for name, value in vars(layer).items() if name not in growing}


def cache_bytes(cache: Any) -> int:
    """Return the memory of a cache of any kind."""
    if isinstance(cache, CacheSnapshot):
        return cache_bytes(cache.states)
    if isinstance(cache, GrowingLayer):
        # Instead of the used part: the allocated memory.
        return cache.nbytes + sum(cache_bytes(value) for name, value in vars(cache).items() if name not in _GROWING)
    if isinstance(cache, Tensor):
        return cache.nbytes
    if isinstance(cache, dict):
        return sum(cache_bytes(value) for value in cache.values())
    if isinstance(cache, list | tuple):
        return sum(cache_bytes(value) for value in cache)
    return cache_bytes(vars(cache)) if type(cache).__module__.startswith("transformers.") else 0
