"""The `auto_gptq` format: the config of a GPTQ checkpoint (version 1), with GPTQModel's `dynamic` for exceptions.

Knows the config's keys and what readers do with them, nothing of bits or files.
"""

from __future__ import annotations

import re
from typing import Any

from core.formats.config_names import Layout

CONFIG_FILE = "quantize_config.json"


def settings(layout: Layout) -> dict[str, Any]:
    """The `quantization_config`.

    `dynamic` is read by GPTQModel from the top, first match wins, and by AutoRound as searches: anchored exact names
    mean the same to both, and the ones to skip come first. `meta`, where GPTQModel names a checkpoint's maker, must
    stay away: transformers' AutoRoundConfig refuses any file that has it.
    """
    default = layout.default
    skipped: dict[str, Any] = {
        f"-:{_exactly(module)}": {} for module, plan in layout.in_blocks if not plan.scheme.quantized
    }
    changed = {
        f"+:{_exactly(module)}": plan.scheme.to_json()
        for module, plan in layout.in_blocks
        if plan.scheme.quantized and plan.scheme != default
    }
    changed |= {f"+:{_exactly(module)}": plan.scheme.to_json() for module, plan in layout.head}
    config: dict[str, Any] = {
        "quant_method": "gptq",
        "provider": "bitwright",
        "checkpoint_format": "gptq",
        **default.to_json(),
        "data_type": "int",
        "desc_act": False,
        "static_groups": False,
        "true_sequential": False,
        "damp_percent": 0.01,
        "lm_head": bool(layout.head),
        "block_name_to_quantize": layout.block_prefix,
    }
    if skipped:
        kinds = {plan.linear.kind for _, plan in layout.in_blocks if plan.scheme.quantized}
        config["modules_in_block_to_quantize"] = [sorted(kinds)]
    if skipped or changed:
        config["dynamic"] = skipped | changed
    return config


def _exactly(module: str) -> str:
    return f"^{re.escape(module)}$"
