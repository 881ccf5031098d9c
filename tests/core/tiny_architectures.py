"""Tiny random models of every architecture with a causal language model in transformers.

Sizes differ wherever the class allows it, so that a transposed, swapped or interleaved layout changes the result. Each
kind of block of the full-size config occurs, sliding windows and the chunks of recurrent layers are shorter than
the rows of the tests, and every parameter has values of its own, biases and norms included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.core.tiny_model import save_tokenizer

VOCABULARY: Final = 320
CONTEXT: Final = 192
"""Vocabulary size and context length of the models."""
WINDOW: Final = 24
"""Tokens of a sliding window."""
_NAMES: Final[dict[int, str]] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input ngram_vocab_size audio_vocab_size ngram_vocab_size_base "
    "encoder_hash_byte_group_vocab",
    CONTEXT: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_sequence_length "
    "initial_context_length",
    160: "shared_expert_intermediate_size shared_intermediate_size moe_shared_expert_intermediate_size "
    "shared_experts_intermediate_size",
    128: "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff block_ff_dim dim_ff "
    "mamba_d_ssm intermediate_size_mlp dense_intermediate_size prefix_dense_intermediate_size feed_forward_size",
    96: "moe_intermediate_size expert_ffn_hidden_size q_lora_rank",
    64: "hidden_size d_model n_embd embedding_size lru_width attention_hidden_size dim_model num_mel_bins emb_dim "
    "index_topk keep_window_size embedding_dim hidden_dim hidden_size_global backbone_hidden_size kv_lora_rank",
    48: "head_dim global_head_dim attention_head_dim swa_head_dim swa_v_head_dim kv_channels dim_head qk_head_dim "
    "indexer_head_dim",
    32: "attention_chunk_size linear_value_head_dim qk_rope_head_dim index_head_dim image_size o_lora_rank "
    "router_hidden_size hidden_size_per_layer_input hc_lowrank",
    WINDOW: "sliding_window attention_window_size window_size local_attention sliding_window_size v_head_dim "
    "local_attention_window_len",
    16: "qk_nope_head_dim state_size mamba_d_state mamba_d_head mamba_head_dim ssm_state_size chunk_size "
    "mamba_chunk_size linear_key_head_dim linear_head_dim d_kv query_pre_attn_scalar "
    "block_size laurel_rank index_block_size indexer_budget rel_extent adapter_rank",
    8: "mamba_n_heads mamba_num_heads rotary_dim time_step_rank mamba_dt_rank d_rel gated_norm_rank patch_size",
    6: "num_experts num_local_experts n_routed_experts moe_num_experts",
    4: "num_hidden_layers n_layer n_layers num_layers num_blocks num_decoder_layers decoder_layers num_attention_heads "
    "n_head n_heads num_heads decoder_attention_heads encoder_attention_heads linear_num_value_heads attention_heads "
    "swa_num_attention_heads linear_num_heads indexer_compress_ratio split_ngram_parts",
    2: "encoder_layers num_encoder_layers num_key_value_heads num_kv_heads kv_n_heads num_experts_per_tok moe_k "
    "linear_num_key_heads moe_topk num_experts_per_token moe_top_k top_k_experts n_mem_blocks n_group index_n_heads "
    "zero_expert_num swa_num_key_value_heads indexer_n_heads hc_count index_topk_blocks num_layers_per_stack "
    "n_layers_per_attn_res_block o_groups heads_per_ngram depth",
    1: "topk_group n_shared_experts first_k_dense_replace mamba_n_groups n_groups num_shared_experts indexer_kv_heads "
    "decoder_start_token_id num_dense_layers moe_layer_start_index",
    0: "pad_token_id bos_token_id eos_token_id",
}
SIZES: Final[dict[str, Any]] = {
    **{name: size for size, names in _NAMES.items() for name in names.split()},
    "is_decoder": True,
}
_BLOCK_KINDS: Final = (("layer_types", "layers_block_type"), ("mlp_layer_types",))
"""Names of the lists of the kinds of all blocks; of two names for the same list, a class has one or both."""
_BERT: Final[dict[str, Any]] = {"max_position_embeddings": CONTEXT + 2}
_HEAD_DIM: Final[dict[str, Any]] = {"head_dim": 48}
"""For classes that read it, but do not declare it."""
_SLIDING: Final[dict[str, Any]] = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_FALCON: Final[dict[str, Any]] = {"bias": False}
_GRANITE: Final[dict[str, Any]] = {
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
}
_GRANITE_HYBRID: Final[dict[str, Any]] = {**_GRANITE, "layer_types": ["mamba", "attention", "mamba", "mamba"]}
_GEMMA4: Final[dict[str, Any]] = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
}
_DOTS3: Final[dict[str, Any]] = {
    "sliding_window": WINDOW,
    "per_layer_config": {
        layer: {"num_attention_heads": 2, "num_key_value_heads": 2, "qk_nope_head_dim": 48, "head_dim": 80}
        for layer in (2, 3)
    },
}
SPECIAL: Final[dict[str, dict[str, Any]]] = {
    "falcon": {**_FALCON, "num_attention_heads": 2},
    "falcon new": {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon alibi": {
        "alibi": True,
        "bias": True,
        "multi_query": False,
        "parallel_attn": False,
        "num_kv_heads": 4,
    },
    "doge": {"is_moe": False},
    "doge moe": {"is_moe": True, "num_experts": 4},
    "nemotron_h": {"layers_block_type": ["linear_attention", "full_attention", "mlp", "mlp"]},
    "nemotron_h moe": {"layers_block_type": ["linear_attention", "full_attention", "moe", "mlp"]},
    "nemotron_h latent": {"layers_block_type": ["linear_attention", "moe", "full_attention"], "moe_latent_size": 32},
    "jamba": {"num_experts": 1, "num_local_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1},
    "jamba moe": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {**_GRANITE_HYBRID, "num_local_experts": 0},
    "granitemoehybrid moe": _GRANITE_HYBRID,
    **dict.fromkeys(("granite", "granitemoe", "granitemoeshared", "granite_swa", "granitemoe_swa"), _GRANITE),
    "zamba": {
        "num_hidden_layers": 6,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "helium": {"head_dim": 16},
    "youtu": {"pad_token_id": None},
    **dict.fromkeys(("laguna", "mellum", "dots1 sliding"), _SLIDING),
    "longcat_flash": {"head_dim": 32},
    "minicpm3": {"scale_emb": 2, "dim_model_base": 64},
    **dict.fromkeys(("qwen3_moe", "glm4_moe", "dots1", "exaone_moe", "mixtral", "phimoe", "exaone4"), _HEAD_DIM),
    "xmod": {**_BERT, "default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_head_dim": 32},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma4_text": {**_GEMMA4, "num_kv_shared_layers": 2},
    "gemma4_text dense": {**_GEMMA4, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True},
    "gemma4_text moe": {
        **_GEMMA4,
        "enable_moe_block": True,
        "hidden_size_per_layer_input": 0,
        "attention_k_eq_v": True,
    },
    "gemma4_unified_text": _GEMMA4,
    "gemma4": {"text_config": _GEMMA4},
    "gemma4_unified": {"text_config": _GEMMA4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [12, 16]},
    "xlnet": {"d_inner": 128},
    "rembert": {"input_embedding_size": 64, "output_embedding_size": 64},
    "roc_bert": {"shape_embed_dim": 32, "shape_vocab_size": 64, "pronunciation_embed_dim": 32},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("sliding_attention", "full_attention")
        },
    },
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16}},
    "deepseek_v2": {"topk_method": "group_limited_greedy"},
    "deepseek_v2 lite": {"q_lora_rank": None},
    "qwen3_moe dense": {**_HEAD_DIM, "mlp_only_layers": [0]},
    "qwen4_exp_text ple": {"ple_layer_ids": [1, 3]},
    "stablelm parallel": {"use_parallel_residual": True, "qk_layernorm": True},
    "glm_moe_dsa": {"indexer_types": ["full", "shared", "full", "shared"]},
    **dict.fromkeys(("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl", "data2vec-text"), _BERT),
    "roberta-prelayernorm": _BERT,
}
"""Settings of architectures that need other values than the general ones, and further variants."""


def names() -> list[str]:
    """Return all model types and variants."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *SPECIAL})


