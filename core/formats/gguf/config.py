"""From a GGUF file's metadata to a transformers config.

Starts from the key names that transformers maps itself and corrects what its mapping leaves out: without that,
head sizes, rope scaling and attention scales would silently be one checkpoint's defaults. An architecture that
is not in the table here is refused, not guessed. Knows no tensor's values but the rope factors'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from core.errors import CorruptFile, UnsupportedModel
from core.model.gguf_header import GgufHeader, NumberArray

ROPE_FACTORS: Final = "rope_freqs.weight"
"""Llama 3's scaling is stored as a tensor of divisors, one for each rotary frequency."""

LONG_FACTORS: Final = "rope_factors_long.weight"
SHORT_FACTORS: Final = "rope_factors_short.weight"
"""Phi-3's: one set of divisors for long texts and one for short ones."""

FACTORS: Final = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)

_Config = dict[str, Any]

_COUNTS: Final = (
    "attention.sliding_window", "attention.value_length", "rope.scaling.original_context_length", "expert_count",
)  # fmt: skip
_SIZES: Final = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "rope.dimension_count", "vocab_size",
)  # fmt: skip
_NUMBERS: Final = (
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.freq_base_swa",
    "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "attn_logit_softcapping", "final_logit_softcapping",
)  # fmt: skip


def build_config(header: GgufHeader, label: str, factors: Mapping[str, Sequence[float]] = MappingProxyType({})) -> Any:
    """The `PreTrainedConfig` of the model in a GGUF file.

    Args:
        header: of the file.
        label: its name, for messages.
        factors: the values of those of the tensors `FACTORS` that the file has.

    Raises:
        UnsupportedModel: an architecture, or a detail of one, that is not imported.
        CorruptFile: metadata that contradict the tensors.
    """
    from transformers import AutoConfig

    check_supported(header, label)
    _check_types(header, label)
    architecture = header.architecture
    model_type, correct = _ARCHITECTURES[architecture]
    config = _mapped(header, label)
    correct(config, header)
    _rope_scaling(config, header, label, factors)
    try:
        built = AutoConfig.for_model(model_type, **config)
    except Exception as error:  # transformers raises whatever its validators do
        raise CorruptFile(f"The metadata of {label} make no {model_type} config: {_line(error)}.", "") from error
    built.dtype = "bfloat16"
    return built


def old_rope_keys(parameters: _Config | None) -> _Config:
    """The rotary settings under the names that releases of transformers before 5 read, which most engines carry."""
    if not parameters:
        return {}
    whole = parameters.get("full_attention", parameters)
    old: _Config = {"rope_theta": whole["rope_theta"]}
    if "sliding_attention" in parameters:
        old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
    if whole.get("rope_type", "default") != "default":
        old["rope_scaling"] = {key: value for key, value in whole.items() if key != "rope_theta"}
    return old


def check_supported(header: GgufHeader, label: str) -> None:
    """Refuse what is not imported, by the header alone.

    Raises:
        UnsupportedModel: with the reason in one sentence.
    """
    architecture = header.architecture
    known = f"Imported are {', '.join(sorted(_ARCHITECTURES))}; use the original as a folder or from the Hub."
    if not architecture:
        raise UnsupportedModel(f"{label} does not say which architecture it has.", known)
    if header.metadata.get("general.type", "model") != "model":
        kind = str(header.metadata["general.type"])[:40]
        raise UnsupportedModel(f"{label} holds no whole model but {kind!r}.", known)
    if header.metadata.get(f"{architecture}.expert_count"):
        raise UnsupportedModel(f"{label} is a mixture of experts, which this version does not import.", known)
    if architecture not in _ARCHITECTURES:
        raise UnsupportedModel(f"{label} has the architecture {architecture[:40]!r}, which is not imported.", known)


def _check_types(header: GgufHeader, label: str) -> None:
    """Hold every value that a config is made of against what it must be: a count, a positive number or text.

    Raises:
        CorruptFile: another kind of value.
    """
    wrong = []
    for key in (*_COUNTS, *_SIZES, *_NUMBERS, "rope.scaling.type"):
        value = header.metadata.get(f"{header.architecture}.{key}")
        if isinstance(value, list | NumberArray):
            raise UnsupportedModel(f"In {label}, {key} differs from layer to layer, which is not imported.", "")
        if value is None:
            fine = True
        elif key in _NUMBERS:
            fine = type(value) in (int, float) and math.isfinite(value) and value > 0
        elif key == "rope.scaling.type":
            fine = isinstance(value, str)
        else:
            fine = type(value) is int and (key in _COUNTS or value > 0) and value < 1 << 31
        wrong += [] if fine else [key]
    for name in ("bos", "eos", "padding", "unknown", "eot"):
        value = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        wrong += [] if value is None or type(value) is int else [f"{name}_token_id"]
    if wrong:
        raise CorruptFile(f"{label} has a value of {wrong[0]} that cannot be.", "Fetch the file again.")


