"""Names of the experts of a mixture, and the linear layers in tensors that hold all experts of a block.

A bits map names the experts `PREFIX.N.mlp.experts.E.gate_proj`, `up_proj` and `down_proj`, independent of the names and
shapes in the checkpoint. The layouts are those of the converters of transformers (`conversion_mapping.py`) and of its
modules for experts. Does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.model.headers import TensorInfo
from core.model.tensor_part import TensorPart

EXPERT: Final = re.compile(r"(?<![^.])experts\.(\d+)(?=\.)")
"""Matches the number of an expert in the name of a layer."""
_WEIGHT: Final = ".weight"
_GATE, _UP, _DOWN = "gate_proj", "up_proj", "down_proj"
_PROJECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "gate_up_proj": (_GATE, _UP),
    "w13_weight": (_GATE, _UP),  # Inkling
    "fc1": (_GATE, _UP),  # Aria
    "gate_proj": (_GATE,),
    "w1": (_GATE,),
    "up_proj": (_UP,),
    "w3": (_UP,),
    "gate_and_up_projs": (_UP,),  # Nemotron-H as NeMo saves it; these experts have no gate
    "down_proj": (_DOWN,),
    "down_projs": (_DOWN,),
    "w2": (_DOWN,),
    "w2_weight": (_DOWN,),
    "fc2": (_DOWN,),
}
"""Last part of the name of a tensor with all experts -> their projections, in the order of the output dimension."""
_PARENTS: Final = frozenset({"experts", "shared_experts", "moe"})
_GRANITE: Final[dict[str, tuple[str, ...]]] = {"input_linear": (_GATE, _UP), "output_linear": (_DOWN,)}
"""The same for Granite MoE and JetMoE, whose parent module is the mixture itself."""
_DBRX: Final = {"w1": _GATE, "v1": _UP, "w2": _DOWN}
"""Matrices of all experts of DBRX below each other: [experts * intermediate_size, hidden_size]."""
_SINGLE: Final = {"w1": _GATE, "w3": _UP, "w2": _DOWN}
"""Names of the matrices of one expert in the checkpoints of Mixtral and others."""
_TRANSPOSED: Final = frozenset({
    "aria", "aria_text", "gpt_oss", "llama4", "llama4_text", "openai_privacy_filter", "qwen3_vl_moe",
    "qwen3_vl_moe_text",
})  # fmt: skip
"""Model types that store the experts as [in, out], where the shapes are the same in both orders."""
_INTERLEAVED: Final = frozenset({"gpt_oss"})
"""Model types whose rows of gate and up alternate; `w13_weight` of Inkling alternates as well."""
_MAX_EXPERTS: Final = 1 << 12
"""Limit on the experts of one tensor. The largest mixtures have 512 per block; a header could declare billions."""
_PER_TOKEN: Final = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")
_ORDER: Final = {_GATE: 0, "input_linear": 0, _UP: 1, _DOWN: 2, "output_linear": 2}


@dataclass(frozen=True)
class ExpertLayout:
    """Properties of a model that decide how its tensors with all experts are read.

    Attributes:
        hidden_size: of the model; 0 if the config does not contain it.
        experts: number of experts of DBRX; 0 for other models.
        transposed: the matrices are stored as [in, out].
        interleaved: the rows of gate and up alternate.
    """

    hidden_size: int
    experts: int
    transposed: bool
    interleaved: bool


@dataclass(frozen=True)
class ExpertLinear:
    """One linear layer of a tensor with all experts.

    Attributes:
        kind: name of the layer inside its block.
        in_features, out_features: of the layer.
        dtype: safetensors dtype code.
        part: slice of the tensor.
        has_bias: the checkpoint has a bias for it.
    """

    kind: str
    in_features: int
    out_features: int
    dtype: str
    part: TensorPart
    has_bias: bool


def single_kind(kind: str) -> str:
    """Return the name in a bits map of the matrix `kind` of one expert: `gate_proj` for `w1`, `up_proj` for `w3`."""
    path, _, last = kind.rpartition(".")
    parent, _, number = path.rpartition(".")
    if last in _SINGLE and number.isdecimal() and parent.rpartition(".")[2] == "experts":
        return f"{path}.{_SINGLE[last]}"
    return kind


def experts_per_token(text: Mapping[str, Any]) -> int:
    """Return the number of routed experts that a mixture computes for each token; 0 if the config does not contain it.

    Args:
        text: config of the language model.
    """
    ffn = text.get("ffn_config")
    for part in (text, ffn if isinstance(ffn, dict) else {}):
        for value in map(part.get, _PER_TOKEN):
            values = value if isinstance(value, list) else [value]  # Hunyuan lists one number for each block
            numbers = [number for number in values if type(number) is int and number > 0]
            if numbers:
                return max(numbers)
    return 0


def layout_of(model_type: str, text: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> tuple[ExpertLayout, str]:
    """Return the layout of the tensors with all experts, and an error message or "".

    The sizes of the gate, up and down projections decide about the storage order. If one of them could be either, the
    model type decides.
    """
    sizes = [text.get(key) for key in ("hidden_size", "d_model", "n_embd")]
    hidden = next((size for size in sizes if type(size) is int), 0)
    votes = set()
    for info in tensors:
        found = _fused(info)
        if found is None or len(info.shape) != 3 or not _ORDER.keys() >= set(found[1]):
            continue
        out_is_hidden = found[1] in ((_DOWN,), ("output_linear",))
        rows, columns = info.shape[1:]
        if (rows == hidden) != (columns == hidden):
            votes.add((rows == hidden) != out_is_hidden)
    ffn = text.get("ffn_config")
    experts = ffn.get("moe_num_experts") if isinstance(ffn, dict) else 0
    layout = ExpertLayout(
        hidden_size=hidden,
        experts=experts if type(experts) is int else 0,
        transposed=votes == {True} if votes else model_type in _TRANSPOSED,
        interleaved=model_type in _INTERLEAVED,
    )
    odd = "The shapes of the experts contradict each other about the storage order of their weights."
    return layout, odd if len(votes) > 1 else ""


def expert_linears(
    members: Iterable[TensorInfo], start: str, layout: ExpertLayout, tensors: Mapping[str, TensorInfo]
) -> dict[str, list[ExpertLinear]]:
    """Return the linear layers of the tensors with all experts of one block, by the name of the first such tensor.

    The layers of tensors with the same parent are together, ordered by expert and then gate, up and down.

    Args:
        members: tensors of the block.
        start: prefix of the block, such as `model.layers.3.`.
        layout: of the model.
        tensors: the whole tensor table.
    """
    groups: dict[str, tuple[str, list[tuple[int, int, ExpertLinear]]]] = {}
    for info in members:
        found = _fused(info)
        if found is None:
            continue
        stem, projections = found
        _, group = groups.setdefault(stem, (info.name, []))
        for expert, place, linear in _split(info, stem.removeprefix(start), projections, layout, tensors):
            group.append((expert, place, linear))
    return {
        first: [linear for _, _, linear in sorted(group, key=lambda item: item[:2])] for first, group in groups.values()
    }


def _fused(info: TensorInfo) -> tuple[str, tuple[str, ...]] | None:
    """Return the path before the number of the expert, and the projections; None if this is another tensor."""
    path, _, last = info.name.removesuffix(_WEIGHT).rpartition(".")
    parent = path.rpartition(".")[2]
    if len(info.shape) == 2:
        if parent == "mlp" and path.endswith(".experts.mlp") and last in _DBRX:
            return path.removesuffix(".mlp"), (_DBRX[last],)
        return None
    if len(info.shape) != 3 or min(info.shape) == 0 or info.shape[0] > _MAX_EXPERTS:
        return None
    if last in _GRANITE:
        return (path, (last,)) if parent == "experts" else (f"{path}.experts", _GRANITE[last])
    if parent not in _PARENTS or last not in _PROJECTIONS:
        return None
    return path if parent != "moe" else f"{path}.experts", _PROJECTIONS[last]


def _split(
    info: TensorInfo,
    stem: str,
    projections: tuple[str, ...],
    layout: ExpertLayout,
    tensors: Mapping[str, TensorInfo],
) -> Iterator[tuple[int, int, ExpertLinear]]:
    transposed = layout.transposed
    if len(info.shape) == 2:
        transposed = projections == (_DOWN,)
        if not 0 < layout.experts <= _MAX_EXPERTS or info.shape[0] % layout.experts:
            return
        shape = (layout.experts, info.shape[0] // layout.experts, info.shape[1])
    else:
        shape = info.shape  # type: ignore[assignment]
    count, rows, columns = shape
    inputs, outputs = (rows, columns) if transposed else (columns, rows)
    parts = len(projections)
    interleaved = parts > 1 and (layout.interleaved or info.name.removesuffix(_WEIGHT).endswith(".w13_weight"))
    size = outputs // parts
    bias = bias_name(info.name, fused=True) in tensors
    for place, projection in enumerate(projections):
        slices = (place, outputs, parts) if interleaved else (place * size, (place + 1) * size, 1)
        for expert in range(count):
            part = TensorPart(info.name, expert, slices, transposed)
            kind = f"{stem}.{expert}.{projection}"
            yield expert, _ORDER[projection], ExpertLinear(kind, inputs, size, info.dtype, part, bias)


def bias_name(weight: str, *, fused: bool) -> str:
    """Return the name of the bias tensor for a weight tensor: `gate_up_proj_bias` of gpt-oss for fused experts."""
    return f"{weight.removesuffix(_WEIGHT)}{'_bias' if fused and not weight.endswith(_WEIGHT) else '.bias'}"
