"""How many tokens a model reads at once, from its config. Knows the names that families have for it; reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.model.refusals import text_config

ASSUMED: Final = 2048
"""Tokens that a model is taken to read whose config does not say."""
_KEYS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def context_length(config: Mapping[str, Any]) -> int:
    """Tokens that the model reads at once; 0 where its config gives no positive whole number."""
    values = map(text_config(config).get, _KEYS)
    return next((value for value in values if type(value) is int and value > 0), 0)
