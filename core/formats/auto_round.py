"""The `auto_round` format: choice of the packing, and the config that AutoRound's reader expects."""

from __future__ import annotations

from typing import Any

from core.formats.config_names import ConfigLayout, below
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ_V2, Packing
from core.schemes import UNTOUCHED, LayerScheme

CONFIG_FILE = "quantization_config.json"

_FORCED = {
    "auto_round:auto_gptq": AUTO_ROUND_GPTQ,
    "auto_round:auto_awq": AUTO_ROUND_AWQ,
    "auto_round:gptqmodel": GPTQ_V2,
    "auto_round:plain": AUTO_ROUND,
}


def packing_of(name: str, layout: ConfigLayout) -> Packing:
    """Return the packing that a format name specifies, or the result of `choose_packing` for `auto_round`."""
    return _FORCED[name] if name in _FORCED else choose_packing(layout)


def choose_packing(layout: ConfigLayout) -> Packing:
    """Return the packing that AutoRound would choose, or AutoRound's own packing if that cannot store the plan.

    Symmetric layers use GPTQ's layout, which every engine supports. It cannot store a zero point of 0, so asymmetric
    layers use AWQ's layout if all layers have 4 bits and the same scheme, and AutoRound's own packing otherwise.
    """
    schemes = layout.schemes
    if all(scheme.sym for scheme in schemes):
        return AUTO_ROUND_GPTQ
    if len(schemes) == 1 and layout.default.bits == 4:
        return AUTO_ROUND_AWQ
    return AUTO_ROUND


def settings(layout: ConfigLayout, packing: Packing) -> dict[str, Any]:
    """Return the `quantization_config`.

    `extra_config` contains the differences from the global scheme under exact module names; the reader takes other
    names for regular expressions, as those of MTP modules are. A quantized lm_head and quantized layers of towers are
    outside the blocks and are detected by their entries, which therefore have every key.
    """
    default = layout.default
    extra: dict[str, dict[str, Any]] = {}
    for module, plan in layout.named:
        difference = _difference(plan.scheme, default)
        if difference:
            extra[module] = difference
    for module, plan in (*layout.head, *layout.in_towers):
        extra[module] = {**plan.scheme.to_json(), "data_type": "int"}
    extra |= {below(module): {"bits": UNTOUCHED, "data_type": "float"} for module in layout.further}
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
    """Return the entry of a layer in `extra_config`; {} if it has the default scheme.

    The bits are always included: vLLM takes an entry without bits for a layer in 16 bits (INCConfig.get_quant_method).
    """
    if not scheme.quantized:
        return {"bits": scheme.bits}
    usual = default.to_json()
    keys = {key: value for key, value in scheme.to_json().items() if value != usual[key]}
    return {"bits": scheme.bits, **keys} if keys else {}
