"""Parts of a multimodal checkpoint besides its language model: towers, projectors, and multi-token prediction modules.

They are found by structure: in a checkpoint whose config nests that of the language model, they are what lies outside
the smallest module with the blocks and the token embedding. In a flat checkpoint, the names of the modules decide.
Does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from core.model.headers import TensorInfo

Kind = Literal["vision", "audio", "projector", "mtp", "other"]

VISION: Final = frozenset({
    "vision", "visual", "image", "img", "vit", "clip", "siglip", "video", "sam", "vq", "vqmodel", "vqgan", "pixel",
})  # fmt: skip
AUDIO: Final = frozenset({"audio", "speech", "sound", "codec", "mimi", "whisper"})
_PROJECTORS: Final = frozenset({
    "projector", "connector", "aligner", "resampler", "qformer", "perceiver", "abstractor", "merger", "mm",
})  # fmt: skip
_OUTER_PROJECTORS: Final = _PROJECTORS | {"projection", "adapter", "adaptor"}
"""Words of projectors outside the language model; inside, these words also have other meanings (Gemma 3n)."""
_MTP: Final = frozenset({"mtp", "nextn"})
_NESTED: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_TOWER_CONFIGS: Final = ("vision_config", "audio_config", "vq_config", "audio_encoder_config", "vit_config")


@dataclass(frozen=True)
class Tower:
    """A part of a checkpoint that is not the language model; a run copies its tensors.

    Attributes:
        prefix: of the names of its tensors, such as `model.visual`.
        kind: `vision`, `audio`, `projector` (between a tower and the language model), `mtp` or `other`.
        tensors: number of its tensors.
        parameters, nbytes: size.
        dtype: dtype code of the largest tensor.
    """

    prefix: str
    kind: Kind
    tensors: int
    parameters: int
    nbytes: int
    dtype: str


KEPT: Final = "towers and projectors are copied, unless named"
"""Reason why a linear layer of a tower stays in 16 bits."""
_NO_LINEARS: Final = frozenset({"embed", "embedding", "embeddings", "embedder", "norm", "position", "pos", "codebook"})
"""Words in the names of matrices of towers that are no linear layers."""
TITLES: Final[Mapping[Kind, str]] = {
    "vision": "vision tower",
    "audio": "audio tower",
    "projector": "projector",
    "mtp": "multi-token prediction",
    "other": "other part",
}
"""Names of the kinds for the user."""


def inputs_of(towers: Iterable[Tower]) -> tuple[str, ...]:
    """Return what a model reads: `text`, and `pictures` and `sound` if it has towers for them."""
    kinds = {tower.kind for tower in towers}
    return ("text", *(["pictures"] if "vision" in kinds else []), *(["sound"] if "audio" in kinds else []))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the language model: the nested one of a multimodal model, else the config itself."""
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, dict):
            return text_config(nested)
    return config


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Return whether a config describes towers besides the language model."""
    return any(isinstance(config.get(key), dict) for key in (*_NESTED, *_TOWER_CONFIGS))


def is_aside(name: str) -> bool:
    """Return whether a module name is that of a tower, a projector or a multi-token prediction module."""
    return _kind(name) != "other"


def text_root(prefix: str, embedding: str) -> str:
    """Return the path of the smallest module with the blocks and the token embedding.

    Args:
        prefix: of the blocks, such as `model.language_model.layers`.
        embedding: name of the token embedding without `.weight`; "" if unknown.
    """
    parts = prefix.split(".")[:-1]
    if embedding:
        others = embedding.split(".")[:-1]
        same = next((n for n, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b), None)
        parts = parts[: min(len(parts), len(others)) if same is None else same]
    return ".".join(parts)


def find_towers(
    config: Mapping[str, Any],
    tensors: Iterable[TensorInfo],
    *,
    prefix: str,
    embedding: str,
    head: str,
    blocks: int,
    others: Iterable[str] = (),
) -> tuple[Tower, ...]:
    """Return the towers of a checkpoint in the order of their tensors.

    Args:
        config: the whole config.
        tensors: of the checkpoint.
        prefix: of the blocks.
        embedding, head: names of the token embedding and the output head without `.weight`; "" if there is none.
        blocks: number of blocks; those with higher numbers are multi-token prediction modules.
        others: prefixes of the other numbered stacks with matrices. In a multimodal model they are parts of towers.
    """
    root = text_root(prefix, embedding)
    beside = frozenset(_below(root, other) for other in others) if is_multimodal(config) else frozenset()
    nested = is_multimodal(config) and text_config(config) is not config
    found: dict[tuple[str, Kind], list[TensorInfo]] = {}
    for info in tensors:
        place = _place(info.name, root, prefix, head, blocks, nested, beside)
        if place is not None:
            found.setdefault(place, []).append(info)
    return tuple(
        Tower(
            path,
            kind,
            len(infos),
            sum(info.numel for info in infos),
            sum(info.nbytes for info in infos),
            max(infos, key=lambda info: info.numel).dtype,
        )
        for (path, kind), infos in found.items()
    )


def tower_of(towers: Iterable[Tower], name: str) -> Tower | None:
    """Return the tower that has a tensor; None for tensors of the language model."""
    return next((tower for tower in towers if f"{name}.".startswith(f"{tower.prefix}.")), None)


def matrices(towers: Iterable[Tower], tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Return the weights of linear layers in vision and audio towers and in projectors, in the order of `tensors`.

    Modules for multi-token prediction are not included: engines load them as models of their own.
    """
    usable = [tower for tower in towers if tower.kind in ("vision", "audio", "projector")]
    return [
        info
        for info in (tensors if usable else ())
        if len(info.shape) == 2 and info.name.endswith(".weight") and tower_of(usable, info.name) is not None
        if not _NO_LINEARS & set(re.findall(r"[a-z]+", info.name.lower()))
    ]


