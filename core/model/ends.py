"""Detection of the token embedding and the output head of a checkpoint by names and shapes."""

from __future__ import annotations

from typing import Any

from core.model.headers import TensorInfo

_WEIGHT = ".weight"
_HEAD_WORDS = ("head", "output", "embed_out", "unembed")
_HEAD_MODULES = frozenset({"lm_head", "predictions"})
"""Modules around a head such as `cls.predictions.decoder` of RemBERT."""
_POSITION_WORDS = ("pos", "wpe")


def find_ends(outside: list[TensorInfo], prefix: str, vocabulary: Any) -> tuple[TensorInfo | None, TensorInfo | None]:
    """Return the token embedding and the head, matrices outside the blocks with one row per token of the vocabulary.

    The embedding is a sibling of the stack of blocks (`model.embed_tokens`, `model.layers`), and the head is on a
    higher level (`lm_head`). If both are on the same level (GPT-2 without `transformer.`), their names decide.
    Matrices inside a numbered module or an MTP (multi-token prediction) module are excluded. If only the head has one
    row per token, the embedding may have more.
    """
    matrices = [
        info for info in outside if len(info.shape) == 2 and info.name.endswith(_WEIGHT) and not _in_part(info.name)
    ]
    rows = [info for info in matrices if info.shape[0] == vocabulary]
    if not rows and matrices:
        most = max(info.shape[0] for info in matrices)
        rows = [info for info in matrices if info.shape[0] == most]
    parent = prefix.rpartition(".")[0]

    def distance(info: TensorInfo) -> tuple[bool, bool, bool]:
        path, _, last = info.name.removesuffix(_WEIGHT).rpartition(".")
        return (
            any(word in last for word in _HEAD_WORDS) or not _HEAD_MODULES.isdisjoint(path.split(".")),
            any(word in last for word in _POSITION_WORDS),
            path != parent,
        )

    ranked = sorted(rows, key=distance)
    if not ranked:
        return None, None
    if distance(ranked[0])[0]:
        return _longer_embedding(matrices, ranked[-1]), ranked[-1]
    heads = [info for info in ranked[1:] if distance(info)[0] or (distance(info)[2] and not distance(info)[1])]
    return ranked[0], heads[-1] if heads else None


def _longer_embedding(matrices: list[TensorInfo], head: TensorInfo) -> TensorInfo | None:
    """Return an embedding with more rows than the head, such as for the image token of Llama 3.2 Vision, or None."""
    longer = [
        info
        for info in matrices
        if "embed" in info.name
        and info.shape[0] > head.shape[0]
        and not any(word in info.name for word in _POSITION_WORDS)
    ]
    return max(longer, key=lambda info: info.shape[0], default=None)


def _in_part(name: str) -> bool:
    parts = name.split(".")
    return "mtp" in parts or any(map(is_number, parts))


def is_number(part: str) -> bool:
    """Return whether a part of a tensor's name is a block number."""
    return part.isascii() and part.isdecimal() and len(part) <= 6
