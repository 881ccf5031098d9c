"""The table of model architectures: tensor names, GGUF conventions and attention details of each.

The GGUF reader, the GGUF writer and the native program all take their facts from here. Depends on no other library.

To add an architecture, add one `Architecture` to `_ENTRIES`. It needs:

1. `model_type` of its transformers config, and a `label` for messages.
2. `block_tensors`: the modules of a decoder block and their names in a GGUF file, from `gguf/tensor_mapping.py` of
   llama.cpp. The names also give each module its role in the native program: the norm called `attn_norm` is applied
   before attention, `post_attention_norm` after it, `attn_qkv` is a fused projection.
3. The details in which its forward pass differs from Llama's, from its `modeling_*.py` in transformers; the attributes
   of `Architecture` list them. Set `native=False` if the native program lacks an operation that it needs.
4. `defaults`: the values of its config class for keys that a config.json may omit.
5. `gguf`: the conventions of llama.cpp for it, from its converter (`conversion/*.py`: permuted rows, shifted norms) and
   its loader (`src/models/*.cpp`: required keys and tensors). None if GGUF files of it are neither read nor written.

Then add a small model of it to `tests/core/formats/gguf/families.py` (GGUF) and
`tests/core/inference/native/tiny_models.py` (native program); the tests compare both with transformers. Formulas that
follow from a config are in `core.model.architectures.config` and `core.model.architectures.rope`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

CONFIG_KEYS: Final[Mapping[str, str]] = MappingProxyType({
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
})  # fmt: skip
"""Metadata key, without the architecture's name -> key of config.json, in the order of a written file."""

SOFTCAPS: Final = ("attn_logit_softcapping", "final_logit_softcapping")
"""Keys of the logit softcaps, the same in the metadata and in config.json."""


@dataclass(frozen=True)
class GgufRules:
    """The conventions of llama.cpp for one architecture.

    Attributes:
        name: `general.architecture`.
        read: files of this name are read as this architecture. Several may be written under one name.
        written: files of it are written.
        config_keys: metadata key -> key of config.json.
        biased: block tensors that may have a bias, by their names in the file.
        bias_flags: key of config.json -> block tensor whose bias it switches on.
        interleaved_qk: the rows of q and k are stored as pairs (x0, x[d/2]), (x1, x[d/2 + 1]) and so on of each head,
            where transformers has two halves.
        transposed: matrices of the blocks are [in, out] in the model and [out, in] in the file.
        separate_head: a file may have an output matrix besides the embedding.
        rope_types: kinds of RoPE scaling that llama.cpp computes.
        sliding_window: the metadata has the size of the sliding window.
        applies_window: llama.cpp limits attention to that window; otherwise it attends to all tokens.
        own_defaults: llama.cpp has defaults of its own for a missing sliding window and missing softcaps, so that both
            are always written.
        largest: number of blocks of the one model whose attention llama.cpp scales by hidden_size / heads instead of
            head_dim; no metadata key holds that scale. 0 where the scale always follows from head_dim.
    """

    name: str
    read: bool = True
    written: bool = True
    config_keys: Mapping[str, str] = field(default_factory=lambda: CONFIG_KEYS)
    biased: frozenset[str] = frozenset()
    bias_flags: Mapping[str, str] = field(default_factory=dict)
    interleaved_qk: bool = False
    transposed: bool = False
    separate_head: bool = True
    rope_types: frozenset[str] = frozenset()
    sliding_window: bool = False
    applies_window: bool = False
    own_defaults: bool = False
    largest: int = 0


