"""What headers say of a model, as a value for people and for programs. Reads nothing itself; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.estimate import sizes
from core.model.tree import LayerPlan, ModelTree


@dataclass(frozen=True)
class Inspection:
    """What headers say of a model: its tree, the scheme that each linear would get, and what an output would weigh.

    `origin` says where the model came from; `plans` and `size` are empty where the model cannot be quantized.
    `file_bytes` are those of a GGUF file, 0 of a folder; `warning` says that an output would be larger than its source.
    `unchecked` says what headers do not tell: whether an architecture that is rare can be quantized block by block.
    """

    model: str
    origin: str
    note: str
    tree: ModelTree
    plans: tuple[LayerPlan, ...]
    size: sizes.OutputSize | None
    file_bytes: int = 0
    warning: str = ""
    unchecked: str = ""

    def to_json(self) -> dict[str, Any]:
        tree = self.tree
        schemes = {plan.linear.name: plan for plan in self.plans}
        return {
            "model": self.model,
            "origin": self.origin,
            "note": self.note,
            "architecture": tree.architecture,
            "model_type": tree.model_type,
            "blocks": tree.blocks,
            "parameters": tree.parameters,
            "tied": tree.tied,
            "refusal": tree.refusal,
            "bytes": sum(tensor.nbytes for tensor in tree.tensors.values()),
            "file_bytes": self.file_bytes or None,
            "warning": self.warning,
            "unchecked": self.unchecked,
            "output_bytes": self.size.total if self.size else None,
            "effective_bits": self.size.effective_bits if self.size else None,
            "linears": [
                {
                    "name": linear.name,
                    "block": linear.block,
                    "in": linear.in_features,
                    "out": linear.out_features,
                    "dtype": linear.dtype,
                    **_scheme_json(schemes.get(linear.name)),
                }
                for linear in (tuple(plan.linear for plan in self.plans) or tree.linears)
            ],
        }


def _scheme_json(plan: LayerPlan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    return {"scheme": plan.scheme.to_json(), "why": plan.why, "fallback": plan.fallback}
