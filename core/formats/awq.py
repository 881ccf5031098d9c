"""The `auto_awq` format: the config of an AWQ checkpoint of version `gemm`, introduced by AutoAWQ."""

from __future__ import annotations

from typing import Any

from core.errors import BadInput
from core.formats.config_names import ConfigLayout, ModuleName, below, exactly
from core.formats.packing import AUTO_ROUND_AWQ
from core.model.tree import ModelTree

PACKING = AUTO_ROUND_AWQ
CONFIG_FILE = "quantize_config.json"


def settings(layout: ConfigLayout, tree: ModelTree, module_name: ModuleName) -> dict[str, Any]:
    """Return the `quantization_config`.

    `zero_point` is true for symmetric layers as well, since their zero points are stored and vLLM's fast kernel
    requires them in AWQ's layout (auto_awq.py). AutoRound's and Bitwright's readers also use `sym`. Layers in 16 bits
    are listed twice, since GPTQModel looks for them only in `dynamic`.

    Raises:
        BadInput: a layer cannot stay in 16 bits because of the name of another one.
    """
    default = layout.default
    skipped: dict[str, Any] = {f"-:{exactly(module)}": {} for module, plan in layout.named if not plan.scheme.quantized}
    skipped |= {f"-:{below(module)}": {} for module in layout.towers}
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
    """Return the modules with a matrix that stays in 16 bits, except the embedding, which is not a linear layer.

    Readers match an entry of this list as a part of a module name (AutoAWQ's `exclude_layers_to_not_quantize`, vLLM's
    `is_layer_skipped`, and a search in AutoRound).
    """
    planned = [*layout.named, *((module, plan) for module, plan in layout.plans if plan.linear.block < 0)]
    quantized = [module for module, plan in planned if plan.scheme.quantized]
    left = [module for module, plan in planned if not plan.scheme.quantized]
    known = {tree.weight_of(linear) for linear in tree.nameable}
    left += [
        module_name(name.removesuffix(".weight"))
        for name, info in tree.tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2 and name not in known
        if name != f"{tree.embedding}.weight"
    ]
    joined = "\n".join(quantized)
    for module in left:
        if module in joined:
            covered = next(other for other in quantized if module in other)
            raise BadInput(
                f"In auto_awq, {module} cannot stay in 16 bits without {covered}, whose name contains it.",
                "Choose auto_round or auto_gptq.",
            )
    # A tied head has no tensor. Most readers exclude it in any case; AutoRound's requires an entry.
    return sorted({*left, *layout.towers, "lm_head"})
