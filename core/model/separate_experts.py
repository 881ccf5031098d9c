"""Experts that a checkpoint has as separate matrices, in a model that has one parameter for all experts of a block.

transformers joins such matrices for the classes whose original checkpoints have them. Quantized checkpoints have them
for every class: the packed matrices of experts are `PREFIX.N.….experts.E.gate_proj`, `up_proj` and `down_proj`, also
where the original has one tensor for all experts, whose layout the parameters of the model still have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from core.model.fused_experts import bias_name, expert_linears, layout_of
from core.model.headers import TensorInfo
from core.model.tensor_part import TensorPart

_SEPARATE: Final = re.compile(r"\D*?\.(\d+)\.(.*experts\.\d+\.\w+)\.(weight|bias)")
_BLOCK: Final = re.compile(r"\D*?\.\d+\.")
EXPERTS: Final = "experts"
"""Key of `ExpertJoin.collected_tensors`."""


class ExpertJoin:
    """The transform of separate matrices, or biases, to one parameter; used like a `WeightConverter`.

    Attributes:
        collected_tensors: one entry, whose functions return the tensors in the order of `parts`.
        parts: name of a tensor in the checkpoint -> its place in the parameter.
        shape: of the parameter.
    """

    def __init__(self, parts: Mapping[str, TensorPart], shape: tuple[int, ...], *, bias: bool) -> None:
        self.collected_tensors: dict[str, list[Callable[[], Tensor]]] = {}
        self.parts, self.shape, self._bias = dict(parts), shape, bias

    def __deepcopy__(self, memo: Any) -> ExpertJoin:
        return ExpertJoin(self.parts, self.shape, bias=self._bias)

    @property
    def height(self) -> int:
        """Rows of the matrix of one expert in a parameter with all experts below each other (DBRX), else 0."""
        return self.shape[0] // (1 + max(part.expert or 0 for part in self.parts.values())) if self._stacked else 0

    @property
    def _stacked(self) -> bool:
        return len(self.shape) == 2 and not self._bias

    def convert(self, target: str, **_: Any) -> dict[str, Tensor]:
        """Return the parameter by its name.

        Raises:
            ValueError: matrices are missing or have another shape.
        """
        result: Tensor | None = None
        rows = 0
        for part, read in zip(self.parts.values(), self.collected_tensors[EXPERTS], strict=True):
            value = read()
            if result is None:
                shape = [self.height, *self.shape[1:]] if self._stacked else list(self.shape[1:])
                # The inputs of the value, which are fewer where row numbers are joined.
                if not self._bias:
                    shape[0 if part.transposed else 1] = value.shape[1]
                experts = self.shape[0] // self.height if self._stacked else self.shape[0]
                result = value.new_empty(experts, *shape)
            matrix = result[part.expert or 0]
            matrix = matrix.T if part.transposed and not self._bias else matrix
            matrix[slice(*part.rows)] = value
            rows += value.shape[0]
        assert result is not None
        if rows != result.shape[0] * matrix.shape[0]:
            raise ValueError(f"{rows} of {result.shape[0] * matrix.shape[0]} rows of the experts are there")
        return {target: result.flatten(0, 1) if self._stacked else result}


def find_joins(model: Any, names: Iterable[str], filled: Collection[str]) -> list[tuple[str, list[str], ExpertJoin]]:
    """Return the parameters that are made of separate matrices of experts: name, tensors and transform.

    Args:
        model: of transformers; its parameters may be on `meta`.
        names: tensors of the checkpoint that are no parameters of the model.
        filled: parameters that are made of other tensors.
    """
    wanted: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        match = _SEPARATE.fullmatch(name)
        if match:
            expert = ".".join(match[2].split(".")[-2:])
            wanted.setdefault((match[1], f"{expert}.{match[3]}"), {})[match[2]] = name
    if not wanted:
        return []
    parts: dict[str, dict[str, TensorPart]] = {}
    own = dict(model.named_parameters())
    for (block, expert), places in _places(model, own, filled).items():
        found = wanted.get((block, expert), {})
        for path, (parameter, part) in places.items():
            only = next(iter(found.values())) if len(found) == len(places) == 1 else None
            tensor = found.get(path, only)
            if tensor is not None:
                parts.setdefault(parameter, {})[tensor] = part
    joins = []
    for parameter, members in parts.items():
        shape = tuple(own[parameter].shape)
        bias = own[parameter].dim() == 2 and next(iter(members)).endswith(".bias")
        joins.append((parameter, list(members), ExpertJoin(members, shape, bias=bias)))
    return joins


def _places(
    model: Any, own: Mapping[str, torch.Tensor], filled: Collection[str]
) -> dict[tuple[str, str], dict[str, tuple[str, TensorPart]]]:
    """Return the place of each expert's weight and bias in the parameters that are not filled.

    The keys are the number of the block and the end of the name, such as `3.gate_proj.weight`; the values have the
    whole path inside the block -> parameter and part.
    """
    table = {name: TensorInfo(name, "F32", tuple(value.shape), "", 0, 0) for name, value in own.items()}
    config = model.config.get_text_config(decoder=True)
    layout, _ = layout_of(config.model_type, config.to_dict(), table.values())
    blocks: dict[str, list[TensorInfo]] = {}
    for name, info in table.items():
        match = _BLOCK.match(name)
        if match:
            blocks.setdefault(match[0], []).append(info)
    places: dict[tuple[str, str], dict[str, tuple[str, TensorPart]]] = {}
    for start, members in blocks.items():
        block = start.rstrip(".").rpartition(".")[2]
        for linears in expert_linears(members, start, layout, table).values():
            for linear in linears:
                expert = ".".join(linear.kind.split(".")[-2:])
                weight, bias = linear.part.tensor, bias_name(linear.part.tensor, fused=True)
                for parameter, ending in ((weight, "weight"), (bias, "bias")):
                    if parameter in own and parameter not in filled:
                        key = (block, f"{expert}.{ending}")
                        places.setdefault(key, {})[linear.kind] = (parameter, linear.part)
    return places
