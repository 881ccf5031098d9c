"""Kinds of the classes in transformers' mapping of causal language models.

The mapping also contains the encoders of BERT's family with a causal mask, decoders of encoder-decoders, models with
vision or audio towers, and draft models. The kind follows from the config class and from transformers' other mappings;
a short table lists the classes for which these are not enough.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXT: Final = "text decoder"
MULTIMODAL: Final = "multimodal"
ENCODER: Final = "encoder"
HALF: Final = "half of an encoder-decoder"
DRAFT: Final = "draft model"
CLASSES: Final[dict[str, str]] = dict(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Model type -> class, of the installed transformers."""

TOWERS: Final = ("vision", "audio", "vq")
"""Starts of the names of configs of towers in the config of a multimodal model."""
_EXCEPTIONS: Final = {
    "reformer": TEXT,  # in the mapping of masked models, but released as a causal language model
    "xlnet": ENCODER,  # permutation language model: its attention is not causal
    "fuyu": MULTIMODAL,  # image patches enter through a linear layer, without a tower
    "moshi": TEXT,  # the decoder of a model that speaks, without its codec
}


def kind_of(model_type: str) -> str:
    """Return the kind of a model type of `CLASSES`."""
    config = CONFIG_MAPPING[model_type]
    parts = set(getattr(config, "sub_configs", None) or {})
    if model_type in _EXCEPTIONS:
        return _EXCEPTIONS[model_type]
    if "backbone_hidden_size" in {field.name for field in fields(config)}:  # reads the states of a larger model
        return DRAFT
    if any(part.startswith(TOWERS) for part in parts) and "decoder" not in parts:
        return MULTIMODAL
    if (
        getattr(config, "is_encoder_decoder", False)
        or "decoder" in parts
        or "cross_attention_hidden_size" in {field.name for field in fields(config)}
        or CLASSES[model_type].endswith("Decoder")
    ):
        return HALF
    return ENCODER if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES else TEXT


def text_type(model_type: str) -> str | None:
    """Return the model type of the language model in a multimodal model; None if it has no type of its own."""
    parts: dict[str, Any] = getattr(CONFIG_MAPPING[model_type], "sub_configs", None) or {}
    found = getattr(parts.get("text_config"), "model_type", None)
    return found if found in CLASSES else None