@dataclass(frozen=True)
class Architecture:
    """One model type of transformers.

    Attributes:
        model_type: of the config of the language model.
        label: its name in messages.
        block_tensors: module of a block in the checkpoint -> name in a GGUF file.
        outer_tensors: the same for the modules outside the blocks, without `base`.
        base: module that holds the embedding, the blocks and the last norm.
        blocks: name of the list of blocks in `base`.
        activations: values of `hidden_act` that its GGUF files may have.
        norm_offset: added to the weights of all norms; files store the sum. Gemma's norms multiply by 1 + weight.
        qk_norm_whole: the norms of q and k span all heads at once (OLMo 2), not one head.
        has_head_dim: the config has a `head_dim` that may differ from hidden_size / num_attention_heads.
        partial_rotary: RoPE may be applied to a part of each head only.
        rope_per_layer_type: sliding and full layers have RoPE parameters of their own (Gemma 3).
        scaled_embedding: embeddings are multiplied by the square root of hidden_size.
        query_pre_attn_scalar: attention is scaled by that config value, not by head_dim.
        softcaps: keys of the softcaps that it applies.
        multipliers: the config scales embeddings, attention, residuals and logits (Granite).
        sliding_window: attention is limited to the `sliding_window` of the config; other architectures ignore the key.
        full_attention_every: each n-th block attends to all tokens by default; 0 where no block does.
        native: the native program computes it.
        defaults: of config keys that config.json may omit.
        gguf: None where GGUF files of it are neither read nor written.
    """

    model_type: str
    label: str
    block_tensors: Mapping[str, str]
    outer_tensors: Mapping[str, str] = field(
        default_factory=lambda: {"embed_tokens": "token_embd", "norm": "output_norm"}
    )
    base: str = "model"
    blocks: str = "layers"
    activations: tuple[str, ...] = ("silu", "swish")
    norm_offset: float = 0.0
    qk_norm_whole: bool = False
    has_head_dim: bool = True
    partial_rotary: bool = False
    rope_per_layer_type: bool = False
    scaled_embedding: bool = False
    query_pre_attn_scalar: bool = False
    softcaps: tuple[str, ...] = ()
    multipliers: bool = False
    sliding_window: bool = False
    full_attention_every: int = 0
    native: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    gguf: GgufRules | None = None

    @cached_property
    def modules(self) -> dict[str, str]:
        """Name of a block tensor in a GGUF file -> module of the block."""
        return {name: module for module, name in self.block_tensors.items()}

    def gguf_name(self, tensor: str, base: str | None = None, head: str = "lm_head") -> str:
        """Return the name of a tensor in a GGUF file, or "" if it has none.

        Args:
            tensor: its name in the checkpoint.
            base: module that holds the blocks, if it is not the architecture's own; "" for none.
            head: name of the output head.
        """
        base = self.base if base is None else base
        module, _, kind = tensor.rpartition(".")
        if kind not in ("weight", "bias"):
            return ""
        if module == head:
            return f"output.{kind}" if self.gguf is None or self.gguf.separate_head else ""
        inner = module.removeprefix(f"{base}.") if base else module
        if base and inner == module:
            return ""
        if inner in self.outer_tensors:
            return f"{self.outer_tensors[inner]}.{kind}"
        found = re.fullmatch(rf"{self.blocks}\.(\d+)\.(.+)", inner)
        name = self.block_tensors.get(found[2]) if found else None
        return f"blk.{found[1]}.{name}.{kind}" if found and name else ""


def heads_key(gguf: GgufRules, name: str) -> str:
    """Return the config key with the number of heads whose rows a tensor has interleaved, or "" if it has not.

    Args:
        gguf: rules of the architecture.
        name: of the tensor in the file.
    """
    part = name.split(".")[-2]
    if not gguf.interleaved_qk or part not in ("attn_q", "attn_k"):
        return ""
    return "num_attention_heads" if part == "attn_q" else "num_key_value_heads"


def shift_of(architecture: Architecture, name: str) -> float:
    """Return what the values of a tensor in a file exceed those of the checkpoint by."""
    return architecture.norm_offset if name.endswith("norm.weight") else 0.0


_MLP: Final = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_ATTENTION: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
_LLAMA_TENSORS: Final = {
    "input_layernorm": "attn_norm",
    **_ATTENTION,
    "post_attention_layernorm": "ffn_norm",
    **_MLP,
}
_QK_NORM: Final = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_FOUR_NORMS: Final = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_QKV: Final = frozenset({"attn_q", "attn_k", "attn_v"})
_COMMON: Final = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_GEMMA_DEFAULTS: Final = _COMMON | {"max_position_embeddings": 8192, "num_key_value_heads": 16, "head_dim": 256}

_LLAMA: Final = Architecture(
    model_type="llama",
    label="Llama",
    block_tensors=_LLAMA_TENSORS,
    defaults=_COMMON | {"max_position_embeddings": 2048},
    gguf=GgufRules(
        "llama",
        biased=_QKV | {"attn_output", "ffn_gate", "ffn_up", "ffn_down"},
        bias_flags={"attention_bias": "attn_q", "mlp_bias": "ffn_up"},
        interleaved_qk=True,
        rope_types=frozenset({"linear", "llama3", "yarn"}),
    ),
)
_QWEN2: Final = Architecture(
    model_type="qwen2",
    label="Qwen2",
    block_tensors=_LLAMA_TENSORS,
    has_head_dim=False,
    sliding_window=True,
    defaults=_COMMON | {"max_position_embeddings": 32768, "num_key_value_heads": 32, "use_sliding_window": False},
    gguf=GgufRules("qwen2", biased=_QKV, rope_types=frozenset({"linear", "yarn"})),
)
_GEMMA: Final = Architecture(
    model_type="gemma",
    label="Gemma",
    block_tensors=_LLAMA_TENSORS,
    activations=("gelu_pytorch_tanh", "gelu_new", "gelu"),
    norm_offset=1.0,
    scaled_embedding=True,
    defaults=_GEMMA_DEFAULTS,
    gguf=GgufRules("gemma", separate_head=False, rope_types=frozenset({"linear"})),
)
_GEMMA2: Final = replace(
    _GEMMA,
    model_type="gemma2",
    label="Gemma 2",
    block_tensors=_LLAMA_TENSORS | _FOUR_NORMS,
    query_pre_attn_scalar=True,
    softcaps=SOFTCAPS,
    sliding_window=True,
    full_attention_every=2,
    defaults=_GEMMA_DEFAULTS | {
        "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    gguf=GgufRules(
        "gemma2",
        separate_head=False,
        rope_types=frozenset({"linear"}),
        sliding_window=True,
        applies_window=True,
        own_defaults=True,
        largest=46,
    ),
)  # fmt: skip

