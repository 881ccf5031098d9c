"""Tiny random checkpoints of every class in transformers' multimodal language models, with their processors.

Sizes follow from the names of settings: text parts have those of `tests.core.tiny_architectures`, towers have smaller
ones. A table lists what a class needs besides. `save_pretrained` of transformers writes the names of published
checkpoints.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForMultimodalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from core.model.skeleton import without_timm
from tests.core.tiny_architectures import SIZES, SPECIAL, WINDOW, randomize, small_config
from tests.coverage.multimodal_processors import build_parts, save_parts, save_tokenizer, token_ids

CLASSES: Final[dict[str, str]] = dict(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)
"""Model type -> class, of the installed transformers."""
IMAGE: Final = 32
PATCH: Final = 8
VOCABULARY: Final = 384
"""Vocabulary size: single bytes and the tokens of the processors."""
GRIDS: Final = [[IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE], [2 * IMAGE, 2 * IMAGE]]
"""Sizes of pictures of several tiles."""
_TEXT: Final = ("text_config", "thinker_config", "vlm_config", "")
"""Names of the config of the language model, and of the whole."""
_TOWER_NAMES: Final[dict[int, str]] = {
    256: "max_position_embeddings",
    64: "intermediate_size encoder_ffn_dim decoder_ffn_dim mlp_dim ffn_dim out_hidden_size text_hidden_size output_dim "
    "projection_dim projector_hidden_size num_mel_bins n_mels dim_feedforward adapter_out_dim vision_output_dim "
    "projector_output_dim num_embeddings max_source_positions alignment_intermediate_size "
    "depthwise_separable_out_channel ext_pw_out_channel nemo_conv_channels num_embeds decoder_hidden_size "
    "resampler_n_latents output_channels post_conv_mid_channels post_conv_out_channels projection_intermediate_size",
    IMAGE: "hidden_size d_model embed_dim embedding_size image_size vision_hidden_size encoder_hidden_size n_embd "
    "projection_hidden_size base_channels downsample_hidden_size adapter_in_dim adapter_input_size projector_input_dim "
    "audio_hidden_size crop_size resolution",
    16: "head_dim resampler_head_dim position_embedding_size num_position_embeddings",
    PATCH: "patch_size num_filters",
    2: "num_hidden_layers num_attention_heads num_key_value_heads depth num_heads encoder_layers num_global_layers "
    "encoder_attention_heads n_layer n_head decoder_layers decoder_attention_heads spatial_merge_size n_window layers "
    "resampler_depth resampler_n_heads conf_num_hidden_layers conf_num_attention_heads num_res_blocks",
    1: "insert_layer_id",
}
_TOWERS: Final[dict[str, Any]] = {
    **{name: size for size, names in _TOWER_NAMES.items() for name in names.split()},
    "global_attn_indexes": [1],
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0, 1],
}
_WHOLE: Final[dict[str, Any]] = {
    **SIZES,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "image_seq_length": 16,
    "mm_tokens_per_image": 4,
    "image_grid_pinpoints": GRIDS,
    "projector_hidden_size": 64,
    "projection_dim": 64,
    "alignment_intermediate_size": 64,
    "projection_hidden_size": 128,
    "out_hidden_size": 64,
    "insert_layer_id": 0,
}
_ROPE: Final[dict[str, Any]] = {"rope_type": "default", "rope_theta": 10000.0}
_CODES: Final = 16
"""Entries of the codebooks of image tokenizers."""
_VQ: Final[dict[str, Any]] = {"embed_dim": 32, "latent_channels": 32, "num_embeddings": _CODES, "codebook_size": _CODES}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "aria": {"vision_config": {"patch_size": 70, "image_size": 980}, "projector_patch_to_query_dict": {"196": 8}},
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
        "vision_config": {"sam_config": {"downsample_channels": [64, IMAGE]}},
    },
    **{name: {"vision_start_token_id": 344} for name in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")},
    "qwen3_omni_moe": {
        "talker_config": {
            "spatial_merge_size": 2,
            "text_config": {"shared_expert_intermediate_size": 64, "vocab_size": 320, "num_hidden_layers": 2},
        }
    },
    "fast_vlm": {"vision_config": {"hidden_size": IMAGE}},
    "perception_lm": {"vision_config": {"model_args": {"embed_dim": IMAGE}}},
    "gemma4": {"vision_config": {"position_embedding_size": 128}, "audio_config": {}},
    "gemma4_unified": {"vision_config": {"position_embedding_size": 128}, "audio_config": {}},
    "diffusion_gemma": {"vision_config": {"position_embedding_size": 128}},
    "kimi_k25": {"projection_hidden_size": IMAGE},
    "unlimited_ocr": {"vision_config": {"sam_config": {"downsample_channels": [64, IMAGE]}}},
    "llama4": {"vision_config": {"intermediate_size": 4 * IMAGE, "projector_input_dim": 64}},
    "dots3_note": {"vision_config": {"mlp_layer_types": ["dense", "sparse"]}},
    "mllama": {"vision_config": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 3 * IMAGE}},
    **{name: {"image_seq_length": 4} for name in ("internvl", "qianfan_ocr")},
    "chameleon": {
        "vq_config": {**_VQ, "resolution": IMAGE},
        "vocabulary_map": {"<image>": 257}
        | {f"IMGIMG{''.join('ABCDEFGHIJ'[int(digit)] for digit in str(n))}Z": 300 + n for n in range(_CODES)},
    },
    "emu3": {
        "vq_config": {**_VQ, "embed_dim": 4, "latent_channels": 4, "hidden_size": 4 * IMAGE},
        "vocabulary_map": {"<image>": 257, "<|extra_200|>": 299}
        | {f"<|visual token {number:06}|>": 300 + number for number in range(_CODES)},
    },
    "cosmos3_edge": {"text_config": {"rope_parameters": {**_ROPE, "mrope_section": [8, 8, 8]}}},
    "ernie4_5_vl_moe": {"text_config": {"moe_intermediate_size": [96, 48]}},
    "glm5_next": {"text_config": {"qk_rope_head_dim": 0}},
    "granite4_vision": {
        "vision_config": {"hidden_size": 64},
        "deepstack_layer_map": [[-1, 1]],
        "spatial_target_layers": [0, 1, 2, 3],
        "downsample_rate": "1/2",
    },
    "kyutai_speech_to_text": {"codec_config": {"upsample_groups": 32, "codebook_size": _CODES, "codebook_dim": 16}},
    "molmo2": {
        "vision_config": {"image_size": [IMAGE, IMAGE]},
        "adapter_config": {"vision_feature_layer": [1, 0], "hidden_size": IMAGE},
    },
    "muse_spark": {"audio_config": {"num_hidden_layers": 4, "hidden_sizes": [IMAGE] * 4, "depths": [1] * 4}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}, "vision_hidden_size": IMAGE},
    "qwen2_vl": {"vision_config": {"hidden_size": 64}},
    "step3p7": {"text_config": {"sliding_window": WINDOW}},
    "fun_asr_nano": {"adaptor_config": {"hidden_size": 64, "intermediate_size": 16}},
    "vipllava": {"vision_feature_layers": [-1, -2], "vision_feature_layer": [-1, -2]},
}
"""Settings of classes that need other values than the general ones; dicts are those of parts."""


def names() -> list[str]:
    """Return all model types."""
    return list(CLASSES)


def make_config(name: str) -> Any:
    """Return the config of a tiny model, with the tokens of its processor."""
    cls = CONFIG_MAPPING[name]
    special = {**SPECIAL.get(name, {}), **SETTINGS.get(name, {})}
    try:
        full = cls()
    except Exception:  # noqa: BLE001 - some have no valid default
        full = None
    parts = {key: getattr(full, key, None) for key in getattr(cls, "sub_configs", None) or {}}
    for key, part in parts.items():
        own = SPECIAL.get(getattr(part, "model_type", ""))
        if key in _TEXT and own:
            special = {**special, key: {**own, **special.get(key, {})}}
    config = small_config(cls, special, lambda part: _WHOLE if part in _TEXT else _TOWERS)
    for part in _parts(config):
        _fit_sections(part)
    return config


def make_model(name: str, folder: Path) -> None:
    """Write a random tiny model, in 16 bits, and its tokenizer and processor."""
    torch.manual_seed(1)
    config = make_config(name)
    save_tokenizer(name, folder, VOCABULARY)
    parts = build_parts(name, config, folder)
    for key, number in token_ids(name, config, parts, VOCABULARY).items():
        for part in _parts(config):
            if key in _own_names(part):
                setattr(part, key, number)
    with without_timm():
        model = AutoModelForMultimodalLM.from_config(config, dtype=torch.float32)
    randomize(model)
    for module in model.modules():
        if type(module).__name__ == "TimmWrapperModel" and next(module.parameters(), None) is None:
            module.timm_model = torch.nn.Linear(IMAGE, IMAGE)  # its weights are copied
    model.to(torch.bfloat16).save_pretrained(folder)
    save_parts(parts, folder)


def _own_names(config: Any) -> set[str]:
    return {*config.to_dict(), *getattr(config, "attribute_map", {})}


def _parts(config: Any) -> Iterator[Any]:
    """Yield a config and the configs inside it."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value)


def _fit_sections(config: Any) -> None:
    """Divide the rotary dimensions of a small head among time, height and width, in a class that does so."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        return
    if not hasattr(config, "vocab_size"):
        return
    if "mrope_section" in rope or "mrope_section" in _source(config):
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        half = int(head * rope.get("partial_rotary_factor", 1)) // 2
        side = (half + 1) // 3
        rope["mrope_section"] = [side, side, half - 2 * side]


def _source(config: Any) -> str:
    """Return the source of the models of a config class."""
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    return inspect.getsource(importlib.import_module(module))
