"""The keys and values of the tokens that a transformers model has read: grows without copying, and can be cut back.

transformers' own cache copies all keys and values for every token, and forgets what has left a sliding window, so that
it cannot be cut back there. Knows nothing of models but their config.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, get_layer_types_and_kwargs

_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layer types whose masks leave out what is out of sight, so that a cache which keeps everything serves them too."""
_FIRST = 128
"""Tokens that the first piece of memory holds."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, [1, heads, tokens, width] each, in memory that doubles when it is full.

    `keys` and `values` are views of the part in use.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put more keys and values behind those that are there: all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < end:
            self._room = (self._larger(0, key_states, end), self._larger(1, value_states, end))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[..., self._used : end, :] = states
        self._show(end)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens."""
        self._show(max(0, self._used - abs(tokens_to_remove)))

    def cut(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        self._show(min(length, self._used))

    @property
    def nbytes(self) -> int:
        """Of the memory held, used or not."""
        return 0 if self._room is None else sum(part.nbytes for part in self._room)

    def _larger(self, which: int, like: Tensor, end: int) -> Tensor:
        size = max(end, _FIRST, 0 if self._room is None else 2 * self._room[which].shape[-2])
        room = like.new_empty(*like.shape[:-2], size, like.shape[-1])
        if self._room is not None:
            room[..., : self._used, :] = self._room[which][..., : self._used, :]
        return room

    def _show(self, end: int) -> None:
        self._used = end
        if self._room is not None:
            self.keys, self.values = (part[..., :end, :] for part in self._room)


def make_cache(config: Any) -> Cache:
    """An empty cache for a model of this transformers config; `can_cut` says whether it can be cut back."""
    kinds, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    if set(kinds) <= _ATTENTION:
        return Cache(layers=[GrowingLayer() for _ in kinds])
    return DynamicCache(config=config)  # states of linear attention and the like, which have no length


def can_cut(cache: Any) -> bool:
    """Whether `cut` works: every layer keeps all that it has seen."""
    return isinstance(cache, Cache) and all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def cut(cache: Cache, length: int) -> None:
    """Forget all tokens from `length` on, in every layer."""
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.cut(length)


def cache_bytes(cache: Any) -> int:
    """Memory that the cache holds, of whatever kind it is."""
    if isinstance(cache, GrowingLayer):
        return cache.nbytes
    if isinstance(cache, Tensor):
        return cache.nbytes
    if isinstance(cache, dict):
        return sum(cache_bytes(value) for value in cache.values())
    if isinstance(cache, list | tuple):
        return sum(cache_bytes(value) for value in cache)
    return cache_bytes(vars(cache)) if type(cache).__module__.startswith("transformers.") else 0
