"""How a config's rotary positions are said in a GGUF file: metadata and computed tensors.

Knows the settings of transformers (its modeling_rope_utils.py) and the keys of llama.cpp (src/llama-model.cpp); what
llama.cpp would compute otherwise is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from core.errors import UnsupportedModel
from core.formats.gguf.file import Entry

_HINT: Final = "Choose another format, such as auto_round."


@dataclass(frozen=True)
class Positions:
    """Metadata (keys without the architecture's name), tensors by name (float32 [n]), and notes for the user."""

    entries: tuple[Entry, ...]
    tensors: dict[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()


def rotary(architecture: str, config: dict[str, Any]) -> Positions:
    """What a file of an architecture says of rotary positions.

    Args:
        architecture: of llama.cpp.
        config: of the language model, complete.

    Raises:
        UnsupportedModel: a scaling that llama.cpp has not, or not for this architecture.
    """
    whole, local = _settings(config)
    size = config["head_dim"]
    part = float(whole.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    if part != 1.0 and architecture != "phi3":
        raise UnsupportedModel(
            f"Only a part of each head is rotated ({part:g}), which is not written for {architecture}.", _HINT
        )
    rotated = int(size * part)
    entries = [
        Entry.float("rope.freq_base", whole["rope_theta"]),
        Entry.count("rope.dimension_count", rotated),
    ]
    if architecture == "gemma3":
        entries.append(Entry.float("rope.freq_base_swa", local["rope_theta"]))
        if _kind(local) != "default":
            raise UnsupportedModel("The sliding layers scale their rotary positions, which is not written.", _HINT)
    kind = _kind(whole)
    if kind == "default":
        return Positions(tuple(entries), {})
    if kind == "linear":
        entries += [
            Entry.text("rope.scaling.type", "linear"),
            Entry.float("rope.scaling.factor", _factor(whole)),
        ]
        return Positions(tuple(entries), {})
    if kind == "llama3" and architecture == "llama":
        return Positions(tuple(entries), {"rope_freqs.weight": llama3_factors(whole, rotated)})
    if kind == "yarn" and architecture in ("llama", "qwen2", "qwen3"):
        return Positions((*entries, *_yarn(whole, config)), {})
    if kind in ("longrope", "su") and architecture == "phi3":
        return _longrope(entries, whole, config, rotated)
    raise UnsupportedModel(
        f"Rotary positions are scaled by the rule {kind[:40]!r}, which llama.cpp does not know for {architecture}.",
        _HINT,
    )


def llama3_factors(settings: dict[str, Any], rotated: int) -> tuple[float, ...]:
    """Divisors of the rotary frequencies, [rotated / 2]; formula: `_compute_llama3_parameters` of transformers."""
    factor, low, high = _factor(settings), float(settings["low_freq_factor"]), float(settings["high_freq_factor"])
    original = settings["original_max_position_embeddings"]
    found = []
    for index in range(rotated // 2):
        wavelength = 2 * math.pi * float(settings["rope_theta"]) ** (2 * index / rotated)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(found)


def _settings(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the full layers and of the sliding ones, from the keys of transformers 5 or of those before."""
    new = config.get("rope_parameters") or {}
    if isinstance(new.get("full_attention"), dict):
        whole, local = dict(new["full_attention"]), dict(new.get("sliding_attention") or {})
    else:
        whole, local = {**(config.get("rope_scaling") or {}), **new}, {}
    whole.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    local.setdefault("rope_theta", config.get("rope_local_base_freq", 10000.0))
    return whole, local


def _kind(settings: dict[str, Any]) -> str:
    return str(settings.get("rope_type") or settings.get("type") or "default").lower()


def _factor(settings: dict[str, Any]) -> float:
    factor = settings.get("factor")
    if not isinstance(factor, int | float) or factor < 1:
        raise UnsupportedModel(
            "The config scales rotary positions and does not say by what.", "Fetch config.json again."
        )
    return float(factor)


def _yarn(settings: dict[str, Any], config: dict[str, Any]) -> list[Entry]:
    factor = _factor(settings)
    usual = 0.1 * math.log(factor) + 1.0
    given = settings.get("attention_factor")
    if (
        settings.get("mscale")
        or settings.get("mscale_all_dim")
        or settings.get("truncate") is False
        or (given is not None and not math.isclose(given, usual, rel_tol=1e-6))
    ):
        raise UnsupportedModel("The model's YaRN scaling has settings that are not written.", _HINT)
    entries = [
        Entry.text("rope.scaling.type", "yarn"),
        Entry.float("rope.scaling.factor", factor),
        Entry.count(
            "rope.scaling.original_context_length",
            settings.get("original_max_position_embeddings") or config["max_position_embeddings"],
        ),
    ]
    given_too = [key for key in ("beta_fast", "beta_slow") if settings.get(key) is not None]
    return entries + [Entry.float(f"rope.scaling.yarn_{key}", settings[key]) for key in given_too]


def _longrope(entries: list[Entry], settings: dict[str, Any], config: dict[str, Any], rotated: int) -> Positions:
    """Phi-3's two sets of divisors, for short texts and for long ones; formula: `_compute_longrope_parameters`."""
    original = (
        config.get("original_max_position_embeddings")
        or settings.get("original_max_position_embeddings")
        or config["max_position_embeddings"]
    )
    short, long = settings.get("short_factor"), settings.get("long_factor")
    if not (isinstance(short, list) and isinstance(long, list) and len(short) == len(long) == rotated // 2):
        raise UnsupportedModel(
            f"The config must give {rotated // 2} rotary factors for short texts and for long ones.",
            "Fetch config.json again.",
        )
    ratio = config["max_position_embeddings"] / original
    scale = settings.get("attention_factor")
    if scale is None:
        scale = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    entries = [
        *entries,
        Entry.text("rope.scaling.type", "longrope"),
        Entry.count("rope.scaling.original_context_length", original),
        Entry.float("rope.scaling.attn_factor", scale),
    ]
    tensors = {
        "rope_factors_long.weight": tuple(map(float, long)),
        "rope_factors_short.weight": tuple(map(float, short)),
    }
    note = (
        f"llama.cpp takes the rotary factors for long texts as soon as its context is set above {original} tokens, "
        "transformers only when a text is that long."
    )
    return Positions(tuple(entries), tensors, (note,))
