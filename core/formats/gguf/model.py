"""The model in a GGUF file as transformers has it: config, tensor names, shapes and row orders.

An unknown or a missing tensor is an error. Only the header and the RoPE divisors are read, no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from core.errors import CorruptFile, UnsupportedModel, translated
from core.formats.gguf import values as gguf_values
from core.formats.gguf.config import build_config
from core.formats.gguf.rope import FACTORS
from core.model.architectures.rope import old_rope_keys, split_rows
from core.model.architectures.table import READ_FROM_GGUF, Architecture, heads_key, shift_of
from core.model.gguf_header import GgufHeader, GgufTensor, read_gguf_header

_Array = np.ndarray[Any, Any]

FLOATS: Final = ("F32", "F16", "BF16")
"""Floating-point types of tensors."""


@dataclass(frozen=True)
class ImportedTensor:
    """A tensor of the file, with the conversion to a parameter of the model.

    Attributes:
        tensor: tensor of the file.
        heads: number of heads whose rows are interleaved in the file; 0 for rows in the order of the model.
        shift: value to subtract from those of the file.
        transposed: whether the model has the matrix as [in, out] and the file as [out, in].
    """

    tensor: GgufTensor
    heads: int = 0
    shift: float = 0.0
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the model."""
        return self.tensor.shape[::-1] if self.transposed else self.tensor.shape

    @cached_property
    def order(self) -> _Array | None:
        """The file's row for each row of the model, int64 [rows]; None if they are the same."""
        if not self.heads:
            return None
        return split_rows(self.tensor.shape[0], self.heads)

    @property
    def as_stored(self) -> bool:
        """True if the file has the model's floating-point numbers, apart from their order."""
        return self.tensor.kind.name in FLOATS and not self.shift


@dataclass(frozen=True)
class GgufModel:
    """The model in a GGUF file.

    Attributes:
        path: of the file; of one in parts, the first.
        header: of the file.
        config: contents of config.json.
        generation: contents of generation_config.json: the tokens that begin and end texts.
        mapped: tensor of the file for each parameter, in the order of the model; a tied head has none.
    """

    path: Path
    header: GgufHeader
    config: dict[str, Any]
    generation: dict[str, Any]
    mapped: dict[str, ImportedTensor]

    @cached_property
    def tensors(self) -> dict[str, GgufTensor]:
        """The tensor of the file for each parameter of the model."""
        return {name: mapped.tensor for name, mapped in self.mapped.items()}

    def values(self, name: str) -> _Array:
        """Return a parameter as the model has it, float32."""
        mapped = self.mapped[name]
        found = gguf_values.values(mapped.tensor)
        if mapped.order is not None:
            found = found[mapped.order]
        if mapped.transposed:
            found = np.ascontiguousarray(found.T)
        if mapped.shift:
            with np.errstate(invalid="ignore"):  # callers check for damaged numbers
                found -= np.float32(mapped.shift)
        return found


def open_gguf_model(path: Path) -> GgufModel:
    """Read the header of a GGUF file and map its tensors to the parameters of the model.

    Raises:
        CorruptFile: the file is damaged, or lacks a tensor.
        UnsupportedModel: an architecture, a detail of one or a tensor that is not read.
    """
    header = read_gguf_header(path)
    present = [header.tensors[name] for name in FACTORS if name in header.tensors]
    factors = {tensor.name: gguf_values.values(tensor).reshape(-1).tolist() for tensor in present}
    config = build_config(header, header.label, factors)
    model = _empty_model(config, header.label)
    config.architectures = [type(model).__name__]
    value = config.to_diff_dict()
    value.pop("_name_or_path", None)
    value |= old_rope_keys(value.get("rope_parameters"))
    return GgufModel(header.path, header, value, _generation(config, header), _map_tensors(header, model, header.label))


def _generation(config: Any, header: GgufHeader) -> dict[str, Any]:
    found = {f"{name}_token_id": getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    ends = [found["eos_token_id"], *(header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))]
    ends = list(dict.fromkeys(end for end in ends if end is not None))
    found["eos_token_id"] = ends if len(ends) > 1 else next(iter(ends), None)
    return {key: item for key, item in found.items() if item is not None}


def _empty_model(config: Any, label: str) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    told = f"The metadata of {label} make no model"
    with translated(CorruptFile, told, "Fetch the file again."), torch.device("meta"):
        return auto.from_config(config)


def _map_tensors(header: GgufHeader, model: Any, label: str) -> dict[str, ImportedTensor]:
    """Return the tensor of the file for every parameter of the model, by name.

    Raises:
        UnsupportedModel: the file has additional tensors.
        CorruptFile: a tensor is missing or has another shape.
    """
    architecture = READ_FROM_GGUF[header.architecture]
    left = {name: tensor for name, tensor in header.tensors.items() if name not in FACTORS}
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    found = {}
    for name, parameter in model.state_dict().items():
        if name in tied:
            continue
        tensor = left.pop(architecture.gguf_name(name), None)
        if tensor is None:
            raise CorruptFile(f"{label} has no tensor for {name}.", "Fetch the file again.")
        mapped = _map_tensor(architecture, tensor, model.config, label)
        if mapped.shape != tuple(parameter.shape):
            raise CorruptFile(
                f"{label} has {name} as {tensor.shape} where its metadata say {tuple(parameter.shape)}.", ""
            )
        found[name] = mapped
    if left:
        raise UnsupportedModel(
            f"{label} has {len(left)} tensors that are not part of the model, such as {next(iter(left))[:80]!r}.",
            "Use the original as a folder or from the Hub.",
        )
    return found


def _map_tensor(architecture: Architecture, tensor: GgufTensor, config: Any, label: str) -> ImportedTensor:
    assert architecture.gguf is not None
    key = heads_key(architecture.gguf, tensor.name)
    heads = getattr(config, key) if key else 0
    if key and (type(heads) is not int or heads < 1 or tensor.shape[0] % (2 * heads)):
        raise CorruptFile(f"{label} has rows of {tensor.name} that are not those of {heads} heads.", "")
    transposed = architecture.gguf.transposed and tensor.name.startswith("blk.") and len(tensor.shape) == 2
    return ImportedTensor(tensor, heads, shift_of(architecture, tensor.name), transposed)
