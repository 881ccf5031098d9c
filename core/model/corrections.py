"""Corrections of a model's config that its tensors contradict, and detection of tensors that are not part of the model.

As in transformers, the tensors decide whether there is an output head and whether weights are packed. Names, shapes
and dtypes are used; no values are read.
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
"""Name suffixes of the tensors of packed weights, in the formats of several programs."""

_ADAPTER: Final = ("lora_", "loha_", "lokr_", "ia3_l", "vera_lambda_")
_UNMERGED: Final = frozenset({"base_layer", "modules_to_save", "original_module"})
_OF_CODE: Final = ("auto_map", "custom_pipelines")
"""Keys that refer to Python files, which are not copied to an output."""

_TIED: Final = "tie_word_embeddings"
_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})


def adapters(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return the names of the matrices of adapters such as LoRA, which transformers ignores as well."""
    return [name for name in tensors if any(part.startswith(_ADAPTER) for part in name.split("."))]


def unmerged(tensors: Mapping[str, TensorInfo]) -> str:
    """Return an error message if the checkpoint was saved with an adapter that is not merged, else ""."""
    for name in tensors:
        if not _UNMERGED.isdisjoint(name.split(".")) or name.startswith("base_model.model."):
            return (
                f"The weights were saved with an adapter that is not merged into them ({name[:80]}): merge it first, "
                "with PEFT's merge_and_unload, and save the model again."
            )
    return ""


def is_stale(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> bool:
    """Return whether the config has a `quantization_config` although all weights are plain floating-point numbers.

    Merging an adapter into 16-bit weights can leave a bitsandbytes config behind (unslothai/unsloth#1601).
    """
    matrices = [info for info in tensors.values() if len(info.shape) > 1]
    return (
        bool(config.get("quantization_config"))
        and bool(matrices)
        and all(info.dtype in _FLOATS for info in matrices)
        and not any(name.endswith(PACKED) for name in tensors)
    )


def corrected(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], tied: bool | None) -> dict[str, Any]:
    """Return a copy of the config in which the entries that the tensors contradict are corrected.

    Args:
        config: as read from config.json.
        tensors: of the model.
        tied: whether the head shares its weight with the embedding; None if unknown. It is written to the config and to
            its `text_config`, since readers differ in which of the two they use and architectures in the default.
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