def _mapped(header: GgufHeader, label: str) -> _Config:
    """What transformers' own table of names gives, with the facts that the tensors state better."""
    from transformers.integrations import ggml

    names: Any = ggml.GGUF_CONFIG_MAPPING
    architecture = header.architecture
    config: _Config = {}
    # The first Gemma is missing there; its keys are those of the second.
    for key, name in names["gemma2" if architecture == "gemma" else architecture].items():
        value = header.metadata.get(f"{architecture}.{key}")
        if name is not None and value is not None:
            config[name] = _tidy(value)
    for key, name in names["tokenizer"].items():
        config[name] = header.metadata.get(f"tokenizer.{key}")
    embedding = header.tensors.get("token_embd.weight")
    blocks = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    block_count = header.metadata.get(f"{architecture}.block_count")
    if embedding is None or len(embedding.shape) != 2:
        raise CorruptFile(f"{label} has no token embedding.", "Fetch the file again.")
    if block_count != len(blocks) or not blocks:
        raise CorruptFile(f"{label} promises {block_count} blocks and has {len(blocks)}.", "Fetch the file again.")
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    heads = header.metadata.get(f"{architecture}.attention.head_count")
    width = header.metadata.get(f"{architecture}.embedding_length")
    if width != embedding.shape[1] or type(heads) is not int or not 0 < heads <= width:
        raise CorruptFile(f"{label} has metadata that contradict its tensors.", "Fetch the file again.")
    if architecture != "gpt2":
        config.setdefault("num_key_value_heads", heads)
    return config


