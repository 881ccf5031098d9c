"""A key-value cache for transformers models that grows without copying for each token and can be truncated.

transformers' own cache copies all keys and values for every token, and discards those outside a sliding window, so that
it cannot be truncated there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, get_layer_types_and_kwargs

_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layer types whose masks exclude tokens outside the window, so that a cache that keeps all tokens is correct."""
_INITIAL_TOKENS = 128
"""Initial capacity in tokens."""


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


def make_cache(config: Any) -> Cache:
    """Return an empty cache for a model with this transformers config; it can be truncated if `can_cut` is true."""
    kinds, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    if set(kinds) <= _ATTENTION:
        return Cache(layers=[GrowingLayer() for _ in kinds])
    return DynamicCache(config=config)  # for recurrent states, such as those of linear attention


def can_cut(cache: Any) -> bool:
    """Return whether `cut` works, which needs layers that keep all tokens."""
    return isinstance(cache, Cache) and all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def cut(cache: Cache, length: int) -> None:
    """Remove all tokens from `length` on, in every layer."""
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.cut(length)


def cache_bytes(cache: Any) -> int:
    """Return the memory of a cache of any kind."""
    if isinstance(cache, GrowingLayer):
        return cache.nbytes
    if isinstance(cache, Tensor):
        return cache.nbytes
    if isinstance(cache, dict):
        return sum(cache_bytes(value) for value in cache.values())
    if isinstance(cache, list | tuple):
        return sum(cache_bytes(value) for value in cache)
    return cache_bytes(vars(cache)) if type(cache).__module__.startswith("transformers.") else 0
