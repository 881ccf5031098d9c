"""The context length of a model, from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.model.towers import text_config

ASSUMED: Final = 2048
"""Context length assumed for a model whose config gives none."""
_BEHIND_PADDING: Final = frozenset({
    "camembert", "data2vec-text", "longformer", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Model types whose positions start after the id of the padding token: of 514 positions, 512 are usable."""
_KEYS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def context_length(config: Mapping[str, Any]) -> int:
    """Return the context length in tokens; 0 if the config has no positive integer for it."""
    text = text_config(config)
    found = next((value for value in map(text.get, _KEYS) if type(value) is int and value > 0), 0)
    padding = text.get("pad_token_id", 1)
    if text.get("model_type") in _BEHIND_PADDING and type(padding) is int:
        return max(0, found - padding - 1)
    return found
