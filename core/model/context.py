"""How many tokens a model reads at once, from its config. Knows the names that families have for it; reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.model.refusals import text_config

ASSUMED: Final = 2048
"""Tokens that a model is taken to read whose config does not say."""
_BEHIND_PADDING: Final = frozenset({
    "camembert", "data2vec-text", "longformer", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Model types that number positions from behind the id of their padding: of 514 positions 512 are read."""
_KEYS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def context_length(config: Mapping[str, Any]) -> int:
    """Tokens that the model reads at once; 0 where its config gives no positive whole number."""
    text = text_config(config)
    found = next((value for value in map(text.get, _KEYS) if type(value) is int and value > 0), 0)
    padding = text.get("pad_token_id", 1)
    if text.get("model_type") in _BEHIND_PADDING and type(padding) is int:
        return max(0, found - padding - 1)
    return found
