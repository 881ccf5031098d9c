"""Where a model's config and its tensors disagree, and what lies among its tensors without being part of it.

The tensors decide, as in transformers: whether there is an output head, whether weights are packed. Knows names, shapes
and dtypes, no values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from core.model.headers import TensorInfo

PACKED: Final = (
    ".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_scales", ".absmax", ".qzeros",
    ".bitmask", ".codebooks", ".W_q",
)  # fmt: skip
"""What the tensors of packed weights are called, in the formats of several programs."""

_ADAPTER: Final = ("lora_", "loha_", "lokr_", "ia3_l", "vera_lambda_")
_UNMERGED: Final = frozenset({"base_layer", "modules_to_save", "original_module"})
_OF_CODE: Final = ("auto_map", "custom_pipelines")
"""Keys that name Python files, which an output does not have."""

_TIED: Final = "tie_word_embeddings"
_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})


def adapters(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return the names of the matrices of adapters (LoRA and its like), which transformers passes over as well."""
    return [name for name in tensors if any(part.startswith(_ADAPTER) for part in name.split("."))]


def unmerged(tensors: Mapping[str, TensorInfo]) -> str:
    """Return one sentence where the weights are those of a model with an adapter beside them, not in them; else ""."""
    for name in tensors:
        if not _UNMERGED.isdisjoint(name.split(".")) or name.startswith("base_model.model."):
            return (
                f"The weights were saved with an adapter that is not merged into them ({name[:80]}): merge it first, "
                "with PEFT's merge_and_unload, and save the model again."
            )
    return ""


def is_stale(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> bool:
    """Return whether the config says quantized and all weights are plain floating-point numbers.

    Merging an adapter into 16-bit weights leaves the config of bitsandbytes behind (unslothai/unsloth#1601).
    """
    matrices = [info for info in tensors.values() if len(info.shape) > 1]
    return (
        bool(config.get("quantization_config"))
        and bool(matrices)
        and all(info.dtype in _FLOATS for info in matrices)
        and not any(name.endswith(PACKED) for name in tensors)
    )


def corrected(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], tied: bool | None) -> dict[str, Any]:
    """Return the config with what the tensors say instead of what contradicts them; itself where nothing does.

    Args:
        config: as read.
        tensors: of the model.
        tied: the head is the embedding; None where that is not known. A config that says otherwise, or nothing, gets it
            for the whole model and for its language model: which of them is read depends on the reader, and the value
            assumed without one on the architecture.
    """
    text = config.get("text_config")
    made = copy.deepcopy(dict(config))
    for part in (made, made.get("text_config") if isinstance(text, dict) else None):
        if part is None:
            continue
        for key in _OF_CODE:
            part.pop(key, None)
        if is_stale(part, tensors):
            del part["quantization_config"]
        if tied is not None:
            part[_TIED] = tied
    return made
