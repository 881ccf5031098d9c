"""Why a model cannot be quantized by this version, as one sentence, from its config and tensor table.

Knows which kinds of checkpoint the later stages cannot handle: experts, towers, encoder-decoders, weights that
are quantized already. A refused model can still be shown. Knows nothing of the transformers library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.model.headers import TensorInfo

FLOATS = ("BF16", "F16", "F32", "F64")
"""Dtypes of weights that can be quantized."""

_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ROUTERS = frozenset({"router", "expert", "moe"})
"""Parts of the names of tensors that choose experts, or belong to one that all tokens share."""
_TOWERS = frozenset({"vision", "visual", "image", "vit", "clip", "siglip", "audio", "speech", "sound", "video"})
_NOT_BY_BLOCKS = {
    "zamba": "Blocks of Zamba share their weights, and get the embeddings of the text beside the hidden states, "
    "so it cannot be quantized block by block.",
    "zamba2": "Blocks of Zamba 2 share their weights, and get the embeddings of the text beside the hidden states, "
    "so it cannot be quantized block by block.",
    "xlnet": "XLNet keeps its hidden states token by token instead of text by text, and reads tokens that come later, "
    "so it cannot be quantized block by block.",
}
"""Model types whose blocks need more than their own weights and the hidden states.

A run would find out by its proof, but only with torch and the weights."""
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_PACKED = (".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".absmax", ".qzeros")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the config that describes the language model: `text_config` where it is nested."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def architecture(config: Mapping[str, Any]) -> str:
    """First entry of `architectures`, or ""."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def find(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    *,
    prefixes: list[str],
    numbers: list[int],
    weights: list[str],
) -> str:
    """One sentence, or "" if nothing stands against quantizing.

    Args:
        config: the whole config.
        tensors: the whole tensor table.
        prefixes: of the numbered stacks that hold matrices, the heaviest first.
        numbers: sorted numbers of the blocks of the first stack.
        weights: dtypes of the matrices to be quantized.
    """
    return (
        _quantized(config, tensors)
        or _other_task(config)
        or _other_kind(config, prefixes)
        or _inputs_of_their_own(config, tensors)
        or _experts(config, tensors)
        or _no_blocks(config, prefixes, numbers)
        or _dtypes(weights)
    )


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    text = text_config(config)
    return [text] if text is config else [text, config]


def _quantized(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str:
    for part in _parts(config):
        settings = part.get("quantization_config")
        if settings:
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            return f"This checkpoint is quantized already{f' ({method})' if isinstance(method, str) else ''}."
    if any(name.endswith(_PACKED) for name in tensors):
        return "This checkpoint is quantized already: its weights are packed."
    return ""


def _other_task(config: Mapping[str, Any]) -> str:
    """Refuse classifiers, taggers and masked language models by the name of their class, `...For<task>`."""
    task = re.search(r"For([A-Z]\w*)$", architecture(config))
    if task is None or "CausalLM" in task[1] or "Generation" in task[1]:
        return ""
    return f"{architecture(config)} does not predict the next token; this version quantizes causal language models."


def _other_kind(config: Mapping[str, Any], prefixes: list[str]) -> str:
    for key, what in (("vision_config", "a vision tower"), ("audio_config", "an audio tower")):
        if config.get(key):
            return f"The model has {what}; this version quantizes text-only models."
    places = {part for prefix in prefixes for part in prefix.split(".")}
    if any(part.get("is_encoder_decoder") is True for part in _parts(config)) or {"encoder", "decoder"} <= places:
        return "The model is an encoder-decoder; this version quantizes decoder-only models."
    if any(part.startswith("altup") for prefix in prefixes for part in prefix.split(".")):
        return "Its blocks work on several hidden states for each token (AltUp), which this version does not quantize."
    kind = text_config(config).get("model_type")
    if isinstance(kind, str) and kind in _NOT_BY_BLOCKS:
        return _NOT_BY_BLOCKS[kind]
    if len(prefixes) > 1:
        tower = next((prefix for prefix in prefixes if set(re.split(r"[._]", prefix)) & _TOWERS), "")
        if tower:
            return f"The model has a tower for other than text, {tower}; this version quantizes text-only models."
        return (
            f"Besides {prefixes[0]}, the model has a second numbered stack of layers, {prefixes[1]}; this version "
            "quantizes models with one."
        )
    return ""


def _inputs_of_their_own(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str:
    """Refuse blocks that get more of a text than the hidden states, as in the small models of Gemma 4."""
    if any("per_layer_model_projection" in name for name in tensors):
        what = "Each of its blocks has an embedding of the tokens of its own (per-layer inputs)"
    elif any(_count(part, ("num_kv_shared_layers",)) > 0 for part in _parts(config)):
        what = "Some of its blocks use the keys and values of earlier ones (num_kv_shared_layers)"
    else:
        return ""
    return f"{what}, so it cannot be quantized block by block."


def _experts(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str:
    """Configs of dense models name a number of experts too (Doge, Nemotron-H), so the tensors decide."""
    counts = {part.get(key) for part in _parts(config) for key in _EXPERT_KEYS} - {None, 0, 1}
    for name, info in tensors.items():
        places = set(re.split(r"[._]", name))
        named = "experts" in places or (bool(counts) and bool(places & _ROUTERS))
        # Fused experts: [experts, out, in]
        if named or (len(info.shape) == 3 and info.shape[0] in counts and min(info.shape) > 1):
            return "The model is a mixture of experts, which this version does not quantize."
    return ""


def _no_blocks(config: Mapping[str, Any], prefixes: list[str], numbers: list[int]) -> str:
    if not prefixes:
        return "No decoder blocks were found in this checkpoint."
    if numbers != list(range(len(numbers))):
        return f"The blocks under {prefixes[0]} are not numbered from 0 without gaps."
    expected = next((_count(part, _LAYER_KEYS) for part in _parts(config) if _count(part, _LAYER_KEYS)), 0)
    if expected and expected != len(numbers):
        return f"The config promises {expected} blocks and the checkpoint has {len(numbers)}."
    return ""


def _dtypes(weights: list[str]) -> str:
    if not weights:
        return "No linear layers were found in the blocks of this checkpoint."
    odd = next((dtype for dtype in weights if dtype not in FLOATS), None)
    return f"Its weights are stored as {odd}; 16-bit or 32-bit floats are needed." if odd else ""


def _count(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """The largest whole number under any of the keys."""
    values = [config.get(key) for key in keys]
    return max((value for value in values if type(value) is int), default=0)
