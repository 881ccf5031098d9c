"""Formulas of RoPE against transformers, and the order of rows in a GGUF file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from core.model.architectures.rope import interleaved_rows, llama3_factors, longrope_attention_factor, split_rows


def test_llama3_factors_are_those_of_transformers() -> None:
    scaling = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=scaling)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    assert llama3_factors(scaling, 16) == pytest.approx((plain / scaled).tolist(), rel=1e-6)


def test_the_longrope_attention_factor_is_that_of_transformers() -> None:
    config = transformers.Phi3Config(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=512, original_max_position_embeddings=256,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 256,
            "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
        },
    )  # fmt: skip
    _, factor = ROPE_INIT_FUNCTIONS["longrope"](config, "cpu")
    assert longrope_attention_factor(512, 256) == pytest.approx(factor)
    assert longrope_attention_factor(256, 256) == 1.0


@given(st.integers(1, 8), st.integers(1, 16))
def test_split_rows_is_the_inverse_of_interleaved_rows(heads: int, half: int) -> None:
    rows = 2 * heads * half
    assert np.array_equal(interleaved_rows(rows, heads)[split_rows(rows, heads)], np.arange(rows))
