"""A GGUF file as a quantized checkpoint with the names, shapes and row orders of a transformers model.

Linear layers in a type of `core.block_types` become `BlockLinear`s without loss. Other tensors are read as floats:
floating-point ones as stored, embeddings and other block types dequantized to float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.block_types import TYPES
from core.control import ShouldStop, never
from core.errors import CorruptFile
from core.formats.gguf import values as gguf_values
from core.formats.gguf.blocks import BlockLinear, decode
from core.formats.gguf.importing import import_config
from core.formats.gguf.model import GgufModel, ImportedTensor, open_gguf_model
from core.formats.gguf.tensor_map import TensorMap
from core.model.folder import read_config
from core.model.gguf_header import GgufTensor, read_gguf_header
from core.model.headers import TensorInfo
from core.model.weights import TensorStore
from core.schemes import LayerScheme

_WEIGHT = ".weight"


class GgufStore(TensorStore):
    """The tensors of a GGUF file that are not quantized linear layers, as the model has them.

    Attributes:
        folder: with config.json and the tokenizer.
        table: name -> TensorInfo; F32, F16 and BF16 as stored, others F32. For tensors that are dequantized, only
            the length of the byte range is meaningful.
    """

    def __init__(self, model: GgufModel, folder: Path, names: list[str]) -> None:
        super().__init__(folder, {name: _info(model, name) for name in names})
        self._model = model

    def get(self, name: str) -> Tensor:
        """Return the whole tensor in the dtype of the table, in new memory.

        Raises:
            CorruptFile: no such tensor, or the file shrank since its header was read.
            UnsupportedModel: its block type is not read.
            ModelNotFound: the file is gone.
        """
        info, mapped = self.info(name), self._model.mapped[name]
        if not mapped.as_stored:
            return torch.from_numpy(self._model.values(name)).reshape(info.shape)
        raw = gguf_values.read_rows(mapped.tensor)
        value = torch.from_numpy(raw).view(self.dtype(name)).reshape(mapped.tensor.shape)
        value = value if mapped.order is None else value[torch.from_numpy(mapped.order)]
        return value.T.contiguous() if mapped.transposed else value

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return rows `index` (int64 [n]) of a matrix, [n, columns], without reading other rows."""
        self.info(name)
        mapped = self._model.mapped[name]
        if mapped.transposed or mapped.shift:
            return self.get(name)[index]
        wanted = index.numpy() if mapped.order is None else mapped.order[index.numpy()]
        raw = gguf_values.gather_rows(mapped.tensor, wanted)
        if mapped.as_stored:
            return torch.from_numpy(raw).view(self.dtype(name))
        return torch.from_numpy(gguf_values.decode_rows(raw, mapped.tensor))

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the block type of a matrix and the stored bytes of rows `index`, uint8 [n, bytes of a row]."""
        self.info(name)
        mapped = self._model.mapped[name]
        kind = mapped.tensor.kind.name.lower()
        if kind not in TYPES or mapped.transposed or mapped.shift:
            return None
        wanted = index.numpy() if mapped.order is None else mapped.order[index.numpy()]
        return kind, torch.from_numpy(gguf_values.gather_rows(mapped.tensor, wanted))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of the tensor in its dtype of the table, in pieces."""
        self.info(name)
        mapped = self._model.mapped[name]
        if mapped.order is not None or mapped.transposed or mapped.shift:
            yield self.get(name).reshape(-1).view(torch.uint8).numpy().tobytes()
            return
        for raw in gguf_values.raw_chunks(mapped.tensor):
            yield (raw if mapped.as_stored else gguf_values.decode_rows(raw, mapped.tensor)).tobytes()


