"""Planning of outputs by format name.

`plan` checks before a run whether a format can store a model with its bits map, and returns the tensors of the output,
so that sizes are known and files can be laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import BadInput, UnsupportedModel
from core.formats import auto_round, awq, gptq, limits
from core.formats.config_names import ConfigLayout, ModuleName, config_layout
from core.formats.names import AUTO_ROUND, AWQ, FORMATS, GPTQ, PLAIN, is_gguf
from core.formats.packed import PackedPlan, packed_tensors
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
    like: str = "",
) -> FormatPlan:
    """Plan an output of a model in the format `name`.

    Args:
        name: one of `names.FORMATS`.
        tree: the source checkpoint.
        plans: of all linear layers of the tree.
        source_config: config.json of the source, without `quantization_config`.
        module_name: function from a layer name in the checkpoint to the module name in the transformers model, which
            readers match; the identity by default.
        source_folder: folder with the tokenizer of the source, which GGUF files contain.
        label: name of the source, such as `owner/name`, for the metadata of GGUF.
        act_order: whether layers may have act-order (GPTQ's `desc_act`).
        embedding_type: block type of the embedding in the source, which GGUF can copy; "" for none.
        like: path of a GGUF file, whose name, types and tokenizer the GGUF output gets; "" for none.

    Raises:
        BadInput: the format is unknown, no layer is quantized, or the format cannot store a layer.
        UnsupportedModel: the source is already quantized, or the format does not support the architecture.
    """
    if name not in FORMATS:
        hint = "Use `bitwright convert` for it." if name in PLAIN else f"Choose from {', '.join(FORMATS)}."
        raise BadInput(f"Unknown output format {name!r}.", hint)
    if source_config.get("quantization_config"):
        raise UnsupportedModel("The source model is already quantized.", "Choose the original model.")
    if act_order and name not in GPTQ:
        raise BadInput(
            f"{name} cannot store act-order (desc_act).",
            f"Choose {' or '.join(GPTQ)}, or 16 bits.",
        )
    if is_gguf(name):
        # Imported here, since the GGUF writer imports tokenizers and architectures.
        from core.formats.gguf.plan import plan_gguf

        if source_folder is None:
            raise ValueError("a GGUF file contains the tokenizer, so the source folder is required")
        return plan_gguf(name, tree, plans, source_folder, label, embedding_type, like)
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
    """Plan an output in one of the packed safetensors formats; see `plan`.

    Raises:
        BadInput: no layer is quantized, or the format cannot store a layer.
        UnsupportedModel: the block structure of the loaded model differs from that of the checkpoint.
    """
    limits.check(name, tree, plans)
    layout = config_layout(plans, module_name, tree.towers)
    quantized = {item.linear.name: item for item in plans if item.scheme.quantized}
    packing = _packing(name, layout)
    tensors, copied, experts = packed_tensors(tree, quantized, packing, separate=name in AUTO_ROUND)
    asymmetric = any(not scheme.sym for scheme in layout.schemes)
    least = packing.zero_bias if asymmetric else 0
    notes = []
    if least:
        notes.append(f"{name} cannot store a zero point of 0, so asymmetric layers use zero points from 1.")
    if act_order:
        notes.append("GPTQModel supports act-order (desc_act); auto-round and vLLM do not.")
    return PackedPlan(
        name=name,
        packing=packing,
        tensors=tensors,
        copied=copied,
        experts=experts,
        tree=tree,
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
