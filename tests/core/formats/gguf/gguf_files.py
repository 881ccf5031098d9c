"""Small GGUF files in the layout of the converter of llama.cpp, created from transformers models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

WORDS = ("the", "re", "in", "on", "er")
SPECIAL = ("<|start|>", "<|end|>")
TEMPLATE = "{% for message in messages %}<|start|>{{ message['content'] }}<|end|>{% endfor %}"

ROOMY: dict[str, Any] = {
    "vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": None, "bos_token_id": 256,
    "eos_token_id": 257, "tie_word_embeddings": False,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", ROOMY | {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}),
    "qwen2": ("Qwen2Config", ROOMY | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", ROOMY | {"head_dim": 32}),
    "phi3": ("Phi3Config", ROOMY | {"sliding_window": 9, "original_max_position_embeddings": 128}),
    "gemma2": (
        "Gemma2Config",
        ROOMY | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 9, "tie_word_embeddings": True,
                 "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        ROOMY | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 9, "num_hidden_layers": 7,
                 "tie_word_embeddings": True},
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 288, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 40, "bos_token_id": 256,
         "eos_token_id": 257},
    ),
}  # fmt: skip


@cache
def build(architecture: str) -> Any:
    """Return a random model of a family whose weights are exact in bfloat16, including norms."""
    name, settings = FAMILIES[architecture]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).bfloat16().float())
    return model


def byte_level_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Return tokens, types and merges of a byte-level BPE: 256 bytes, two control tokens, some words, padded to 288."""
    tokens = list(bytes_to_unicode().values()) + list(SPECIAL)
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    kinds = [1] * len(tokens)
    kinds[256] = kinds[257] = 3
    return tokens, kinds, merges


def sentencepiece_vocabulary() -> dict[str, Any]:
    """Return the metadata of a SentencePiece tokenizer with one word."""
    letters = ["▁", "h", "e", "l", "o", "he", "ll", "hell", "hello", "▁hello"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(index) for index in (0, 1, 2, 3, 4, 1, 2, 3, 4, 5)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(letters),
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write(
    path: Path,
    architecture: str,
    model: Any,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    extra: dict[str, tuple[int, ...]] | None = None,
    drop: str = "",
    most_tensors: int = 0,
    **changes: Any,
) -> Path:
    """Write a GGUF file of a model.

    Args:
        kind: block type of its matrices.
        extra: tensors of twos to add, by name.
        drop: a tensor to leave out.
        most_tensors: of one part of a file that is split; 0 for a whole one.
        changes: metadata keys to set, or with the value None to leave out.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=most_tensors)
    metadata: dict[str, Any] = {
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        f"{architecture}.attention.head_count": config.num_attention_heads,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.chat_template": TEMPLATE,
        **_details(architecture, config),
    }
    tokens, kinds, merges = byte_level_vocabulary()
    arrays = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges}
    for key, value in {**metadata, **arrays, **changes}.items():
        _add(writer, key, value)
    table = gguf.get_tensor_name_map(_enum(architecture), config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        stored = f"{table.get_name(stem)}.{suffix}"
        values = np.ascontiguousarray(_as_stored(architecture, stored, tensor.numpy(), config))
        if stored != drop:
            matrix = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(stored, stored_bytes(values, matrix), raw_dtype=matrix)
    for name, shape in (extra or {}).items():
        writer.add_tensor(name, np.full(shape, 2, np.float32))
    if architecture == "llama" and config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_divisors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_HALVES: dict[str, tuple[int, ...]] = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "IQ3_S": (0,),
}  # fmt: skip
"""Offsets of the float16 values in a block, for types that gguf-py does not write."""


def stored_bytes(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Return a matrix in a block type: quantized by gguf-py if supported, else random blocks with small scales."""
    if kind.name not in _HALVES:
        return gguf.quantize(values, kind)
    generator = np.random.default_rng(values.shape[0])
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    data = generator.integers(0, 256, (values.shape[0], values.shape[1] // block, nbytes), dtype=np.uint8)
    for place in _HALVES[kind.name]:
        scales = generator.uniform(1e-4, 1e-3, data.shape[:2]).astype(np.float16)
        data[..., place : place + 2] = scales[..., None].view(np.uint8)
    return data.reshape(values.shape[0], -1)


def _details(architecture: str, config: Any) -> dict[str, Any]:
    if architecture == "gpt2":
        return {"gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon}
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    details = {
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{architecture}.attention.key_length": head_dim,
        f"{architecture}.rope.freq_base": float(rope["rope_theta"]),
        f"{architecture}.rope.dimension_count": head_dim,
    }
    if architecture in ("phi3", "gemma2", "gemma3"):
        details[f"{architecture}.attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        details["gemma2.attn_logit_softcapping"] = config.attn_logit_softcapping
        details["gemma2.final_logit_softcapping"] = config.final_logit_softcapping
    return details


def _as_stored(architecture: str, name: str, values: np.ndarray, config: Any) -> np.ndarray:
    if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)
    if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        return values + 1
    if architecture == "gpt2" and name.startswith("blk.") and values.ndim == 2:
        return values.T
    return values


def _llama3_divisors(config: Any) -> np.ndarray:
    """Return the factors that llama.cpp stores: unscaled divided by scaled inverse frequencies."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    return np.asarray(plain / scaled, dtype=np.float32)


def _enum(architecture: str) -> gguf.MODEL_ARCH:
    return next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
