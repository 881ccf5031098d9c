"""Rotary position embeddings (RoPE): settings of a config, scaling formulas, order of the rows of q and k."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]


def rope_settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the RoPE parameters of full layers and of sliding ones, from the keys of transformers 5 or earlier."""
    new = config.get("rope_parameters") or {}
    if isinstance(new.get("full_attention"), dict):
        full, sliding = dict(new["full_attention"]), dict(new.get("sliding_attention") or {})
    else:
        full, sliding = {**(config.get("rope_scaling") or {}), **new}, {}
    full.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    sliding.setdefault("rope_theta", config.get("rope_local_base_freq", 10000.0))
    return full, sliding


def rope_type(settings: Mapping[str, Any]) -> str:
    """Return the kind of scaling, "default" for none."""
    return str(settings.get("rope_type") or settings.get("type") or "default").lower()


def rope_types(config: Mapping[str, Any]) -> list[str]:
    """Return the kinds of scaling that the `rope_parameters` of a config have: one, or one for each layer type."""
    values = config.get("rope_parameters") or {}
    if "rope_type" in values:
        return [str(values["rope_type"])]
    return [str(part.get("rope_type")) for part in values.values() if isinstance(part, dict)]


def old_rope_keys(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `rope_parameters` under the keys of transformers before 5, which most inference engines read."""
    if not parameters:
        return {}
    full = parameters.get("full_attention", parameters)
    old: dict[str, Any] = {"rope_theta": full["rope_theta"]}
    if "sliding_attention" in parameters:
        old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
    if full.get("rope_type", "default") != "default":
        old["rope_scaling"] = {key: value for key, value in full.items() if key != "rope_theta"}
    return old


def llama3_factors(settings: Mapping[str, Any], rotary_dim: int) -> tuple[float, ...]:
    """Return the divisors of the rotary frequencies, [rotary_dim / 2].

    The formula is that of `_compute_llama3_parameters` in transformers.

    Args:
        settings: with `rope_theta`, `factor`, `low_freq_factor`, `high_freq_factor` and
            `original_max_position_embeddings`.
        rotary_dim: components of a head that are rotated.
    """
    factor, theta = float(settings["factor"]), float(settings["rope_theta"])
    low, high = float(settings["low_freq_factor"]), float(settings["high_freq_factor"])
    original = settings["original_max_position_embeddings"]
    factors = []
    for index in range(rotary_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * index / rotary_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def longrope_attention_factor(longest: int, original: int) -> float:
    """Return the attention factor of LongRoPE, as `_compute_longrope_parameters` of transformers computes it.

    Args:
        longest: `max_position_embeddings`.
        original: `original_max_position_embeddings`.
    """
    return math.sqrt(1 + math.log(longest / original) / math.log(original)) if longest > original else 1.0


def interleaved_rows(rows: int, heads: int) -> _Array:
    """Return the order in which a GGUF file stores the rows of q or k: the halves of each head interleaved.

    int64 [rows]: row i of the file is row `order[i]` of the model.
    """
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def split_rows(rows: int, heads: int) -> _Array:
    """Return the inverse of `interleaved_rows`: row i of the model is row `order[i]` of the file."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
