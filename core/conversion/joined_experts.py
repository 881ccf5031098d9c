"""The experts of a checkpoint in the tensors in which transformers stores them for the class of the model.

Packed checkpoints have separate tensors `...experts.E.gate_proj.weight`, also for classes that transformers loads from
other tensors only (gpt-oss, Granite MoE, Mixtral). It would fill their experts with random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from core.model.headers import TensorInfo
from core.model.tree import Linear, ModelTree, build_tree
from core.model.weights import TensorStore, read_bias, read_linear
from core.model.writer import TORCH_DTYPES

_EXPERT: Final = re.compile(r"(?:^|.*\.)(\w*experts)\.(\d+)\.(\w+)")
_CODES: Final = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}
_PIECE: Final = 1 << 23

_Key = tuple[int, str, str, str]


def join_experts(model: Any, tree: ModelTree, store: TensorStore) -> tuple[ModelTree, TensorStore]:
    """Return a tree and a store with the experts in the tensors that the class of `model` has in a checkpoint.

    Both are returned unchanged if the store has these tensors, or not all of their parts.

    Args:
        model: of transformers; its parameters may be on `meta`.
        tree: of the tensors in `store`.
        store: of the checkpoint.
    """
    experts = {key: linear for linear in tree.linears if (key := _key(linear))}
    if not experts:
        return tree, store
    target = _stored_tree(model, tree)
    parts: dict[str, list[tuple[Linear, Linear]]] = {}
    for linear in target.linears:
        key = _key(linear)
        if key is None:
            continue
        found = experts.get(key)
        if found is None or (found.in_features, found.out_features) != (linear.in_features, linear.out_features):
            return tree, store
        parts.setdefault(target.weight_of(linear), []).append((linear, found))
        if linear.has_bias and found.has_bias:
            parts.setdefault(target.bias_of(linear), []).append((linear, found))
    if all(name in store for name in parts):
        return tree, store
    joined = JoinedStore(store, tree, target, parts)
    return build_tree(tree.config, joined.table), joined


@dataclass(frozen=True)
class _Joined:
    """A tensor that is assembled.

    Attributes:
        owners: for each expert, or for the only one, the layers of which the tensor has the weights or biases: (layer
            in the new layout, the same layer in the checkpoint).
        stacked: whether the tensor has all experts.
        bias: whether the tensor has biases.
    """

    owners: list[list[tuple[Linear, Linear]]]
    stacked: bool
    bias: bool


class JoinedStore(TensorStore):
    """The tensors of another store, with the experts in tensors of another layout, which are assembled when read.

    Args:
        store: of the checkpoint.
        tree: of `store`.
        target: tree of the other layout.
        parts: tensor of `target` with weights or biases -> (layer in `target`, the same layer in `tree`).
    """

    def __init__(
        self, store: TensorStore, tree: ModelTree, target: ModelTree, parts: Mapping[str, list[tuple[Linear, Linear]]]
    ) -> None:
        self._store, self._tree = store, tree
        self._joined: dict[str, _Joined] = {}
        used, table = set[str](), dict[str, TensorInfo]()
        for name, pairs in parts.items():
            bias = any(target.bias_of(linear) == name for linear, _ in pairs)
            owners: dict[int, list[tuple[Linear, Linear]]] = {}
            for linear, source in pairs:
                owners.setdefault((linear.part.expert if linear.part else None) or 0, []).append((linear, source))
            stacked = any(linear.part is not None and linear.part.expert is not None for linear, _ in pairs)
            self._joined[name] = _Joined([owners[expert] for expert in sorted(owners)], stacked, bias)
            sources = {tree.bias_of(source) if bias else tree.weight_of(source) for _, source in pairs}
            used |= sources
            table[name] = _info(name, target.tensors[name].shape, (store.dtype(source) for source in sources))
        super().__init__(store.folder, {name: info for name, info in store.table.items() if name not in used} | table)

    @property
    def joined(self) -> list[str]:
        """Names of the tensors that are assembled."""
        return list(self._joined)

    def get(self, name: str) -> Tensor:
        """Return a copy of the tensor."""
        if name not in self._joined:
            return self._store.get(name)
        value = torch.empty(self.info(name).shape, dtype=self.dtype(name))
        for expert, view in enumerate(value.view(self._split(name))):
            self._fill(name, expert, view)
        return value

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the entries `index` (int64 [n]) of the first dimension of a tensor, shape [n, ...]."""
        if name not in self._joined:
            return self._store.rows(name, index)
        split = self._split(name)
        if split != self.info(name).shape:  # the entries are not experts
            return self.get(name)[index]
        value = torch.empty((len(index), *split[1:]), dtype=self.dtype(name))
        for place, expert in enumerate(index.tolist()):
            self._fill(name, expert, value[place])
        return value

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type and the bytes of some rows; see `TensorStore.blocks`."""
        return None if name in self._joined else self._store.blocks(name, index)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of the tensor in pieces; one expert is in memory at a time."""
        if name not in self._joined:
            yield from self._store.chunks(name)
            return
        count, *shape = self._split(name)
        value = torch.empty(shape, dtype=self.dtype(name))
        for expert in range(count):
            self._fill(name, expert, value)
            data = value.view(-1).view(torch.uint8)
            for start in range(0, len(data), _PIECE):
                yield data[start : start + _PIECE].numpy().tobytes()

    def _split(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor with the experts, or a single one, in the first dimension."""
        shape, joined = self.info(name).shape, self._joined[name]
        count = len(joined.owners)
        if not joined.stacked:
            return (1, *shape)
        return shape if shape[0] == count else (count, shape[0] // count, *shape[1:])

    def _fill(self, name: str, expert: int, view: Tensor) -> None:
        """Write the weights or biases of one expert to `view`."""
        joined = self._joined[name]
        for linear, source in joined.owners[expert]:
            start, stop, step = linear.part.rows if linear.part else (0, linear.out_features, 1)
            if joined.bias:
                bias = read_bias(self._store, self._tree, source)
                assert bias is not None
                view[start:stop:step] = bias
            else:
                matrix = view.t() if linear.transposed else view
                matrix[start:stop:step] = read_linear(self._store, self._tree, source)


def _key(linear: Linear) -> _Key | None:
    """Return the block, the module, the number and the projection of an expert; None for other layers.

    Only the last part of the module's name is used, since names in checkpoints and in transformers differ.
    """
    found = _EXPERT.fullmatch(linear.kind)
    return None if found is None else (linear.block, found[1], found[2], found[3])


def _stored_tree(model: Any, tree: ModelTree) -> ModelTree:
    """Return the tree of the checkpoint that `save_pretrained` would write, without values."""
    state = {name: value.to("meta") for name, value in model.state_dict().items()}
    tensors = revert_weight_conversion(model, state)
    table = {name: _info(name, tuple(value.shape), [torch.float32]) for name, value in tensors.items()}
    return build_tree(tree.config, table)


def _info(name: str, shape: tuple[int, ...], dtypes: Iterable[torch.dtype]) -> TensorInfo:
    code = _CODES[reduce(torch.promote_types, dtypes)]
    size = TORCH_DTYPES[code].itemsize * int(torch.tensor(shape).prod())
    return TensorInfo(name, code, shape, "", 0, size)
