"""Context length under the config keys of different families."""

from __future__ import annotations

from typing import Any

import pytest

from core.model.context import context_length


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024, "n_ctx": 512}, 1024),
        ({"seq_length": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 256}}, 256),
        ({"max_position_embeddings": None, "n_ctx": 512}, 512),
        ({"max_position_embeddings": "many"}, 0),
        ({"n_positions": -1}, 0),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ({}, 0),
    ],
)
def test_the_first_key_with_a_positive_integer_gives_the_context_length(config: dict[str, Any], tokens: int) -> None:
    assert context_length(config) == tokens
