"""Tiny random vision-language models, saved as their publishers do: weights, tokenizer, processor and chat template.

The language models have two or four blocks, the vision towers two, and a picture takes 4 to 20 tokens. Parameters have
values of their own, so that a tower that is not used, or used in another way, changes the next token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.core.tiny_architectures import randomize

CONTEXT: Final = 512
_WIDTH: Final = 64
_TEXT: Final[dict[str, Any]] = {
    "hidden_size": _WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_MROPE: Final = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4], "mrope_interleaved": True}
_QWEN_VISION: Final[dict[str, Any]] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": _WIDTH,
    "num_position_embeddings": 16,
}
_TOWER: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_CHAT: Final = """\
{%- for message in messages %}{{ START }}{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{% if part['type'] == 'image' %}{{ PICTURE }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}{{ END }}
{% endfor %}{% if add_generation_prompt %}{{ START }}assistant
{% endif %}"""
"""Template of most families; the texts in capitals are replaced."""


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made.

    Attributes:
        config: settings of the config; names of special tokens stand for their ids in `token_ids`.
        token_ids: name of a setting -> special token whose id it gets.
        special: special tokens.
        marks: start of a turn, end of a turn, and text for a picture in the chat template.
        image_processor: preprocessor_config.json, as published with the model.
        processor: processor_config.json.
        tokenizer: further entries of tokenizer_config.json.
        template: chat template; "" for the usual one.
    """

    config: Mapping[str, Any]
    token_ids: Mapping[str, str]
    special: tuple[str, ...]
    marks: tuple[str, str, str]
    image_processor: Mapping[str, Any]
    processor: Mapping[str, Any]
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""


_NORMALIZED: Final = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_QWEN_SPECIAL: Final = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN: Final[dict[str, Any]] = {
    "token_ids": {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    "special": _QWEN_SPECIAL,
    "marks": ("<|im_start|>", "<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>"),
    "image_processor": {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": 8,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 256, "longest_edge": 4096},
        **_NORMALIZED,
    },
    "processor": {},
}
FAMILIES: Final[dict[str, Family]] = {
    "qwen3_vl": Family(
        {
            "text_config": {**_TEXT, "rope_parameters": _MROPE},
            "vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0, 1]},
        },
        **_QWEN,
    ),
    "qwen3_vl_moe": Family(
        {
            "text_config": {
                **_TEXT,
                "rope_parameters": _MROPE,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 64,
            },
            "vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0]},
        },
        **_QWEN,
    ),
    "qwen3_5": Family(
        {
            "text_config": {
                **_TEXT,
                "num_hidden_layers": 4,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": 16,
                "linear_value_head_dim": 16,
                "rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25},
            },
            "vision_config": _QWEN_VISION,
        },
        **_QWEN,
    ),
    "gemma3": Family(
        {
            "text_config": {**_TEXT, "sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]},
            "vision_config": {**_TOWER, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
        },
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        ("<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
        {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "size": {"height": 32, "width": 32},
            "image_seq_length": 4,
            **_NORMALIZED,
        },
        {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    ),
    "gemma4": Family(
        {
            "text_config": {
                **_TEXT,
                "sliding_window": 24,
                "layer_types": ["sliding_attention", "full_attention"],
                "global_head_dim": 64,
                "num_global_key_value_heads": 1,
                "hidden_size_per_layer_input": 16,
                "vocab_size_per_layer_input": 320,
                "use_bidirectional_attention": "vision",
            },
            "vision_config": {
                **_TOWER,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "pooling_kernel_size": 2,
                "position_embedding_size": 160,
                "default_output_length": 70,
            },
            "audio_config": None,
        },
        {
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "audio_token_id": "<|audio|>",
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
        },
        ("<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>"),
        ("<|turn>", "<turn|>", "<|image|>"),
        {
            "image_processor_type": "Gemma4ImageProcessor",
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "max_soft_tokens": 70,
        },
        {"processor_class": "Gemma4Processor", "image_seq_length": 70},
        {
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "image_token": "<|image|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "audio_token": "<|audio|>",
        },
    ),
    "smolvlm": Family(
        {
            "text_config": {**_TEXT, "model_type": "llama"},
            "vision_config": _TOWER,
            "scale_factor": 2,
        },
        {"image_token_id": "<image>"},
        (
            "<|im_start|>",
            "<end_of_utterance>",
            "<image>",
            "<fake_token_around_image>",
            "<global-img>",
            *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
        ),
        ("", "", ""),
        {
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
            "size": {"longest_edge": 64},
            "max_image_size": {"longest_edge": 32},
            "do_image_splitting": True,
            "do_pad": True,
            **_NORMALIZED,
        },
        {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        template="<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
        "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    ),
    "mistral3": Family(
        {
            "text_config": {**_TEXT, "model_type": "mistral", "sliding_window": None},
            "vision_config": {**_TOWER, "model_type": "pixtral", "head_dim": 16, "image_size": 64},
            "spatial_merge_size": 2,
        },
        {"image_token_index": "[IMG]"},
        ("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "</s>"),
        ("", "", ""),
        {
            "image_processor_type": "PixtralImageProcessor",
            "processor_class": "PixtralProcessor",
            "patch_size": 8,
            "size": {"longest_edge": 64},
            **_NORMALIZED,
        },
        {"processor_class": "PixtralProcessor", "patch_size": 8, "spatial_merge_size": 2},
        template="{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST]' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '[IMG]' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '[/INST]' }}{% else %}{{ message['content'] + '</s>' }}{% endif %}{% endfor %}",
    ),
}
"""Model type -> its tiny model."""


def save_vision_model(name: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the tiny model of a family into `folder`, which is made."""
    from transformers import AutoModelForMultimodalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = FAMILIES[name]
    folder.mkdir(parents=True)
    words = save_tokenizer(family, folder)
    settings: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in family.config.items()
    }
    settings["text_config"]["vocab_size"] = 320
    settings |= {key: words[word] for key, word in family.token_ids.items()}
    config_class: Any = CONFIG_MAPPING[name]
    config = config_class(**settings)
    torch.manual_seed(5)
    model = AutoModelForMultimodalLM.from_config(config, dtype=torch.float32)
    randomize(model)
    model.to(dtype).save_pretrained(folder)
    for file, values in (
        ("preprocessor_config.json", family.image_processor),
        ("processor_config.json", family.processor),
    ):
        if values:
            (folder / file).write_text(json.dumps(values), encoding="utf-8")
    return folder


def save_tokenizer(family: Family, folder: Path) -> dict[str, int]:
    """Write a byte-level tokenizer with the special tokens and the chat template of a family; return the vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<eos>": 0, **{letter: number + 1 for number, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(word, special=True, normalized=False) for word in ("<eos>", *family.special)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    start, end, picture = family.marks
    template = family.template or _CHAT.replace("{{ START }}", start).replace("{{ END }}", end).replace(
        "{{ PICTURE }}", picture
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **family.tokenizer}), encoding="utf-8")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
