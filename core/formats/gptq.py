"""The formats `auto_gptq` and `gptqmodel`: configs of GPTQ version 1 and 2 with GPTQModel's `dynamic`."""

from __future__ import annotations

import re
from typing import Any

from core.formats.config_names import ConfigLayout, below, exactly
from core.formats.packing import GPTQ, GPTQ_V2, Packing
from core.model.plans import LayerPlan
from core.schemes import LayerScheme

CONFIG_FILE = "quantize_config.json"

_FUSED = (
    (("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    (("gate_proj", "up_proj"), "gate_up_proj"),
    (("w1", "w3"), "gate_up_proj"),
)
"""Layers that engines fuse, and the name of the fused module in vLLM (`packed_modules_mapping` of its models)."""
_EXPERT = re.compile(r"(.*\.experts)\.\d+\.\w+")


def packing_of(name: str) -> Packing:
    """Return the packing of a format: version 1 stores zero points minus 1 and thus cannot store 0, version 2 can."""
    return GPTQ_V2 if name == "gptqmodel" else GPTQ


def settings(layout: ConfigLayout, packing: Packing, *, act_order: bool = False) -> dict[str, Any]:
    """Return the `quantization_config`.

    In `dynamic`, GPTQModel uses the first pattern that matches, and AutoRound searches for each pattern. Anchored exact
    names have the same meaning in both; entries to skip come first. vLLM looks up fused layers by the name of the fused
    module, which does not exist in the transformers model and is ignored by other readers.
    `modules_in_block_to_quantize` includes the head, since vLLM takes modules that are not listed for unquantized.

    `meta`, in which GPTQModel stores the quantizer, must be omitted: transformers' AutoRoundConfig rejects configs with
    this key.
    """
    default = layout.default
    named = [*layout.named, *_fused(layout), *layout.head]
    skipped: dict[str, Any] = {f"-:{exactly(module)}": {} for module, plan in named if not plan.scheme.quantized}
    towers: dict[str, Any] = {f"-:{below(module)}": {} for module in layout.towers}
    changed = {
        f"+:{exactly(module)}": plan.scheme.to_json()
        for module, plan in named
        if plan.scheme.quantized and (plan.scheme != default or plan.linear.block < 0)
    }
    config: dict[str, Any] = {
        "quant_method": "gptq",
        "provider": "bitwright",
        "checkpoint_format": "gptq" if packing.zero_bias else "gptq_v2",
        **default.to_json(),
        "data_type": "int",
        "desc_act": act_order,
        "static_groups": False,
        "true_sequential": False,
        "damp_percent": 0.01,
        "lm_head": bool(layout.head),
        "block_name_to_quantize": layout.block_prefix,
    }
    if skipped:
        kinds = {
            module.partition(f".{plan.linear.block}.")[2] for module, plan in layout.named if plan.scheme.quantized
        }
        heads = [module for module, _ in layout.head]
        config["modules_in_block_to_quantize"] = [sorted(kinds), *([heads] if heads else [])]
    if skipped or towers or changed:
        config["dynamic"] = skipped | towers | changed
    return config


def _fused(layout: ConfigLayout) -> list[tuple[str, LayerPlan]]:
    """Return the fused modules of the blocks whose parts have the same scheme, each with the plan of its first part.

    The experts of a block are one module, whose name ends with `experts`. If the parts of a module differ, no engine
    that fuses them can load the checkpoint.
    """
    schemes: dict[str, dict[str, LayerPlan]] = {}
    experts: dict[str, list[LayerPlan]] = {}
    for module, plan in layout.named:
        expert = _EXPERT.fullmatch(module)
        if expert:
            experts.setdefault(expert[1], []).append(plan)
            continue
        parent, _, last = module.rpartition(".")
        schemes.setdefault(parent, {})[last] = plan
    found = [(module, plans[0]) for module, plans in experts.items() if _agree([plan.scheme for plan in plans])]
    for parent, parts in schemes.items():
        for lasts, fused in _FUSED:
            plans = [parts[last] for last in lasts if last in parts]
            if len(plans) == len(lasts) and fused not in parts and _agree([plan.scheme for plan in plans]):
                found.append((f"{parent}.{fused}", plans[0]))
    return found


def _agree(schemes: list[LayerScheme]) -> bool:
    return all(scheme == schemes[0] or not (scheme.quantized or schemes[0].quantized) for scheme in schemes)
