"""RoPE settings in a GGUF file, written and read: metadata and tensors of frequency divisors.

The settings are those of transformers (its modeling_rope_utils.py), the keys those of llama.cpp
(its src/llama-model.cpp). Settings that llama.cpp would compute differently are refused in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core.errors import CorruptFile, UnsupportedModel
from core.formats.gguf.file import Entry
from core.model.architectures.config import head_dim
from core.model.architectures.rope import llama3_factors, longrope_attention_factor, rope_settings, rope_type
from core.model.architectures.table import Architecture
from core.model.gguf_header import GgufHeader

ROPE_FACTORS: Final = "rope_freqs.weight"
"""Tensor of Llama 3's scaling: one divisor for each rotary frequency."""
LONG_FACTORS: Final = "rope_factors_long.weight"
SHORT_FACTORS: Final = "rope_factors_short.weight"
"""Tensors of LongRoPE: divisors for long and for short texts."""
FACTORS: Final = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)

_HINT: Final = "Choose another format, such as auto_round."
_ORIGINAL: Final = "Use the original as a folder or from the Hub."
_Config = dict[str, Any]


@dataclass(frozen=True)
class RopeEntries:
    """RoPE settings as a file has them.

    Attributes:
        entries: metadata, keys without the architecture's name.
        tensors: float32 [n] by name.
        notes: for the user.
    """

    entries: tuple[Entry, ...]
    tensors: dict[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()


def rope_entries(architecture: Architecture, config: _Config) -> RopeEntries:
    """Return the RoPE settings of a config as a file has them.

    Args:
        architecture: of the model, with GGUF rules.
        config: of the language model, complete.

    Raises:
        UnsupportedModel: a scaling that llama.cpp does not compute for this architecture.
    """
    gguf = architecture.gguf
    assert gguf is not None
    full, sliding = rope_settings(config)
    part = float(full.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    if part != 1.0 and not architecture.partial_rotary:
        raise UnsupportedModel(
            f"Only a part of each head is rotated ({part:g}), which is not written for {gguf.name}.", _HINT
        )
    rotary_dim = int(config["head_dim"] * part)
    entries = [Entry.float("rope.freq_base", full["rope_theta"]), Entry.count("rope.dimension_count", rotary_dim)]
    if architecture.rope_per_layer_type:
        entries.append(Entry.float("rope.freq_base_swa", sliding["rope_theta"]))
        if rope_type(sliding) != "default":
            raise UnsupportedModel("The sliding layers scale their rotary positions, which is not written.", _HINT)
    kind = {"su": "longrope"}.get(rope_type(full), rope_type(full))
    if kind == "default":
        return RopeEntries(tuple(entries), {})
    if kind not in gguf.rope_types:
        raise UnsupportedModel(
            f"Rotary positions are scaled by the rule {rope_type(full)[:40]!r}, which llama.cpp does not compute for "
            f"{gguf.name}.",
            _HINT,
        )
    if kind == "longrope":
        return _write_longrope(entries, full, config, rotary_dim)
    factor = _factor(full)
    if kind == "llama3":
        return RopeEntries(tuple(entries), {ROPE_FACTORS: llama3_factors(full, rotary_dim)})
    if kind == "yarn":
        return RopeEntries((*entries, *_write_yarn(full, config)), {})
    linear = [Entry.text("rope.scaling.type", "linear"), Entry.float("rope.scaling.factor", factor)]
    return RopeEntries((*entries, *linear), {})


def _factor(settings: Mapping[str, Any]) -> float:
    factor = settings.get("factor")
    if not isinstance(factor, int | float) or factor < 1:
        raise UnsupportedModel(
            "The config scales rotary positions without giving the factor.", "Fetch config.json again."
        )
    return float(factor)


def _write_yarn(settings: Mapping[str, Any], config: _Config) -> list[Entry]:
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
    betas = [key for key in ("beta_fast", "beta_slow") if settings.get(key) is not None]
    return entries + [Entry.float(f"rope.scaling.yarn_{key}", settings[key]) for key in betas]


def _write_longrope(entries: list[Entry], settings: Mapping[str, Any], config: _Config, rotary_dim: int) -> RopeEntries:
    original = (
        config.get("original_max_position_embeddings")
        or settings.get("original_max_position_embeddings")
        or config["max_position_embeddings"]
    )
    short, long = settings.get("short_factor"), settings.get("long_factor")
    if not (isinstance(short, list) and isinstance(long, list) and len(short) == len(long) == rotary_dim // 2):
        raise UnsupportedModel(
            f"The config must give {rotary_dim // 2} rotary factors for short texts and for long ones.",
            "Fetch config.json again.",
        )
    scale = settings.get("attention_factor")
    if scale is None:
        scale = longrope_attention_factor(config["max_position_embeddings"], original)
    entries = [
        *entries,
        Entry.text("rope.scaling.type", "longrope"),
        Entry.count("rope.scaling.original_context_length", original),
        Entry.float("rope.scaling.attn_factor", scale),
    ]
    tensors = {LONG_FACTORS: tuple(map(float, long)), SHORT_FACTORS: tuple(map(float, short))}
    note = (
        f"llama.cpp uses the rotary factors for long texts whenever its context is larger than {original} tokens, "
        "transformers only when the text is that long."
    )
    return RopeEntries(tuple(entries), tensors, (note,))


def rope_config(
    architecture: Architecture,
    header: GgufHeader,
    config: _Config,
    factors: Mapping[str, Sequence[float]],
) -> _Config:
    """Return the RoPE keys that a file's metadata and tensors give a config.

    Args:
        architecture: of the model, with GGUF rules.
        header: of the file.
        config: what is known already: sizes, `head_dim`.
        factors: values of those of the tensors `FACTORS` that the file has.

    Raises:
        UnsupportedModel: a scaling that cannot be read back exactly.
        CorruptFile: divisors that do not fit the metadata.
    """
    gguf = architecture.gguf
    assert gguf is not None
    of = metadata_reader(header)
    found: _Config = {}
    if gguf.rope_types and (theta := of("rope.freq_base")) is not None:
        found["rope_theta"] = tidy(theta)
    if architecture.rope_per_layer_type and (theta := of("rope.freq_base_swa")) is not None:
        found["rope_local_base_freq"] = tidy(theta)
    if architecture.partial_rotary and (rotary_dim := of("rope.dimension_count")):
        found["partial_rotary_factor"] = rotary_dim / head_dim(config)
    if "longrope" in gguf.rope_types:
        original = of("rope.scaling.original_context_length") or of("context_length")
        found["original_max_position_embeddings"] = original
    scaling = _read_scaling(gguf.rope_types, header, config | found, factors)
    return found | ({"rope_scaling": scaling} if scaling else {})


def _read_scaling(
    known: frozenset[str], header: GgufHeader, config: _Config, factors: Mapping[str, Sequence[float]]
) -> _Config:
    of = metadata_reader(header)
    kind = of("rope.scaling.type") or "none"
    divisors = factors.get(ROPE_FACTORS)
    long, short = (factors.get(name) for name in (LONG_FACTORS, SHORT_FACTORS))
    if "longrope" in known and long and short and kind in ("none", "longrope"):
        return _read_longrope(header, config, long, short)
    if divisors is not None and set(divisors) != {1.0} and "llama3" in known:
        return _read_llama3(divisors, config, header.label)
    if kind == "linear" and kind in known:
        return {"rope_type": "linear", "factor": tidy(of("rope.scaling.factor") or 1.0)}
    if kind == "yarn" and kind in known and _is_plain_yarn(header):
        return _read_yarn(header)
    if kind != "none" or long or short or not set(divisors or ()) <= {1.0}:
        raise UnsupportedModel(
            f"{header.label} scales its rotary positions in a way that is not imported ({kind[:40]!r}).", _ORIGINAL
        )
    return {}


def _is_plain_yarn(header: GgufHeader) -> bool:
    """Return whether YaRN is given by its factor and lengths alone, as in transformers."""
    start = f"{header.architecture}.rope.scaling."
    known = {"type", "factor", "original_context_length", "finetuned", "yarn_beta_fast", "yarn_beta_slow"}
    found = {key.removeprefix(start) for key in header.metadata if key.startswith(start)}
    return found <= known and {"factor", "original_context_length"} <= found


def _read_yarn(header: GgufHeader) -> _Config:
    of = metadata_reader(header)
    scaling = {
        "rope_type": "yarn",
        "factor": tidy(of("rope.scaling.factor")),
        "original_max_position_embeddings": of("rope.scaling.original_context_length"),
    }
    betas = {key: tidy(of(f"rope.scaling.yarn_{key}")) for key in ("beta_fast", "beta_slow")}
    return scaling | {key: value for key, value in betas.items() if value is not None}


def _read_longrope(header: GgufHeader, config: _Config, long: Sequence[float], short: Sequence[float]) -> _Config:
    of = metadata_reader(header)
    original, longest = config["original_max_position_embeddings"], config.get("max_position_embeddings")
    rotary_dim = of("rope.dimension_count") or head_dim(config)
    sizes = (original, longest, rotary_dim)
    if any(type(size) is not int or size < 2 for size in sizes) or not len(long) == len(short) == rotary_dim // 2:
        raise CorruptFile(f"{header.label} has rotary divisors that do not fit its metadata.", "Fetch the file again.")
    scaling = {
        "rope_type": "longrope",
        "long_factor": [tidy(value) for value in long],
        "short_factor": [tidy(value) for value in short],
        "original_max_position_embeddings": original,
    }
    part, stated = config.get("partial_rotary_factor", 1.0), of("rope.scaling.attn_factor")
    if part != 1.0:
        scaling["partial_rotary_factor"] = part
    assert isinstance(longest, int)
    if stated is not None and not math.isclose(stated, longrope_attention_factor(longest, original), rel_tol=1e-5):
        scaling["attention_factor"] = tidy(stated)
    return scaling


def _read_llama3(factors: Sequence[float], config: _Config, label: str) -> _Config:
    """Return the Llama 3 settings that give exactly these divisors.

    Every Llama 3.x has the low factor 1, the high factor 4 and 8192 original positions; other models have another power
    of two. The scaling factor is the largest divisor, and the others must follow from it.
    """
    size = head_dim(config)
    found = {
        "rope_type": "llama3", "factor": tidy(max(factors)), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }  # fmt: skip
    exact = found | {"factor": max(factors), "rope_theta": config.get("rope_theta", 10000.0)}
    for power in (13, *range(5, 21)) if len(factors) == size // 2 and max(factors) >= 1 else ():
        length = {"original_max_position_embeddings": 1 << power}
        if np.allclose(factors, llama3_factors(exact | length, size), rtol=1e-3):
            return found | length
    raise UnsupportedModel(f"{label} scales its rotary positions in a way that is not imported.", _ORIGINAL)


def metadata_reader(header: GgufHeader) -> Callable[[str], Any]:
    """Return a function from a metadata key, without the architecture's name, to its value or None."""
    return lambda key: header.metadata.get(f"{header.architecture}.{key}")


def tidy(value: Any) -> Any:
    """Return a stored 32-bit float as the shortest decimal that it is: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
