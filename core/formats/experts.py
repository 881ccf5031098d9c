"""Experts in packed outputs: one tensor for the weight and the bias of each projection.

transformers and many checkpoints store all experts of a block in one tensor. Readers of packed checkpoints replace that
module by linear layers, one for each projection of each expert, as soon as one layer of the model is packed. They find
the tensors by the names that AutoRound 0.16.1 writes, which are those of a bits map: `PREFIX.experts.E.gate_proj`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from core.model.tree import Linear, ModelTree
from core.model.writer import TensorPlan

_AS_STORED: Final = frozenset({"llama4", "llama4_text"})
"""Model types whose module with all experts auto-round 0.16.1 does not replace when it reads a checkpoint."""


@dataclass(frozen=True)
class ExpertTensor:
    """The weight or the bias of an expert as a tensor of an output, in place of a part of a tensor of the source.

    Attributes:
        plan: name, dtype and shape in the output; the weight is [out, in].
        linear: layer of the source.
        bias: whether it is the bias.
    """

    plan: TensorPlan
    linear: Linear
    bias: bool


def expert_tensors(
    tree: ModelTree, quantized: Container[str], *, always: bool = False
) -> dict[str, list[ExpertTensor | Linear]]:
    """Return the tensors of the source that an output replaces, and what it has in place of each.

    A `Linear` stands for the packed tensors of a quantized expert. All experts of a block are in place of the first
    tensor of the block, in the order of the tree. The result is empty if no expert is quantized; else it has the
    experts of all blocks, since readers replace the modules of all blocks.

    Args:
        tree: of the source.
        quantized: names of the quantized linear layers.
        always: whether the readers of the format replace the modules also if no expert is quantized, as auto-round
            does, except for the model types in `_AS_STORED`.
    """
    experts = [linear for linear in tree.linears if linear.part is not None]
    replaced = always and tree.model_type not in _AS_STORED
    if not replaced and not any(linear.name in quantized for linear in experts):
        return {}
    found: dict[str, list[ExpertTensor | Linear]] = {}
    order = {name: place for place, name in enumerate(tree.tensors)}
    for block in dict.fromkeys(linear.block for linear in experts):
        members = [linear for linear in tree.of_block(block) if linear.part is not None]
        names = {tree.weight_of(linear) for linear in members} | {tree.bias_of(linear) for linear in members} - {""}
        first = min(names, key=lambda name: order[name])
        found |= {name: [] for name in names}
        for linear in members:
            shape = (linear.out_features, linear.in_features)
            found[first].append(
                linear
                if linear.name in quantized
                else ExpertTensor(TensorPlan(f"{linear.name}.weight", linear.dtype, shape), linear, bias=False)
            )
            bias = tree.bias_of(linear)
            if bias:
                plan = TensorPlan(f"{linear.name}.bias", tree.tensors[bias].dtype, (linear.out_features,))
                found[first].append(ExpertTensor(plan, linear, bias=True))
    return found
