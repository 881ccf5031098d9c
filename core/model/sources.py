"""The tensors of a checkpoint from which each parameter of a transformers model is made.

transformers renames, joins, splits and transposes tensors when it loads a model (`conversion_mapping.py`). Its own
transforms are used here, so that every checkpoint that transformers loads can be loaded in parts as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from core.model.separate_experts import EXPERTS, ExpertJoin, find_joins

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class ParameterSource:
    """The tensors from which one parameter, or several parameters together, are made.

    Attributes:
        target: name of the first parameter in the model.
        tensors: pattern of the converter -> names of the tensors in the checkpoint that match it, in order.
        converter: transform of transformers, or of separate experts; None if the parameter is the tensor itself.
    """

    target: str
    tensors: dict[str, list[str]] = field(default_factory=dict)
    converter: WeightConverter | ExpertJoin | None = None

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return [name for names in self.tensors.values() for name in names]

    def decided(self, shapes: Mapping[str, tuple[int, ...]], model: Any) -> ParameterSource:
        """Return this source with a converter that does not look at shapes, for tensors of these shapes.

        The converter of Qwen3-VL-MoE transposes the experts unless they already have the shape of the parameter.
        """
        converter: Any = copy.deepcopy(self.converter)
        checked = [step for step in getattr(converter, "operations", ()) if getattr(step, "check_dims", False)]
        if not checked:
            return self
        same = shapes[self.names[0]] == tuple(model.get_parameter(self.target).shape)
        for step in checked:
            step.check_dims = False
            step.dim1 = step.dim0 if same else step.dim1
        return replace(self, converter=converter)

    def build(self, read: Read, model: Any) -> dict[str, Tensor]:
        """Return the parameters by name.

        Args:
            read: returns a tensor of the checkpoint by name.
            model: of transformers; some converters read its config and the shapes of its parameters.

        Raises:
            ValueError, RuntimeError: the tensors cannot be joined, for example because their shapes differ.
        """
        if self.converter is None:
            return {self.target: read(self.names[0])}
        converter = copy.deepcopy(self.converter)
        for pattern, names in self.tensors.items():
            # transformers calls these functions one by one and frees what an operation has consumed
            converter.collected_tensors[pattern] = [_reader(read, name) for name in names]  # type: ignore[misc]
        built = converter.convert(self.target, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in built.items()}


def _reader(read: Read, name: str) -> Callable[[], Tensor]:
    return lambda: read(name)


def find_sources(model: Any, names: Iterable[str]) -> tuple[list[ParameterSource], list[str]]:
    """Return the sources of the parameters and buffers of a model, and the tensors that it does not use.

    The steps are those of `transformers.core_model_loading.convert_and_load_state_dict_in_model`.

    Args:
        model: of transformers; its parameters may be on `meta`.
        names: of the tensors of the checkpoint.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [step for step in transforms if isinstance(step, WeightRenaming)]
    converters = [step for step in transforms if isinstance(step, WeightConverter)]
    by_pattern = {pattern: step for step in converters for pattern in step.source_patterns}
    own = model.state_dict()
    base = model.base_model_prefix
    found: dict[str, ParameterSource] = {}
    unused = []
    for name in sorted(names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, base, own)
        if target not in own and name in own:
            target, pattern = rename_source_key(name, [], [], base, own)
        if target not in own:
            unused.append(name)
            continue
        if pattern is None:
            found.setdefault(target, ParameterSource(target, {name: [name]}))
        else:
            source = found.setdefault(target, ParameterSource(target, {}, by_pattern[pattern]))
            source.tensors.setdefault(pattern, []).append(name)
    for target, tensors, join in find_joins(model, unused, found):
        found[target] = ParameterSource(target, {EXPERTS: tensors}, join)
        unused = [name for name in unused if name not in join.parts]
    return list(found.values()), unused


def by_parameter(
    sources: Iterable[ParameterSource], model: Any, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, ParameterSource], dict[str, tuple[int, ...]]]:
    """Return the source of each parameter, and the shape that the parameter gets; reads no values.

    Args:
        shapes: of the tensors of the checkpoint.

    Raises:
        ValueError: as `ParameterSource.build`; the message names the parameter.
    """
    owners: dict[str, ParameterSource] = {}
    made: dict[str, tuple[int, ...]] = {}
    for source in sources:
        if source.converter is None:
            owners[source.target], made[source.target] = source, shapes[source.names[0]]
            continue
        try:
            built = source.build(lambda name: torch.empty(shapes[name], device="meta"), model)
        except (ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(f"{source.target} cannot be made of {source.names[0]} and others: {error}") from error
        for name, value in built.items():
            owners[name], made[name] = source, tuple(value.shape)
    return owners, made
