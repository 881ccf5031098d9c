"""Blocks that a model skips without a picture, such as the cross-attention blocks of Llama 3.2 Vision.

Here they are called like the others and return their input, so that every block has a place in the chain of blocks.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from torch import Tensor, nn


def run_all_blocks(model: nn.Module) -> None:
    """Let a model call the blocks that it would skip; without a picture, they return their input."""
    for module in model.modules():
        owner: Any = module
        skipped, blocks = getattr(owner, "cross_attention_layers", None), getattr(owner, "layers", None)
        if isinstance(skipped, list | tuple) and isinstance(blocks, nn.ModuleList):
            for number, block in enumerate(blocks):
                kind: Any = type(block)
                block.__class__ = _passing(kind) if number in skipped else kind
            owner.cross_attention_layers = ()


@cache
def _passing(cls: Any) -> Any:
    """Return a subclass of a block that returns its input if there are no states to attend to, new or cached."""

    def forward(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs.get("cross_attention_states")
        is_cached = sys.modules[cls.__module__]._has_cached_cross_attention_states
        if states is None and not is_cached(kwargs.get("past_key_values"), self.layer_idx):
            return hidden
        return cls.forward(self, hidden, *args, **kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**names, "forward": forward})
