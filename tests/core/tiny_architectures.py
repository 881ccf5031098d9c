"""Tiny random models of every architecture with a causal language model in transformers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.core.tiny_model import save_tokenizer

VOCABULARY: Final = 320
CONTEXT: Final = 192
"""Vocabulary size and context length of the models."""
_NAMES: Final[dict[int, str]] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input ngram_vocab_size audio_vocab_size",
    CONTEXT: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_sequence_length "
    "initial_context_length",
    64: "hidden_size d_model n_embd embedding_size lru_width moe_intermediate_size attention_hidden_size "
    "shared_expert_intermediate_size sliding_window attention_window_size window_size local_attention "
    "attention_chunk_size dim_model moe_shared_expert_intermediate_size num_mel_bins "
    "embedding_dim hidden_size_per_layer_input hidden_dim",
    128: "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff block_ff_dim dim_ff "
    "mamba_d_ssm shared_intermediate_size intermediate_size_mlp dense_intermediate_size prefix_dense_intermediate_size",
    3: "num_hidden_layers n_layer n_layers num_layers num_blocks num_decoder_layers decoder_layers",
    2: "encoder_layers num_encoder_layers num_key_value_heads num_kv_heads num_experts_per_tok moe_k "
    "linear_num_key_heads moe_topk num_experts_per_token moe_top_k top_k_experts n_mem_blocks",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts linear_num_value_heads attention_heads "
    "swa_num_attention_heads",
    16: "head_dim global_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim state_size mamba_d_state mamba_d_head "
    "mamba_head_dim ssm_state_size chunk_size mamba_chunk_size linear_key_head_dim linear_value_head_dim d_kv "
    "query_pre_attn_scalar index_head_dim kv_channels attention_head_dim swa_head_dim swa_v_head_dim",
    8: "mamba_n_heads mamba_num_heads rotary_dim time_step_rank mamba_dt_rank index_topk laurel_rank",
    32: "q_lora_rank kv_lora_rank image_size o_lora_rank qk_head_dim",
    1: "n_group topk_group n_shared_experts first_k_dense_replace mamba_n_groups n_groups num_shared_experts "
    "index_n_heads decoder_start_token_id",
    0: "pad_token_id bos_token_id eos_token_id",
}
_SIZES: Final[dict[str, Any]] = {
    **{name: size for size, names in _NAMES.items() for name in names.split()},
    "is_decoder": True,
    "patch_size": 8,
}
_BERT: Final[dict[str, Any]] = {"max_position_embeddings": CONTEXT + 2}
_FALCON: Final[dict[str, Any]] = {"bias": False}
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
    "jamba": {
        "num_hidden_layers": 4,
        "num_experts": 1,
        "num_local_experts": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "jamba moe": {"num_hidden_layers": 4, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {
        "num_local_experts": 0,
        "layer_types": ["mamba", "attention", "mamba"],
        "shared_intermediate_size": 128,
    },
    "granite": {"attention_multiplier": 0.1, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_head_dim": 32,
    },
    "zaya": {"num_experts_per_tok": 1},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "dbrx": {"attn_config": "default", "ffn_config": "default"},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [12, 16]},
    "xlnet": {"d_inner": 128},
    "rembert": {"input_embedding_size": 64, "output_embedding_size": 64},
    "roc_bert": {"shape_embed_dim": 32, "shape_vocab_size": 64, "pronunciation_embed_dim": 32},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("sliding_attention", "full_attention")
        },
    },
    **dict.fromkeys(("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl", "xmod", "data2vec-text"), _BERT),
    "roberta-prelayernorm": _BERT,
}
"""Settings of architectures that need other values than the general ones, and further variants."""
LEFT_OUT: Final = frozenset({
    "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant", "gemma4_unified", "gemma4_unified_assistant", "git",
    "got_ocr2", "moss_transcribe_diarize", "musicgen", "musicgen_melody", "phi4_multimodal", "dots3_note", "blt",
    "qwen4_exp", "qwen3_5", "qwen3_5_moe", "mllama", "llama4",
})  # fmt: skip
"""Multimodal models, whose text part is listed separately, and models that cannot be made small."""


def names() -> list[str]:
    """Return all model types and variants."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *SPECIAL} - LEFT_OUT)


def make_config(name: str) -> Any:
    """The config of a tiny model of this type or variant."""
    kind = name.partition(" ")[0]
    return _config(CONFIG_MAPPING[kind], SPECIAL.get(name, {}))


def make_model(name: str, folder: Path) -> None:
    """Write a random tiny model, in 16 bits, and its tokenizer of single bytes."""
    torch.manual_seed(1)
    config = make_config(name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:  # an embedding as well: tied to the head, larger ones make scores of a hundred
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)


def _config(cls: Any, special: dict[str, Any]) -> Any:
    known = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    known |= set(getattr(cls, "attribute_map", {}))
    defaults = {field.name: field.default for field in fields(cls)} if is_dataclass(cls) else {}
    values = {
        key: size
        for key, size in _SIZES.items()
        if key in known and not ("window" in key and defaults.get(key, 1) is None)
    }
    for key, sub in (getattr(cls, "sub_configs", None) or {}).items():
        if hasattr(sub, "model_type"):
            values[key] = _config(sub, special.get(key, {})).to_dict()
    values |= {key: value for key, value in special.items() if not isinstance(value, dict) or key not in values}
    values = {key: value for key, value in values.items() if value != "default"}
    return cls(**values)
