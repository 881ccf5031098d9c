"""The `auto_awq` format: the config of an AWQ checkpoint of the version `gemm`, which engines read since AutoAWQ.

Knows the config's keys and what readers do with them, nothing of bits or files.
"""

from __future__ import annotations

from typing import Any

from core.errors import BadInput
from core.formats.config_names import ConfigLayout, ModuleName, exactly
from core.formats.packing import AUTO_ROUND_AWQ
from core.model.tree import ModelTree

PACKING = AUTO_ROUND_AWQ
CONFIG_FILE = "quantize_config.json"


def settings(layout: ConfigLayout, tree: ModelTree, module_name: ModuleName) -> dict[str, Any]:
    """The `quantization_config`.

    `zero_point` is true for symmetric layers as well, whose zero points are in the file: vLLM's fast kernel takes AWQ's
    layout with zero points only (auto_awq.py), and no reader takes them for anything but what they are. `sym` beside it
    is for AutoRound's and our own reader. What is left out is said twice: GPTQModel looks for it in `dynamic` alone.

    Raises:
        BadInput: a layer cannot be left in 16 bits without another one.
    """
    default = layout.default
    skipped: dict[str, Any] = {
        f"-:{exactly(module)}": {} for module, plan in layout.in_blocks if not plan.scheme.quantized
    }
    config: dict[str, Any] = {
        "quant_method": "awq",
        "provider": "bitwright",
        "version": "gemm",
        "bits": default.bits,
        "group_size": default.group_size,
        "zero_point": True,
        "sym": default.sym,
        "data_type": "int",
        "to_quant_block_names": layout.block_prefix,
        "modules_to_not_convert": _left_out(layout, tree, module_name),
    }
    return {**config, "dynamic": skipped} if skipped else config


def _left_out(layout: ConfigLayout, tree: ModelTree, module_name: ModuleName) -> list[str]:
    """Modules with a matrix that stays in 16 bits; the embeddings are no linear layers and need no mention.

    Readers take a name in this list for a part of a module's name (AutoAWQ's `exclude_layers_to_not_quantize`, vLLM's
    `is_layer_skipped`, and AutoRound's by a search).
    """
    quantized = {module for module, plan in layout.plans if plan.scheme.quantized}
    left = [
        module_name(name.removesuffix(".weight"))
        for name, info in tree.tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2 and name != f"{tree.embedding}.weight"
    ]
    left = [module for module in left if module not in quantized]
    for module in left:
        caught = next((other for other in quantized if module in other), None)
        if caught:
            raise BadInput(
                f"In auto_awq {module} cannot stay in 16 bits without {caught}, whose name it is a part of.",
                "Choose auto_round or auto_gptq.",
            )
    # A tied head has no tensor of its own; most readers leave it out in any case, AutoRound's asks here.
    return sorted({*left, "lm_head"})