class GgufCheckpoint:
    """A GGUF file as a checkpoint. Opening it reads the header and builds the model without weights.

    Attributes:
        path: the file.
        model: config, and the tensors of the file by the names of the parameters.
        config: contents of config.json.
        schemes: name of each linear in one of the types of `core.block_types` -> its scheme, in the model's order.
        plain: names of all other tensors.

    Args:
        path: of the file.
        folder: with config.json and tokenizer of the model that the file was made of, where it is at hand; by default
            both are made of the metadata.
        tensor_map: with which the file was written from the checkpoint in `folder`, whose names and config are used.
        should_stop: called while a tokenizer is unpacked.

    Raises:
        CorruptFile: the file is damaged, or has other tensors than `tensor_map`.
        UnsupportedModel: an architecture, or a detail of one, that is not read.
    """

    def __init__(
        self,
        path: Path,
        folder: Path | None = None,
        tensor_map: TensorMap | None = None,
        should_stop: ShouldStop = never,
    ) -> None:
        self.path = path
        self.model = _as_planned(path, folder, tensor_map) if folder and tensor_map else open_gguf_model(path)
        self.config = self.model.config
        self._folder = folder
        self._should_stop = should_stop
        self.schemes: Mapping[str, LayerScheme] = {
            name.removesuffix(_WEIGHT): LayerScheme.of_type(tensor.kind.name.lower())
            for name, tensor in self.model.tensors.items()
            if _is_quantized_linear(name, tensor)
        }
        self.plain = [name for name in self.model.mapped if name.removesuffix(_WEIGHT) not in self.schemes]

    @cached_property
    def folder(self) -> Path:
        """Folder with config.json, generation_config.json and the tokenizer.

        Raises:
            UnsupportedModel, CorruptFile: no tokenizer can be made of the metadata.
            DiskFull, OutputProblem, Cancelled: see `core.formats.gguf.importing.import_config`.
        """
        return self._folder or import_config(self.model, self._should_stop)

    @cached_property
    def store(self) -> GgufStore:
        """Store of the tensors in `plain`; errors as for `folder`."""
        return GgufStore(self.model, self.folder, self.plain)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the file."""
        return sum(tensor.nbytes for tensor in self.model.header.tensors.values())

    def layer(self, name: str) -> BlockLinear:
        """Return one quantized linear layer, rows in the model's order.

        Raises:
            KeyError: no quantized layer has that name.
            CorruptFile, ModelNotFound: the file shrank or went away.
        """
        if name not in self.schemes:
            raise KeyError(name)
        return self._decoded(name)

    def weight_name(self, name: str) -> str:
        """Return the name of the weight of a quantized linear layer in `dense_table`."""
        return name + _WEIGHT

    def embedding_pieces(self, name: str, rows: int) -> Iterator[BlockLinear] | None:
        """Return an embedding in its block type, some rows at a time in the model's order; None if it has none.

        `store` has the embedding as floats; a tied head is multiplied in its block type.

        Raises:
            KeyError: the file has no tensor of that name.
            CorruptFile, ModelNotFound: the file shrank or went away.
        """
        if not self.embedding_type(name):
            return None
        outputs = self.model.tensors[name + _WEIGHT].shape[0]
        starts = range(0, outputs, rows)
        return (self._decoded(name, start, min(outputs, start + rows)) for start in starts)

    def embedding_type(self, name: str) -> str:
        """Return the block type of an embedding, such as `q8_0`; "" where it is in none that Bitwright writes.

        Raises:
            KeyError: the file has no tensor of that name.
        """
        tensor = self.model.tensors[name + _WEIGHT]
        kind = tensor.kind.name.lower()
        return kind if len(tensor.shape) == 2 and kind in TYPES else ""

    def _decoded(self, name: str, start: int = 0, stop: int | None = None) -> BlockLinear:
        mapped = self.model.mapped[name + _WEIGHT]
        kind = mapped.tensor.kind.name.lower()
        if mapped.order is None:
            raw = gguf_values.read_rows(mapped.tensor, start, stop)
        elif stop is None:
            raw = gguf_values.read_rows(mapped.tensor)[mapped.order]
        else:
            raw = gguf_values.gather_rows(mapped.tensor, mapped.order[start:stop])
        return decode(name, kind, torch.from_numpy(raw))

    def dense_table(self) -> dict[str, TensorInfo]:
        """Return the tensor table of the unquantized model: a float weight [out, in] for each quantized one.

        Used to build the tree of the original; the byte ranges of these weights are placeholders.
        """
        table = {}
        for name, tensor in self.model.tensors.items():
            info = _info(self.model, name)
            if name.removesuffix(_WEIGHT) in self.schemes:
                info = TensorInfo(name, "F16", tensor.shape, info.file, 0, 2 * info.numel)
            table[name] = info
        return table


def _as_planned(path: Path, folder: Path, tensor_map: TensorMap) -> GgufModel:
    """Return the model in a file that was written by a tensor map."""
    header = read_gguf_header(path)
    left = dict(header.tensors)
    mapped = {}
    for item in tensor_map.mapped:
        name = f"{item.linear}{_WEIGHT}" if item.linear else item.source
        tensor = left.pop(item.name, None)
        if tensor is None or tensor.shape != item.shape:
            raise CorruptFile(f"{path.name} does not have {item.name} as it was planned.", "Please report this.")
        mapped[name] = ImportedTensor(tensor, item.heads, item.shift)
    extra = set(left) - set(tensor_map.computed)
    if extra:
        raise CorruptFile(f"{path.name} has {min(extra)[:80]!r}, which was not planned.", "Please report this.")
    return GgufModel(path, header, read_config(folder), {}, mapped)


def _is_quantized_linear(name: str, tensor: GgufTensor) -> bool:
    """Return whether a tensor is the weight of a linear layer in a type of `core.block_types`."""
    linear = tensor.name.startswith("blk.") or tensor.name == "output.weight"
    return linear and name.endswith(_WEIGHT) and len(tensor.shape) == 2 and tensor.kind.name.lower() in TYPES


def _info(model: GgufModel, name: str) -> TensorInfo:
    mapped = model.mapped[name]
    tensor = mapped.tensor
    if mapped.as_stored:
        end = tensor.start + tensor.nbytes
        return TensorInfo(name, tensor.kind.name, mapped.shape, tensor.path.name, tensor.start, end)
    return TensorInfo(name, "F32", mapped.shape, tensor.path.name, 0, 4 * int(np.prod(mapped.shape)))
