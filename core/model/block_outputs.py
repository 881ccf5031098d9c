"""The tensors that a decoder block hands on: those it returns, and those it stores in a dictionary of its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

Place = int | str
"""Position or name of an argument."""


@dataclass(frozen=True)
class StoredOutput:
    """An entry that a block adds to a dictionary, as Gemma 4 does with the keys and values that later blocks share.

    Attributes:
        place: argument that is the dictionary.
        key: of the entry.
        spec: structure of the entry.
        constants: leaves of the entry; `_Tensor` in place of a tensor.
    """

    place: Place
    key: Any
    spec: pytree.TreeSpec
    constants: tuple[Any, ...]


@dataclass(frozen=True)
class OutputLayout:
    """Structure of the outputs of one block. Their tensors, in order, are the leaves; the first are the hidden states.

    Attributes:
        spec: structure of the returned value.
        constants: its leaves; `_Tensor` in place of a tensor.
        stored: entries of dictionaries.
        shapes: shape and dtype of each leaf in the run in which the layout was found.
    """

    spec: pytree.TreeSpec
    constants: tuple[Any, ...]
    stored: tuple[StoredOutput, ...]
    shapes: tuple[tuple[tuple[int, ...], Any], ...]


def snapshot(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Place, dict[Any, int]]:
    """Return the entries of the dictionaries among the arguments of a block, as identities of objects."""
    return {place: {key: id(value[key]) for key in _keys(value)} for place, value in _dictionaries(args, kwargs)}


def outputs(
    returned: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], before: Mapping[Place, Mapping[Any, int]]
) -> tuple[list[Tensor], OutputLayout]:
    """Return the leaves of a block's outputs, and their layout.

    Args:
        returned: value that the block returned for `args` and `kwargs`.
        before: `snapshot` of the arguments before the call.
    """
    leaves, spec = pytree.tree_flatten(returned)
    found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    stored = []
    for place, value in _dictionaries(args, kwargs):
        old = before.get(place, {})
        for key in _keys(value):
            if old.get(key) != id(value[key]):
                parts, structure = pytree.tree_flatten(value[key])
                found += [part for part in parts if isinstance(part, Tensor)]
                stored.append(StoredOutput(place, key, structure, _constants(parts)))
    shapes = tuple((tuple(leaf.shape), leaf.dtype) for leaf in found)
    return found, OutputLayout(spec, _constants(leaves), tuple(stored), shapes)


def hand_on(layout: OutputLayout, leaves: list[Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a block with this layout would return for `leaves`, and store its entries in the arguments."""
    rest = iter(leaves)
    returned = pytree.tree_unflatten(_filled(layout.constants, rest), layout.spec)
    for entry in layout.stored:
        target: Any = args[entry.place] if isinstance(entry.place, int) else kwargs[entry.place]
        target[entry.key] = pytree.tree_unflatten(_filled(entry.constants, rest), entry.spec)
    return returned


class _Tensor:
    """Marker of a tensor in the constants of a layout."""


def _constants(leaves: list[Any]) -> tuple[Any, ...]:
    return tuple(_Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _filled(constants: tuple[Any, ...], leaves: Iterator[Tensor]) -> list[Any]:
    return [next(leaves) if constant is _Tensor else constant for constant in constants]


def _dictionaries(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    places: list[tuple[Place, Any]] = [*enumerate(args), *kwargs.items()]
    return ((place, value) for place, value in places if _is_dictionary(value))


def _is_dictionary(value: Any) -> bool:
    return isinstance(value, MutableMapping) or (hasattr(value, "keys") and hasattr(value, "__setitem__"))


def _keys(value: Any) -> list[Any]:
    return list(value.keys())
