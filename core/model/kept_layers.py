"""Linear layers that stay in 16 bits unless a bits map names them, and the reason of each.

They decide about the route of a token or the decay of a recurrent state, where small errors grow, hold few weights, or
are no modules that the readers of quantized models replace. Does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from core.model.fused_experts import EXPERT

ROUTER: Final = "routers stay in 16 bits, unless named"
_LAST: Final[dict[str, str]] = {
    **dict.fromkeys(("router_gate", "modality_router"), ROUTER),
    "shared_expert_gate": "gates of shared experts stay in 16 bits, unless named",
    **dict.fromkeys(
        (
            "in_proj_a", "in_proj_b", "in_proj_ba", "a_proj", "b_proj", "f_proj", "f_a_proj", "f_b_proj",
            "igate_preact", "fgate_preact",
        ),
        "gates of a recurrent state stay in 16 bits, unless named",
    ),
    **dict.fromkeys(("x_proj", "dt_proj"), "step sizes of a state space stay in 16 bits, unless named"),
    **dict.fromkeys(("wo_a", "o_a_proj"), "products in groups stay in 16 bits, unless named"),
}  # fmt: skip
"""Last part of the name -> reason: the gates of Gated DeltaNet, Kimi Linear and xLSTM, the step sizes of Mamba, and the
product in groups of DeepSeek V4."""
_INSIDE: Final[dict[str, str]] = {
    "router": ROUTER,
    "indexer": "the index of sparse attention stays in 16 bits, unless named",
    "compressor": "the compression of keys and values stays in 16 bits, unless named",
    "altup": "mixes of residual streams stay in 16 bits, unless named",
    "attn_hyper_connection": "mixes of residual streams stay in 16 bits, unless named",
    "mlp_hyper_connection": "mixes of residual streams stay in 16 bits, unless named",
}
"""Any part of the name -> reason."""
_HEAD_GATE: Final = "gates and sinks of attention heads stay in 16 bits, unless named"
_NORM: Final = "parts of a norm stay in 16 bits, unless named"
_SHARED: Final = "shared experts in one tensor stay in 16 bits, since readers have no modules for them"
CROSS: Final = "blocks that attend to pictures stay in 16 bits, since text does not reach them"
PICTURES: Final = "experts for pictures stay in 16 bits, since text does not reach them"
_UNUSED: Final = "the checkpoint has no down_proj for this expert"


_BLOCK: Final = re.compile(r".*?\.\d+\.")
"""Matches the prefix and number of a block at the start of a full name."""
_SHARED_KINDS: Final = re.compile(r".*\bshared_experts\.\d+\.\w+")
_UNUSED_KINDS: Final = re.compile(r"(.+\.experts\.\d+\.)(?:gate|up)_proj")


class Reasons:
    """The reasons why layers stay in 16 bits; equal blocks are examined once.

    Args:
        heads: number of attention heads; 0 if unknown.
        experts: number of the experts for text, which are followed by those for pictures; 0 if all are for text.
    """

    def __init__(self, heads: int, experts: int = 0) -> None:
        self._heads, self._experts = heads, experts
        self._known: dict[tuple[tuple[str, int], ...], list[str]] = {}

    def of_block(self, layers: Iterable[tuple[str, int]]) -> list[str]:
        """Return the reason for each layer of a block; "" if it is quantized as the bits map specifies.

        Args:
            layers: name inside the block and out_features of each linear layer.
        """
        key = tuple(layers)
        found = self._known.get(key)
        if found is None:
            kinds = {kind for kind, _ in key}
            if any(kind.startswith("cross_attn.") for kind in kinds):
                return self._known.setdefault(key, [CROSS] * len(key))
            mixtures = {kind.partition(".experts.")[0] for kind in kinds if ".experts." in kind}
            unused = _unused_experts(kinds) if mixtures else {}
            found = self._known[key] = [
                unused.get(kind) or self._pictures(kind) or _reason(kind, out_features, mixtures, self._heads)
                for kind, out_features in key
            ]
        return found

    def _pictures(self, kind: str) -> str:
        match = EXPERT.search(kind) if self._experts else None
        return PICTURES if match is not None and int(match[1]) >= self._experts else ""


def text_experts(text: Mapping[str, Any]) -> int:
    """Return the number of the experts for text of a model that has others for pictures (ERNIE VL); 0 for others.

    Args:
        text: config of the language model.
    """
    sizes, counts = text.get("moe_intermediate_size"), text.get("moe_num_experts")
    count = counts[0] if isinstance(counts, list) and counts else counts
    return count if isinstance(sizes, list) and len(sizes) == 2 and type(count) is int else 0


def kept_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of those linear layers that stay in 16 bits, from the full names of all layers of a model.

    Gates of attention heads are not recognized, since that needs their sizes.
    """
    blocks: dict[str, list[str]] = {}
    for name in names:
        match = _BLOCK.match(name)
        if match:
            blocks.setdefault(match[0], []).append(name)
    reasons = Reasons(0)
    found = set[str]()
    for start, inside in blocks.items():
        why = reasons.of_block([(name.removeprefix(start), 1) for name in inside])
        found |= {name for name, reason in zip(inside, why, strict=True) if reason}
    return frozenset(found)


def _reason(kind: str, out_features: int, mixtures: Collection[str], heads: int) -> str:
    """Return the reason of one layer.

    Args:
        mixtures: names of the modules of the block that contain experts, such as `mlp`.
    """
    if _SHARED_KINDS.fullmatch(kind):
        return _SHARED
    parts = kind.split(".")
    if parts[-1] in _LAST:
        return _LAST[parts[-1]]
    for place, part in enumerate(parts):
        if part in _INSIDE:
            return _INSIDE[part]
        if part == "gate" and ".".join(parts[:place]) in mixtures:
            return ROUTER
        if part.endswith("norm"):
            return _NORM
    return _HEAD_GATE if parts[-1] in ("g_proj", "attn_sink_proj") and out_features == heads else ""


def _unused_experts(kinds: Collection[str]) -> dict[str, str]:
    """Return the reason for the gate and up projections of experts without a down projection, by kind.

    LongCat's identity experts have weights that no token uses.
    """
    if not any(kind.endswith(".down_proj") and ".experts." in kind for kind in kinds):
        return {}
    found = ((kind, match[1]) for kind in kinds if (match := _UNUSED_KINDS.fullmatch(kind)))
    return {kind: _UNUSED for kind, stem in found if f"{stem}down_proj" not in kinds}
