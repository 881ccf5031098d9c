"""The output formats by name, and what an output of one of them consists of, before anything is written.

`plan` says in preflight whether a format can hold a map and, if so, what the output will be, so that sizes are known
and files can be laid out. Knows no bit of a packing and no key of a config.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import BadInput, UnsupportedModel
from core.formats import auto_round, awq, gptq, limits
from core.formats.config_names import ConfigLayout, ModuleName, lay_out
from core.formats.names import AUTO_ROUND, AWQ, FORMATS, GPTQ, PLAIN, is_gguf
from core.formats.packed import PackedPlan, lay_out_tensors
from core.formats.packing import Packing
from core.formats.stored import FormatPlan
from core.model.tree import LayerPlan, ModelTree

__all__ = ["FORMATS", "FormatPlan", "plan", "plan_packed"]


def plan(
    name: str,
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    source_config: dict[str, Any],
    module_name: ModuleName = str,
    source_folder: Path | None = None,
    label: str = "",
    *,
    act_order: bool = False,
    embedding_type: str = "",
) -> FormatPlan:
    """What the format called `name` makes of a model and its resolved map.

    Args:
        name: one of `names.FORMATS`.
        tree: the source checkpoint.
        plans: one for each linear of the tree.
        source_config: the source's config.json, without what it may say of a quantization.
        module_name: from a linear's name in the checkpoint to its module's name in the transformers model, which
            is what readers match; the same by default.
        source_folder: where the source's tokenizer lies; GGUF files hold it.
        label: what the source is called, such as `owner/name`; for GGUF's metadata.
        act_order: layers may have act-order (GPTQ's `desc_act`).
        embedding_type: block type that the source's embedding is stored in, which GGUF can take over; "" for none.

    Raises:
        BadInput: an unknown format, nothing to quantize, or layers that the format cannot hold.
        UnsupportedModel: the source is quantized already, or of a kind that the format has no place for.
    """
    if name not in FORMATS:
        hint = "Conversions write it." if name in PLAIN else f"Choose from {', '.join(FORMATS)}."
        raise BadInput(f"There is no output format {name!r}.", hint)
    if source_config.get("quantization_config"):
        raise UnsupportedModel("The source model is quantized already.", "Choose the original model.")
    if act_order and name not in GPTQ:
        raise BadInput(
            f"{name} cannot store act-order (desc_act).",
            f"Choose {' or '.join(GPTQ)}, or 16 bits.",
        )
    if is_gguf(name):
        # The GGUF writer brings tokenizers and architectures along, which no other format needs.
        from core.formats.gguf.plan import plan_gguf

        if source_folder is None:
            raise ValueError("a GGUF file holds the tokenizer, which lies in the source's folder")
        return plan_gguf(name, tree, plans, source_folder, label, embedding_type)
    return plan_packed(name, tree, plans, source_config, module_name, act_order=act_order)


def plan_packed(
    name: str,
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    source_config: dict[str, Any],
    module_name: ModuleName = str,
    *,
    act_order: bool = False,
) -> PackedPlan:
    """The same for the formats of safetensors.

    Raises:
        BadInput: nothing to quantize, or layers that the format cannot hold.
        UnsupportedModel: the model's blocks are called otherwise once it is loaded.
    """
    limits.check(name, tree, plans)
    layout = lay_out(plans, module_name)
    quantized = {item.linear.name: item for item in plans if item.scheme.quantized}
    packing = _packing(name, layout)
    tensors, copied = lay_out_tensors(tree, quantized, packing)
    asymmetric = any(not scheme.sym for scheme in layout.schemes)
    least = packing.zero_bias if asymmetric else 0
    notes = []
    if least:
        notes.append(f"{name} cannot store a zero point of 0: the levels of asymmetric layers keep to what it can.")
    if act_order:
        notes.append("GPTQModel reads act-order (desc_act); auto-round and vLLM do not.")
    return PackedPlan(
        name=name,
        packing=packing,
        tensors=tensors,
        copied=copied,
        layers=quantized,
        min_zero=least,
        config_file=_config_file(name),
        settings=_settings(name, layout, packing, tree, module_name, act_order=act_order),
        source_config=source_config,
        module_name=module_name,
        unties=tree.tied and bool(layout.head),
        act_order=act_order,
        notes=tuple(notes),
    )


def _packing(name: str, layout: ConfigLayout) -> Packing:
    if name in AUTO_ROUND:
        return auto_round.packing_of(name, layout)
    return awq.PACKING if name in AWQ else gptq.packing_of(name)


def _config_file(name: str) -> str:
    if name in AUTO_ROUND:
        return auto_round.CONFIG_FILE
    return awq.CONFIG_FILE if name in AWQ else gptq.CONFIG_FILE


def _settings(
    name: str, layout: ConfigLayout, packing: Packing, tree: ModelTree, module_name: ModuleName, *, act_order: bool
) -> dict[str, Any]:
    if name in AUTO_ROUND:
        return auto_round.settings(layout, packing)
    if name in AWQ:
        return awq.settings(layout, tree, module_name)
    return gptq.settings(layout, packing, act_order=act_order)