def make_config(name: str) -> Any:
    """Return the config of a tiny model of this type or variant."""
    return small_config(CONFIG_MAPPING[name.partition(" ")[0]], SPECIAL.get(name, {}), lambda part: SIZES)


def make_model(name: str, folder: Path) -> None:
    """Write a random tiny model, in 16 bits, and its tokenizer of single bytes."""
    torch.manual_seed(1)
    config = make_config(name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)


def randomize(model: nn.Module) -> None:
    """Give each parameter values of its own: fresh models have biases of 0, norms of 1 and matrices near 0.

    The rows of matrices have a norm of about 1 (embeddings too: with larger rows, tied heads give scores of a hundred).
    Vectors and the decays of recurrent layers keep the values of the model and vary around them.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2 or "A_log" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "conv" in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                buffer.add_(0.05 * torch.randn_like(buffer))


def small_config(cls: Any, special: dict[str, Any], sizes: Callable[[str], Mapping[str, Any]], part: str = "") -> Any:
    """Return a config of the class `cls` with small sizes.

    Args:
        cls: config class.
        special: settings of this model; dicts are those of parts.
        sizes: returns the values of settings for a part, such as `text_config`; the part "" is the whole config.
        part: name of the part of which `cls` is the config.
    """
    known = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    known |= set(getattr(cls, "attribute_map", {}))
    defaults = {field.name: field.default for field in fields(cls)} if is_dataclass(cls) else {}
    full = _full_size(cls)
    values = {
        key: [size] * len(default) if isinstance(size, int) and isinstance(default, (tuple, list)) else size
        for key, size in sizes(part).items()
        if key in known
        for default in (defaults.get(key),)
        if not ("window" in key and key in defaults and default is None)
    }
    for key, kind in (getattr(cls, "sub_configs", None) or {}).items():
        found = getattr(full, key, None)
        if found is not None or (key in special and is_dataclass(kind)):  # a part may be missing by default
            kind = kind if found is None else type(found)
            values[key] = small_config(kind, special.get(key, {}), sizes, key).to_dict()
    if "kv_lora_rank" in known and "num_key_value_heads" in values:
        values["num_key_value_heads"] = values["num_attention_heads"]  # latent attention has no groups of queries
    values |= {key: value for key, value in special.items() if not isinstance(value, dict) or key not in values}
    return cls(**values, **_missing_kinds(cls, values, full))


def _full_size(cls: Any) -> Any:
    try:
        return cls()
    except Exception:  # noqa: BLE001 - configs of draft models have no valid default
        return None


def _missing_kinds(cls: Any, values: dict[str, Any], full: Any) -> dict[str, list[str]]:
    """Return lists of kinds of blocks that contain every kind of the full-size config, where `values` lack some."""
    tiny = cls(**values)
    found: dict[str, list[str]] = {}
    for keys in _BLOCK_KINDS:
        key = next((key for key in keys if getattr(full, key, None) and getattr(tiny, key, None)), "")
        if key and not set(keys) & set(values):
            kinds, present = list(dict.fromkeys(getattr(full, key))), getattr(tiny, key)
            if not set(kinds) <= set(present) and len(kinds) <= len(present):
                found[key] = [kinds[number % len(kinds)] for number in range(len(present))]
    return found
