"""Facts about a model from its headers, as short texts. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication

from core.model.context import context_length
from core.model.towers import TITLES, inputs_of, text_config
from core.model.tree import ModelTree
from core.wording import count, human

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel

_DTYPES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8", "U8": "uint8",
    "I32": "int32", "U32": "uint32", "I64": "int64", "F8_E4M3": "float8", "F8_E5M2": "float8",
}  # fmt: skip
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
_MINOR = 0.005
"""Number formats with a smaller share of the bytes are not listed."""

_tr = QCoreApplication.translate


@dataclass(frozen=True)
class Fact:
    """A fact: its name, its value, and the exact value for the tooltip."""

    key: str
    name: str
    value: str
    exact: str = ""


def facts(opened: OpenedModel, license: str, stated_by: str = "") -> tuple[Fact, ...]:
    """Return the facts of a model.

    Args:
        license: license as stated by the Hub, the card or the file, or "".
        stated_by: the source of the license.
    """
    tree = opened.tree
    config = text_config(tree.config)
    quantizable = sum(linear.block >= 0 for linear in tree.linears)
    width, vocabulary = _width(tree, config), _vocabulary(tree, config)
    context = context_length(config)
    unknown = _tr("Facts", "not stated")
    source = _tr("Facts", "Stated by {0}").format(stated_by) if license and stated_by else ""
    return (
        Fact("architecture", _tr("Facts", "Architecture"), tree.architecture or tree.model_type or unknown),
        _parameters(tree),
        Fact(
            "blocks",
            _tr("Facts", "Blocks"),
            _tr("Facts", "{0}, {1} linear layers").format(tree.blocks, f"{quantizable:,}"),
        ),
        *_experts(tree),
        _size(opened),
        *_towers(tree),
        Fact("hidden", _tr("Facts", "Hidden size"), f"{width:,}" if width else unknown),
        Fact("dtype", _tr("Facts", "Data type"), stored_as(tree) or unknown),
        Fact("vocabulary", _tr("Facts", "Vocabulary"), f"{vocabulary:,}" if vocabulary else unknown),
        Fact("context", _tr("Facts", "Context"), f"{context:,}" if context else unknown),
        Fact("tied", _tr("Facts", "Output head"), head_text(tree)),
        Fact("license", _tr("Facts", "License"), license or unknown, source),
    )


def _size(opened: OpenedModel) -> Fact:
    """Return the size of the weights; of quantized ones in their files and in 16 bits."""
    stored, total = opened.file_bytes, opened.tree.nbytes
    value, exact = human(total), _tr("Facts", "{0} bytes").format(f"{total:,}")
    if stored:
        value = _tr("Facts", "{0}, {1} in 16 bits").format(human(stored), value)
        exact = _tr("Facts", "{0} bytes in the files, {1} in 16 bits").format(f"{stored:,}", exact)
    return Fact("size", _tr("Facts", "Size"), value, exact)


def _parameters(tree: ModelTree) -> Fact:
    """Return the number of parameters, and for a mixture of experts how many of them are used for a token."""
    value, exact = count(tree.parameters), f"{tree.parameters:,}"
    if any(tree.experts) and tree.experts_per_token:
        active = round(tree.parameters - sum(tree.block_weights) + sum(tree.active_weights))
        value = _tr("Facts", "{0}, {1} for a token").format(value, count(active))
        exact = _tr("Facts", "{0}, of which {1} are used for each token").format(exact, f"{active:,}")
    return Fact("parameters", _tr("Facts", "Parameters"), value, exact)


def _experts(tree: ModelTree) -> tuple[Fact, ...]:
    """Return the number of experts; empty for a model without."""
    blocks = sum(map(bool, tree.experts))
    if not blocks:
        return ()
    value = f"{max(tree.experts):,}"
    if tree.experts_per_token:
        value = _tr("Facts", "{0}, {1} for a token").format(value, f"{tree.experts_per_token:,}")
    exact = _tr("Facts", "Routed experts, in {0} of {1} blocks").format(blocks, tree.blocks)
    return (Fact("experts", _tr("Facts", "Experts"), value, exact),)


def _towers(tree: ModelTree) -> tuple[Fact, ...]:
    """Return what a multimodal model reads, and the parts that a run copies unchanged; empty for other models."""
    if not tree.towers:
        return ()
    found = [Fact("reads", _tr("Facts", "Reads"), ", ".join(inputs_of(tree.towers)))]
    for kind, title in TITLES.items():
        own = [tower for tower in tree.towers if tower.kind == kind]
        if own:
            value = _tr("Facts", "{0}, copied").format(human(sum(tower.nbytes for tower in own)))
            lines = [f"{one.prefix}: {one.nbytes:,} bytes, {_DTYPES.get(one.dtype, one.dtype)}" for one in own]
            lines.append(_tr("Facts", "Not quantized. GGUF files do not contain it."))
            found.append(Fact(f"tower_{kind}", title.capitalize(), value, "\n".join(lines)))
    return tuple(found)


def head_text(tree: ModelTree) -> str:
    """Return the location of the output head's weights."""
    if not tree.embedding:
        return _tr("Facts", "no embedding")
    return _tr("Facts", "tied to embedding") if tree.tied else _tr("Facts", "separate weights")


def stored_as(tree: ModelTree) -> str:
    """Return the number formats of the weights, the largest share first."""
    sizes: Counter[str] = Counter()
    for tensor in tree.tensors.values():
        sizes[_DTYPES.get(tensor.dtype, tensor.dtype)] += tensor.nbytes
    whole = sum(sizes.values())
    return ", ".join(name for name, size in sizes.most_common(3) if size > _MINOR * whole)


def origin_text(opened: OpenedModel) -> str:
    """Return the origin of the model and the location of its files, as a short text."""
    if opened.origin == "demo":
        return _tr("Facts", "Included with Bitwright, no download needed")
    if opened.origin == "gguf":
        return _tr("Facts", "Imported from {0}").format(opened.name)
    if opened.origin == "folder":
        return opened.folder or opened.name
    if opened.download_bytes:
        return _tr("Facts", "From the Hugging Face Hub, not downloaded yet")
    return _tr("Facts", "From the Hugging Face Hub, downloaded to the cache")


def _width(tree: ModelTree, config: Mapping[str, Any]) -> int:
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return _first(config, _WIDTH_KEYS) or (embedding.shape[1] if embedding is not None else 0)


def _vocabulary(tree: ModelTree, config: Mapping[str, Any]) -> int:
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return _first(config, ("vocab_size",)) or (embedding.shape[0] if embedding is not None else 0)


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Return the first integer under any of the keys, or 0; the config is untrusted."""
    return next((config[key] for key in keys if type(config.get(key)) is int), 0)