def _head_dim(header: GgufHeader) -> int:
    """Size of an attention head: stated, or width / heads. llama.cpp leaves the key out where that is it."""
    of = _reader(header)
    return int(of("attention.key_length") or of("embedding_length") // of("attention.head_count"))


def _reader(header: GgufHeader) -> Callable[[str], Any]:
    return lambda key: header.metadata.get(f"{header.architecture}.{key}")


def _llama(config: _Config, header: GgufHeader) -> None:
    config["head_dim"] = _head_dim(header)
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    config["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors


def _qwen2(config: _Config, header: GgufHeader) -> None:
    # Qwen2's attention has no head size of its own; the tensors' shapes are checked against width / heads.
    config["use_sliding_window"] = False


def _qwen3(config: _Config, header: GgufHeader) -> None:
    config["head_dim"] = _head_dim(header)
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors


def _phi3(config: _Config, header: GgufHeader) -> None:
    of = _reader(header)
    if window := of("attention.sliding_window"):
        config["sliding_window"] = window
    if rotary := of("rope.dimension_count"):
        config["partial_rotary_factor"] = rotary / _head_dim(header)
    config["original_max_position_embeddings"] = of("rope.scaling.original_context_length") or of("context_length")


def _gemma(config: _Config, header: GgufHeader) -> None:
    head_dim = _head_dim(header)
    config["head_dim"] = head_dim
    if header.architecture == "gemma":
        return
    # No key states the attention scale. llama.cpp knows the two largest models, whose scale is that of width / heads.
    largest = {"gemma2": 46, "gemma3": 62}[header.architecture]
    by_width = header.metadata[f"{header.architecture}.block_count"] == largest
    config["query_pre_attn_scalar"] = config["hidden_size"] // config["num_attention_heads"] if by_width else head_dim
    of = _reader(header)
    config |= _windows(header, of)
    if (local := of("rope.freq_base_swa")) is not None and header.architecture == "gemma3":
        config["rope_local_base_freq"] = _tidy(local)
    for key, name in (("attn_logit_softcapping", "attn_logit_softcapping"),
                      ("final_logit_softcapping", "final_logit_softcapping")):  # fmt: skip
        if (value := of(key)) is not None:
            config[name] = _tidy(value)


def _windows(header: GgufHeader, of: Callable[[str], Any]) -> _Config:
    """Which blocks slide, where the file says it block by block or has no window at all."""
    blocks = header.metadata[f"{header.architecture}.block_count"]
    pattern = of("attention.sliding_window_pattern")
    if of("attention.sliding_window") == 0:
        return {"layer_types": ["full_attention"] * blocks, "sliding_window": None}
    if not isinstance(pattern, list):
        return {}
    return {"layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern]}


def _gpt2(config: _Config, header: GgufHeader) -> None:
    positions = header.tensors.get("position_embd.weight")
    if positions is not None:
        config["n_positions"] = positions.shape[0]
    config["n_inner"] = config.pop("feed_forward_length", None)
    config.pop("n_ctx", None)


_ARCHITECTURES: Final[dict[str, tuple[str, Callable[[_Config, GgufHeader], None]]]] = {
    "llama": ("llama", _llama),
    "qwen2": ("qwen2", _qwen2),
    "qwen3": ("qwen3", _qwen3),
    "phi3": ("phi3", _phi3),
    "gemma": ("gemma", _gemma),
    "gemma2": ("gemma2", _gemma),
    "gemma3": ("gemma3_text", _gemma),
    "gpt2": ("gpt2", _gpt2),
}
"""GGUF architecture -> transformers model type, and what its name table leaves out."""


def _rope_scaling(config: _Config, header: GgufHeader, label: str, factors: Mapping[str, Sequence[float]]) -> None:
    """Rope scaling, where it is one that can be read back exactly.

    Raises:
        UnsupportedModel: any other.
    """
    of = _reader(header)
    kind = of("rope.scaling.type") or "none"
    divisors = factors.get(ROPE_FACTORS)
    long, short = (factors.get(name) for name in (LONG_FACTORS, SHORT_FACTORS))
    if header.architecture == "phi3" and long and short and kind in ("none", "longrope"):
        config["rope_scaling"] = _longrope(config, header, label, long, short)
    elif divisors is not None and set(divisors) != {1.0} and header.architecture == "llama":
        theta = config.get("rope_theta", 10000.0)
        config["rope_scaling"] = _llama3_scaling(divisors, theta, config["head_dim"], label)
    elif kind == "linear" and header.architecture != "phi3":
        config["rope_scaling"] = {"rope_type": "linear", "factor": _tidy(of("rope.scaling.factor") or 1.0)}
    elif kind == "yarn" and header.architecture in ("llama", "qwen2", "qwen3") and _is_plain_yarn(header):
        config["rope_scaling"] = _yarn(header)
    elif kind != "none" or long or short or not set(divisors or ()) <= {1.0}:
        raise UnsupportedModel(
            f"{label} scales its rotary positions in a way that is not imported ({kind[:40]!r}).",
            "Use the original as a folder or from the Hub.",
        )


def _is_plain_yarn(header: GgufHeader) -> bool:
    """Whether YaRN is said by its factor and lengths alone, as transformers says it."""
    start = f"{header.architecture}.rope.scaling."
    known = {"type", "factor", "original_context_length", "finetuned", "yarn_beta_fast", "yarn_beta_slow"}
    said = {key.removeprefix(start) for key in header.metadata if key.startswith(start)}
    return said <= known and {"factor", "original_context_length"} <= said


def _yarn(header: GgufHeader) -> _Config:
    of = _reader(header)
    scaling = {
        "rope_type": "yarn",
        "factor": _tidy(of("rope.scaling.factor")),
        "original_max_position_embeddings": of("rope.scaling.original_context_length"),
    }
    betas = {key: _tidy(of(f"rope.scaling.yarn_{key}")) for key in ("beta_fast", "beta_slow")}
    return scaling | {key: value for key, value in betas.items() if value is not None}


def _longrope(
    config: _Config, header: GgufHeader, label: str, long: Sequence[float], short: Sequence[float]
) -> _Config:
    """Phi-3's scaling: the divisors as they are stored, and the lengths from which its attention factor follows.

    Formula of that factor: `_compute_longrope_parameters` of transformers.
    """
    of = _reader(header)
    original, longest = config["original_max_position_embeddings"], config.get("max_position_embeddings")
    rotated = of("rope.dimension_count") or _head_dim(header)
    sizes = (original, longest, rotated)
    if any(type(size) is not int or size < 2 for size in sizes) or not len(long) == len(short) == rotated // 2:
        raise CorruptFile(f"{label} has rotary divisors that do not fit its metadata.", "Fetch the file again.")
    scaling = {
        "rope_type": "longrope",
        "long_factor": [_tidy(value) for value in long],
        "short_factor": [_tidy(value) for value in short],
        "original_max_position_embeddings": original,
    }
    share, stated = config.get("partial_rotary_factor", 1.0), of("rope.scaling.attn_factor")
    if share != 1.0:
        scaling["partial_rotary_factor"] = share
    usual = math.sqrt(1 + math.log(longest / original) / math.log(original)) if longest > original else 1.0
    if stated is not None and not math.isclose(stated, usual, rel_tol=1e-5):
        scaling["attention_factor"] = _tidy(stated)
    return scaling


def _llama3_scaling(factors: Sequence[float], theta: float, head_dim: int, label: str) -> dict[str, Any]:
    """The Llama 3 settings that give exactly these divisors.

    Every Llama 3.x has low 1, high 4 and 8192 original positions, others another power of two; the factor is the
    largest divisor, and the others must follow from it.
    """
    found = {
        "rope_type": "llama3", "factor": _tidy(max(factors)), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }  # fmt: skip
    for power in (13, *range(5, 21)):
        if len(factors) == head_dim // 2 and np.allclose(
            factors, _llama3_divisors(max(factors), theta, head_dim, 1 << power), rtol=1e-3
        ):
            return found | {"original_max_position_embeddings": 1 << power}
    raise UnsupportedModel(
        f"{label} scales its rotary positions in a way that is not imported.",
        "Use the original as a folder or from the Hub.",
    )


def _llama3_divisors(factor: float, theta: float, head_dim: int, original: int) -> list[float]:
    """What each rotary frequency is divided by; formula: `_compute_llama3_parameters` of transformers."""
    low, high = 1.0, 4.0
    found: list[float] = []
    for index in range(head_dim // 2 if factor >= 1 else 0):
        wavelength = 2 * math.pi * theta ** (2 * index / head_dim)
        smooth = (original / wavelength - low) / (high - low)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(factor)
        else:
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def _tidy(value: Any) -> Any:
    """A stored 32-bit float as the shortest decimal that is it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".")
