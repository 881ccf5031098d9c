"""The formats `auto_gptq` and `gptqmodel`: GPTQ checkpoints of versions 1 and 2, with GPTQModel's `dynamic`.

Knows the config's keys and what readers do with them, nothing of bits or files.
"""

from __future__ import annotations

from typing import Any

from core.formats.config_names import ConfigLayout, exactly
from core.formats.packing import GPTQ, GPTQ_V2, Packing
from core.model.plans import LayerPlan
from core.schemes import LayerScheme

CONFIG_FILE = "quantize_config.json"

_JOINED = (
    (("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    (("gate_proj", "up_proj"), "gate_up_proj"),
    (("w1", "w3"), "gate_up_proj"),
)
"""What engines make one matrix of, and the name that vLLM gives it (`packed_modules_mapping` of its models)."""


def packing_of(name: str) -> Packing:
    """Version 1 stores zero points less one and cannot store 0; version 2 stores them as they are."""
    return GPTQ_V2 if name == "gptqmodel" else GPTQ


def settings(layout: ConfigLayout, packing: Packing, *, act_order: bool = False) -> dict[str, Any]:
    """The `quantization_config`.

    `dynamic` is read by GPTQModel from the top, first match wins, and by AutoRound as searches: anchored exact names
    mean the same to both, and the ones to skip come first. vLLM asks it for joined layers by their joined name, which
    is no module of the transformers model and to all others a rule that matches nothing. In
    `modules_in_block_to_quantize` the head is named too: vLLM takes what is not in that list for unquantized.

    `meta`, where GPTQModel names a checkpoint's maker, must stay away: transformers' AutoRoundConfig refuses any file
    that has it.
    """
    default = layout.default
    named = [*layout.in_blocks, *_joined(layout), *layout.head]
    skipped: dict[str, Any] = {f"-:{exactly(module)}": {} for module, plan in named if not plan.scheme.quantized}
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
        kinds = {plan.linear.kind for _, plan in layout.in_blocks if plan.scheme.quantized}
        heads = [module for module, _ in layout.head]
        config["modules_in_block_to_quantize"] = [sorted(kinds), *([heads] if heads else [])]
    if skipped or changed:
        config["dynamic"] = skipped | changed
    return config


def _joined(layout: ConfigLayout) -> list[tuple[str, LayerPlan]]:
    """Joined layers of the blocks whose parts agree, by their joined names, each with the plan of its first part.

    Where parts do not agree, no engine that joins them can read the file, and no rule would help it.
    """
    schemes: dict[str, dict[str, LayerPlan]] = {}
    for module, plan in layout.in_blocks:
        parent, _, last = module.rpartition(".")
        schemes.setdefault(parent, {})[last] = plan
    found = []
    for parent, parts in schemes.items():
        for lasts, joined in _JOINED:
            plans = [parts[last] for last in lasts if last in parts]
            if len(plans) == len(lasts) and joined not in parts and _agree([plan.scheme for plan in plans]):
                found.append((f"{parent}.{joined}", plans[0]))
    return found


def _agree(schemes: list[LayerScheme]) -> bool:
    return all(scheme == schemes[0] or not (scheme.quantized or schemes[0].quantized) for scheme in schemes)
