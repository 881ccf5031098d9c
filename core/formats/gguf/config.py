"""The transformers config of the model in a GGUF file, made from the file's metadata.

An architecture that is not in `core.model.architectures.table`, or a detail that the config cannot express, is refused.
Reads no tensor values but those of the RoPE divisors, which the caller passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from core.errors import CorruptFile, UnsupportedModel
from core.formats.gguf.rope import metadata_reader, rope_config, tidy
from core.model.architectures.config import gguf_query_scalar
from core.model.architectures.table import READ_FROM_GGUF, SOFTCAPS, Architecture
from core.model.gguf_header import GgufHeader, NumberArray

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
    *SOFTCAPS,
)  # fmt: skip
_TOKENS: Final = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
"""Special tokens: name in the metadata -> name in the config."""


def build_config(header: GgufHeader, label: str, factors: Mapping[str, Sequence[float]] = MappingProxyType({})) -> Any:
    """Return the `PreTrainedConfig` of the model in a GGUF file.

    Args:
        header: of the file.
        label: its name, for messages.
        factors: values of those of the tensors `core.formats.gguf.rope.FACTORS` that the file has.

    Raises:
        UnsupportedModel: an architecture, or a detail of one, that is not imported.
        CorruptFile: metadata that contradict the tensors.
    """
    from transformers import AutoConfig

    check_supported(header, label)
    _check_types(header, label)
    architecture = READ_FROM_GGUF[header.architecture]
    config = _sizes(architecture, header, label)
    config |= _details(architecture, header, config)
    config |= rope_config(architecture, header, config, factors)
    if not architecture.has_head_dim:
        config.pop("head_dim", None)
    try:
        built = AutoConfig.for_model(architecture.model_type, **config)
    except Exception as error:  # transformers raises whatever its validators do
        raise CorruptFile(
            f"The metadata of {label} make no {architecture.model_type} config: {_line(error)}.", ""
        ) from error
    built.dtype = "bfloat16"
    return built


def check_supported(header: GgufHeader, label: str) -> None:
    """Refuse a file that is not imported, by its header alone.

    Raises:
        UnsupportedModel: with the reason in one sentence.
    """
    architecture = header.architecture
    known = f"Imported are {', '.join(sorted(READ_FROM_GGUF))}; use the original as a folder or from the Hub."
    if not architecture:
        raise UnsupportedModel(f"{label} has no general.architecture.", known)
    if header.metadata.get("general.type", "model") != "model":
        kind = str(header.metadata["general.type"])[:40]
        raise UnsupportedModel(f"{label} holds no whole model but {kind!r}.", known)
    if header.metadata.get(f"{architecture}.expert_count"):
        raise UnsupportedModel(f"{label} is a mixture of experts, which this version does not import.", known)
    if architecture not in READ_FROM_GGUF:
        raise UnsupportedModel(f"{label} has the architecture {architecture[:40]!r}, which is not imported.", known)


def _check_types(header: GgufHeader, label: str) -> None:
    """Check that every value that the config is made of is a count, a positive number or text, as its key requires.

    Raises:
        UnsupportedModel: a list, one value for each layer.
        CorruptFile: any other type or value.
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
    for name in (*_TOKENS, "eot"):
        value = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        wrong += [] if value is None or type(value) is int else [f"{name}_token_id"]
    if wrong:
        raise CorruptFile(f"{label} has an invalid value of {wrong[0]}.", "Fetch the file again.")


def _sizes(architecture: Architecture, header: GgufHeader, label: str) -> _Config:
    """Return the sizes and token ids; those that the tensors state as well are checked against them."""
    assert architecture.gguf is not None
    of, keys = metadata_reader(header), architecture.gguf.config_keys
    config: _Config = {name: tidy(of(key)) for key, name in keys.items() if of(key) is not None}
    for key, name in _TOKENS.items():
        config[f"{name}_token_id"] = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
    embedding = header.tensors.get("token_embd.weight")
    blocks = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    if embedding is None or len(embedding.shape) != 2:
        raise CorruptFile(f"{label} has no token embedding.", "Fetch the file again.")
    if of("block_count") != len(blocks) or not blocks:
        raise CorruptFile(
            f"{label} has {len(blocks)} blocks and block_count is {of('block_count')}.", "Fetch the file again."
        )
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    heads, hidden_size = of("attention.head_count"), of("embedding_length")
    if hidden_size != embedding.shape[1] or type(heads) is not int or not 0 < heads <= hidden_size:
        raise CorruptFile(f"{label} has metadata that contradict its tensors.", "Fetch the file again.")
    if "attention.head_count_kv" in keys:
        config.setdefault("num_key_value_heads", heads)
    # llama.cpp omits the key where it is hidden_size / heads.
    config["head_dim"] = of("attention.key_length") or hidden_size // heads
    return config


def _details(architecture: Architecture, header: GgufHeader, config: _Config) -> _Config:
    """Return the keys that only some architectures have."""
    gguf, of = architecture.gguf, metadata_reader(header)
    assert gguf is not None
    found: _Config = {key: f"blk.0.{part}.bias" in header.tensors for key, part in gguf.bias_flags.items()}
    if gguf.sliding_window:
        found |= _windows(architecture, header)
    if architecture.query_pre_attn_scalar:
        found["query_pre_attn_scalar"] = gguf_query_scalar(architecture, config, of("block_count"))
    if architecture.softcaps:
        found |= {key: tidy(of(key)) for key in SOFTCAPS if of(key) is not None}
    positions = header.tensors.get("position_embd.weight")
    if positions is not None and "position_embd" in architecture.outer_tensors.values():
        found["n_positions"] = positions.shape[0]
    return found


def _windows(architecture: Architecture, header: GgufHeader) -> _Config:
    """Return the sliding window, and the kind of each block where the file states it."""
    of = metadata_reader(header)
    window, pattern = of("attention.sliding_window"), of("attention.sliding_window_pattern")
    found: _Config = {} if window is None else {"sliding_window": window or None}
    if not architecture.full_attention_every:
        return found
    if window == 0:
        found["layer_types"] = ["full_attention"] * of("block_count")
    elif isinstance(pattern, list):
        found["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".")
