"""Detection of models that this version cannot quantize, from their config and tensor table.

Covers encoder-decoders, models that do not predict tokens, and quantized weights. The reason is one sentence for the
user; the layers of such a model can still be listed. A check at the start of a run (`core.quant.proof`) detects blocks
that cannot be run one by one. Does not import transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.model import kinds
from core.model.headers import TensorInfo
from core.model.towers import is_multimodal, text_config

FLOATS = ("BF16", "F16", "F32", "F64")
"""Dtype codes of weights that can be quantized."""

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_PACKED = (".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".absmax", ".qzeros")


def architecture(config: Mapping[str, Any]) -> str:
    """Return the first entry of `architectures`, or ""."""
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
    """Return the reason why a model cannot be quantized, in one sentence; "" if it can.

    Args:
        config: the whole config.
        tensors: the whole tensor table.
        prefixes: of the numbered stacks of modules with matrices, without those of towers; the blocks first. Those of
            a multimodal model whose names do not tell what they are may be towers.
        numbers: sorted block numbers of the first stack.
        weights: dtype codes of the matrices to be quantized.
    """
    return (
        _quantized(config, tensors)
        or _other_task(config)
        or _other_kind(config, prefixes)
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
    """Detect classifiers, taggers and masked language models by the name of their class, `...For<task>`."""
    task = re.search(r"For([A-Z]\w*)$", architecture(config))
    if task is None or "CausalLM" in task[1] or "Generation" in task[1]:
        return ""
    return f"{architecture(config)} does not predict the next token; this version quantizes causal language models."


def _other_kind(config: Mapping[str, Any], prefixes: list[str]) -> str:
    places = {part for prefix in prefixes for part in prefix.split(".")}
    if any(part.get("is_encoder_decoder") is True for part in _parts(config)) or {"encoder", "decoder"} <= places:
        return "The model is an encoder-decoder; this version quantizes decoder-only models."
    reason = kinds.refusal(config.get("model_type"))
    if reason:
        return reason
    # AltUp of Gemma 3n projects the embeddings to several residual streams.
    prefixes = [prefix for prefix in prefixes if not prefix.rpartition(".")[2].startswith("altup_")]
    if len(prefixes) > 1 and not is_multimodal(config):
        return (
            f"The model has a second stack of layers, {prefixes[1]}, besides {prefixes[0]}; this version quantizes "
            "models with a single stack."
        )
    return ""


def _no_blocks(config: Mapping[str, Any], prefixes: list[str], numbers: list[int]) -> str:
    if not prefixes:
        return "No decoder blocks were found in this checkpoint."
    if numbers != list(range(len(numbers))):
        return f"The blocks under {prefixes[0]} are not numbered from 0 without gaps."
    expected = next((_count(part, _LAYER_KEYS) for part in _parts(config) if _count(part, _LAYER_KEYS)), 0)
    if expected and expected != len(numbers):
        return f"The config specifies {expected} blocks, but the checkpoint has {len(numbers)}."
    return ""


def _dtypes(weights: list[str]) -> str:
    if not weights:
        return "No linear layers were found in the blocks of this checkpoint."
    odd = next((dtype for dtype in weights if dtype not in FLOATS), None)
    return f"The weights are stored as {odd}; 16-bit or 32-bit floats are required." if odd else ""


def _count(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Return the largest integer under any of the keys; 0 if there is none."""
    values = [config.get(key) for key in keys]
    return max((value for value in values if type(value) is int), default=0)
