"""The `auto_round` format: which packing a plan gets, and the config that AutoRound's own reader expects.

Knows the config's keys and what readers do with them, nothing of bits or files.
"""

from __future__ import annotations

from typing import Any

from core.formats.config_names import ConfigLayout
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ_V2, Packing
from core.schemes import LayerScheme

CONFIG_FILE = "quantization_config.json"

_FORCED = {
    "auto_round:auto_gptq": AUTO_ROUND_GPTQ,
    "auto_round:auto_awq": AUTO_ROUND_AWQ,
    "auto_round:gptqmodel": GPTQ_V2,
    "auto_round:plain": AUTO_ROUND,
}


def packing_of(name: str, layout: ConfigLayout) -> Packing:
    """The packing that a format's name asks for; the best one where it names none."""
    return _FORCED[name] if name in _FORCED else choose_packing(layout)


def choose_packing(layout: ConfigLayout) -> Packing:
    """The packing that AutoRound itself would take, or the plain one where that could not hold the plan.

    Symmetric layers go into GPTQ's layout, which every engine reads. It cannot store a zero point of 0, so asymmetric
    ones go into AWQ's (4 bits and one group size only) or, with one symmetric layer or one other size among
    them, into AutoRound's own.
    """
    schemes = layout.schemes
    if all(scheme.sym for scheme in schemes):
        return AUTO_ROUND_GPTQ
    if len(schemes) == 1 and layout.default.bits == 4:
        return AUTO_ROUND_AWQ
    return AUTO_ROUND


def settings(layout: ConfigLayout, packing: Packing) -> dict[str, Any]:
    """The `quantization_config`.

    Only what differs from the global scheme stands in `extra_config`, under exact module names: a name that is no
    module is taken for a regular expression by the reader. A quantized lm_head lies outside the blocks and is found by
    its entry alone, so that one carries every key.
    """
    default = layout.default
    extra: dict[str, dict[str, Any]] = {}
    for module, plan in layout.in_blocks:
        difference = _difference(plan.scheme, default)
        if difference:
            extra[module] = difference
    for module, plan in layout.head:
        extra[module] = {**plan.scheme.to_json(), "data_type": "int"}
    config = {
        "quant_method": "auto-round",
        "provider": "bitwright",
        "packing_format": packing.name,
        **default.to_json(),
        "data_type": "int",
        "block_name_to_quantize": layout.block_prefix,
    }
    return {**config, "extra_config": extra} if extra else config


def _difference(scheme: LayerScheme, default: LayerScheme) -> dict[str, Any]:
    """What an entry says of a layer; nothing where it has the usual scheme.

    The bits always go along: vLLM takes an entry without them for a layer in 16 bits (INCConfig.get_quant_method).
    """
    if not scheme.quantized:
        return {"bits": scheme.bits}
    usual = default.to_json()
    keys = {key: value for key, value in scheme.to_json().items() if value != usual[key]}
    return {"bits": scheme.bits, **keys} if keys else {}
