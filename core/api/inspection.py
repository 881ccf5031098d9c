"""The layers of a model and the bits that each would get, read from headers. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from core.bitsmap import BitsMap
from core.control import ShouldStop, check_stop, never
from core.estimation import preflight, sizes
from core.events import Emit, ignore_event
from core.formats.grids import plan_layers
from core.model.architectures.table import NATIVE
from core.model.plans import nothing_quantized
from core.model.towers import inputs_of
from core.model.tree import LayerPlan, ModelTree
from core.spec import from_options

if TYPE_CHECKING:
    from core.hub.source import ModelSource

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Inspection:
    """The layers of a model with the scheme of each linear layer, and the predicted size of the output.

    Attributes:
        origin: Where the model came from: the Hub, a folder, a GGUF file.
        plans, size: Empty where the model cannot be quantized.
        file_bytes: Size of a GGUF file; 0 for a folder.
        warning: Set where the output would be larger than its source.
        unchecked: Set where headers do not tell whether the architecture can be quantized block by block.
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
            "source_note": self.note,
            "architecture": tree.architecture,
            "model_type": tree.model_type,
            "blocks": tree.blocks,
            "parameters": tree.parameters,
            "tied": tree.tied,
            "reads": list(inputs_of(tree.towers)),
            "towers": [asdict(tower) for tower in tree.towers],
            "unsupported_reason": tree.refusal,
            "bytes": sum(tensor.nbytes for tensor in tree.tensors.values()),
            "file_bytes": self.file_bytes or None,
            "warning": self.warning,
            "unchecked": self.unchecked,
            "output_bytes": self.size.total if self.size else None,
            "bits_per_weight": self.size.effective_bits if self.size else None,
            "linears": [
                {
                    "name": linear.name,
                    "block": linear.block,
                    "in_features": linear.in_features,
                    "out_features": linear.out_features,
                    "dtype": linear.dtype,
                    "kept": linear.kept,
                    "slice": asdict(linear.part) if linear.part else None,
                    **_scheme_json(schemes.get(linear.name)),
                }
                for linear in (tuple(plan.linear for plan in self.plans) or tree.linears)
            ],
        }


def inspect(
    model: PathLike,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    bits_map: BitsMap | PathLike | None = None,
    tower_bits: int | None = None,
    format: str = "auto_round",
    emit: Emit | None = None,
    should_stop: ShouldStop = never,
) -> Inspection:
    """Return the layers of a model and the bits that each would get, from its config and tensor headers alone."""
    scheme: dict[str, Any] = {"bits": bits, "group_size": group_size, "sym": sym}
    spec = from_options(model, "unused", **scheme, bits_map=bits_map, tower_bits=tower_bits, formats=(format,))
    preflight.check_model(spec.model)
    source, tree = read_headers(spec.model, emit or ignore_event, should_stop)
    preflight.check_towers(spec, tree)
    found = None if tree.refusal else plan_layers(tree, spec.bits_map, spec.formats)
    nothing = nothing_quantized(found) if found else None
    if nothing:
        tree, found = replace(tree, refusal=nothing[0]), None
    plans = () if found is None else tuple(found)
    size = None if tree.refusal else sizes.output_size(tree, plans, format)
    large = size.total if size else 0
    warning = sizes.larger_than_source(source.file_bytes or tree.nbytes, tree, large, format)
    unchecked = ""
    if size and tree.model_type not in NATIVE:
        name = tree.architecture or tree.model_type or "this architecture"
        unchecked = f"Whether {name} can be run block by block is not checked here, but at the start of a run."
    return Inspection(
        source.label, source.origin, source.note, tree, plans, size, source.file_bytes, warning, unchecked
    )


def read_headers(model: str, emit: Emit, should_stop: ShouldStop) -> tuple[ModelSource, ModelTree]:
    """Find a model, downloading it where needed, and read its layer tree.

    Raises:
        BitwrightError: There is no such model, or it cannot be read; `Cancelled` after a stop.
    """
    from core.formats.opened import open_source

    source = open_source(model, emit, should_stop)
    check_stop(should_stop, "Stopped.")
    return source, preflight.read_tree(source.folder)


def _scheme_json(plan: LayerPlan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    return {"scheme": plan.scheme.to_json(), "scheme_source": plan.why, "fallback": plan.fallback}
