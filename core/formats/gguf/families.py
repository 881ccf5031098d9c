"""What llama.cpp's architectures ask for, one after another: names, biases, what a config may leave out. A table.

Facts of llama.cpp's loader (src/models/*.cpp) and converter (conversion/*.py), and of transformers' config classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import UnsupportedModel
from core.model import refusals

_HINT: Final = "Choose another format, such as auto_round."


@dataclass(frozen=True)
class Family:
    """What one architecture of llama.cpp asks for.

    Attributes:
        name: `general.architecture`.
        parts: name inside a block, as the checkpoint has it -> as the file has it.
        biased: parts, as the file has them, that may have a bias.
        paired: rows of q and k lie as pairs of neighbours, where transformers has two halves.
        shifted: the checkpoint's norms are stored less one.
        own_head: the file may have an output matrix besides the embedding.
        activations: that its feed-forward has; any other is refused.
        defaults: of the config's keys that matter here, where a config leaves them out.
    """

    name: str
    parts: Mapping[str, str]
    biased: frozenset[str] = frozenset()
    paired: bool = False
    shifted: bool = False
    own_head: bool = True
    activations: tuple[str, ...] = ("silu", "swish")
    defaults: Mapping[str, Any] = field(default_factory=dict)


_LLAMA_PARTS: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_HEAD_NORMS: Final = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_FOUR_NORMS: Final = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_PHI3_PARTS: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_QKV: Final = frozenset({"attn_q", "attn_k", "attn_v"})
_ALL_BIASED: Final = _QKV | {"attn_output", "ffn_gate", "ffn_up", "ffn_down"}
_GELU: Final = ("gelu_pytorch_tanh", "gelu_new", "gelu")

_COMMON: Final = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_LLAMA: Final = Family(
    "llama", _LLAMA_PARTS, _ALL_BIASED, paired=True, defaults=_COMMON | {"max_position_embeddings": 2048}
)
_GEMMA2: Final = {
    "head_dim": 256,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}

FAMILIES: Final[dict[str, Family]] = {
    "llama": _LLAMA,
    "mistral": Family(
        "llama",
        _LLAMA_PARTS,
        paired=True,
        defaults=_COMMON | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": Family(
        "qwen2", _LLAMA_PARTS, _QKV, defaults=_COMMON | {"max_position_embeddings": 32768, "num_key_value_heads": 32}
    ),
    "qwen3": Family(
        "qwen3",
        _LLAMA_PARTS | _HEAD_NORMS,
        _QKV,
        defaults=_COMMON | {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
    ),
    "gemma": Family(
        "gemma",
        _LLAMA_PARTS,
        shifted=True,
        own_head=False,
        activations=_GELU,
        defaults=_COMMON | {"max_position_embeddings": 8192, "num_key_value_heads": 16, "head_dim": 256},
    ),
    "gemma2": Family(
        "gemma2",
        _LLAMA_PARTS | _FOUR_NORMS,
        shifted=True,
        own_head=False,
        activations=_GELU,
        defaults=_COMMON | _GEMMA2 | {
            "max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3_text": Family(
        "gemma3",
        _LLAMA_PARTS | _HEAD_NORMS | _FOUR_NORMS,
        shifted=True,
        activations=_GELU,
        defaults=_COMMON | _GEMMA2 | {
            "max_position_embeddings": 131072, "num_attention_heads": 8, "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0,
        },
    ),
    "phi3": Family(
        "phi3", _PHI3_PARTS, defaults=_COMMON | {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    ),
}  # fmt: skip
"""transformers model type -> what is written for it."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The architecture that a config's model is written as.

    Raises:
        UnsupportedModel: there is none.
    """
    text = refusals.text_config(config)
    found = FAMILIES.get(str(text.get("model_type")))
    if found is None:
        known = "Llama, Mistral, Qwen2, Qwen3, Gemma 1 to 3 and Phi-3"
        raise UnsupportedModel(
            f"GGUF files are written for {known}, and this model is {str(text.get('model_type'))[:40]!r}.", _HINT
        )
    return found


def full_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's config, with what it leaves out filled in as transformers would."""
    full = {**family_of(config).defaults, **refusals.text_config(config)}
    # These may be there and null.
    heads = full.get("num_attention_heads")
    if full.get("num_key_value_heads") is None:
        full["num_key_value_heads"] = heads
    if full.get("head_dim") is None and isinstance(heads, int) and isinstance(full.get("hidden_size"), int) and heads:
        full["head_dim"] = full["hidden_size"] // heads
    return full