_ENTRIES: Final = (
    _LLAMA,
    Architecture(
        model_type="mistral",
        label="Mistral",
        block_tensors=_LLAMA_TENSORS,
        sliding_window=True,
        defaults=_COMMON | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
        gguf=GgufRules(
            "llama", read=False, interleaved_qk=True, rope_types=frozenset({"linear", "llama3", "yarn"})
        ),
    ),
    _QWEN2,
    replace(
        _QWEN2,
        model_type="qwen3",
        label="Qwen3",
        block_tensors=_LLAMA_TENSORS | _QK_NORM,
        has_head_dim=True,
        defaults={**_QWEN2.defaults, "head_dim": 128},
        gguf=GgufRules(
            "qwen3", biased=_QKV, bias_flags={"attention_bias": "attn_q"}, rope_types=frozenset({"linear", "yarn"})
        ),
    ),
    _GEMMA,
    _GEMMA2,
    replace(
        _GEMMA2,
        model_type="gemma3_text",
        label="Gemma 3",
        block_tensors=_LLAMA_TENSORS | _QK_NORM | _FOUR_NORMS,
        rope_per_layer_type=True,
        softcaps=("final_logit_softcapping",),
        full_attention_every=6,
        defaults=_COMMON | {
            "head_dim": 256, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "max_position_embeddings": 131072, "num_attention_heads": 8, "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0,
        },
        gguf=GgufRules(
            "gemma3", rope_types=frozenset({"linear"}), sliding_window=True, applies_window=True, largest=62
        ),
    ),
    Architecture(
        model_type="phi3",
        label="Phi-3",
        block_tensors={
            "input_layernorm": "attn_norm",
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        has_head_dim=False,
        partial_rotary=True,
        sliding_window=True,
        defaults=_COMMON | {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        gguf=GgufRules("phi3", rope_types=frozenset({"longrope"}), sliding_window=True),
    ),
    Architecture(
        model_type="gpt2",
        label="GPT-2",
        block_tensors={
            "ln_1": "attn_norm",
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
        outer_tensors={"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"},
        base="transformer",
        blocks="h",
        has_head_dim=False,
        native=False,
        gguf=GgufRules(
            "gpt2",
            written=False,
            transposed=True,
            config_keys={
                "block_count": "n_layer",
                "embedding_length": "n_embd",
                "feed_forward_length": "n_inner",
                "attention.head_count": "n_head",
                "attention.layer_norm_epsilon": "layer_norm_epsilon",
            },
        ),
    ),
    Architecture(model_type="granite", label="Granite", block_tensors=_LLAMA_TENSORS, multipliers=True),
    Architecture(model_type="smollm3", label="SmolLM3", block_tensors=_LLAMA_TENSORS, sliding_window=True),
    Architecture(
        model_type="olmo2",
        label="OLMo 2",
        block_tensors={
            **_ATTENTION,
            **_QK_NORM,
            "post_attention_layernorm": "post_attention_norm",
            **_MLP,
            "post_feedforward_layernorm": "post_ffw_norm",
        },
        qk_norm_whole=True,
    ),
)  # fmt: skip

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType({entry.model_type: entry for entry in _ENTRIES})
"""All architectures by the model type of transformers."""

READ_FROM_GGUF: Final[Mapping[str, Architecture]] = MappingProxyType(
    {entry.gguf.name: entry for entry in _ENTRIES if entry.gguf and entry.gguf.read}
)
"""The architectures whose GGUF files are read, by `general.architecture`."""

WRITTEN_TO_GGUF: Final[Mapping[str, Architecture]] = MappingProxyType(
    {entry.model_type: entry for entry in _ENTRIES if entry.gguf and entry.gguf.written}
)
"""The architectures whose GGUF files are written, by model type."""

NATIVE: Final[Mapping[str, Architecture]] = MappingProxyType(
    {entry.model_type: entry for entry in _ENTRIES if entry.native}
)
"""The architectures that the native program computes, by model type."""


def gguf_refusal(model_type: str) -> str:
    """Return the reason why no GGUF files are written for a model type, in one sentence; "" if they are."""
    if model_type in WRITTEN_TO_GGUF:
        return ""
    *most, last = (entry.label for entry in WRITTEN_TO_GGUF.values())
    return f"GGUF files are written for {', '.join(most)} and {last}, and this model is {model_type[:40]!r}."