def _place(
    name: str, root: str, prefix: str, head: str, blocks: int, nested: bool, beside: frozenset[str]
) -> tuple[str, Kind] | None:
    """Return the path and the kind of the tower that has a tensor; None for tensors of the language model.

    Args:
        beside: paths of modules beside the blocks that have stacks of their own.
    """
    if name.startswith(f"{prefix}."):
        number = name[len(prefix) + 1 :].partition(".")[0]
        further = number.isascii() and number.isdecimal() and int(number) >= blocks
        return (f"{prefix}.{number}", "mtp") if further else None
    if head and (name == head or name.startswith(f"{head}.")):
        return None
    if not root or name.startswith(f"{root}."):
        # Beside the blocks, only the names of the modules and their own stacks tell.
        path = _below(root, name)
        kind = _kind(path.rpartition(".")[2])
        if kind != "other" or path not in beside:
            return None if kind == "other" else (path, kind)
        inner = (place for place in reversed(list(_parents(name))) if len(place) > len(path))
        told = ((place, _kind(place.rpartition(".")[2], _OUTER_PROJECTORS)) for place in inner)
        return next((found for found in told if found[1] != "other"), (path, "other"))
    if not nested and _kind(name) == "other":
        return None
    shared = next((f"{part}." for part in _parents(root) if name.startswith(f"{part}.")), "")
    path = shared + name[len(shared) :].split(".")[0]
    kind = _kind(path, _OUTER_PROJECTORS)
    return path, kind if kind != "other" else _kind(name.rpartition(".")[0], _OUTER_PROJECTORS)


def _below(root: str, name: str) -> str:
    """Return the path of the module just below `root` that has a tensor; all names are below the root ""."""
    start = f"{root}." if root else ""
    return start + name[len(start) :].split(".")[0] if name.startswith(start) else ""


def _parents(path: str) -> Iterable[str]:
    """Yield the modules around a module, the smallest first."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _kind(name: str, projectors: frozenset[str] = _PROJECTORS) -> Kind:
    """Return the kind of part that the words of a module name tell."""
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", name)}
    words |= {word.removesuffix("s") for word in words}
    if words & _MTP:
        return "mtp"
    if words & projectors:
        return "projector"
    if words & VISION:
        return "vision"
    return "audio" if words & AUDIO else "other"
