"""Reading of quantized checkpoints of Bitwright and other programs: AutoRound's packings, GPTQ and AWQ, by layer.

The config is checked against the shapes of the tensors; a contradiction is an error. Quantized layers are found by
names that end in `.qweight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput, CorruptFile, ModelNotFound, UnsupportedModel
from core.formats.layout import decode, own_order
from core.formats.packing import PARTS, PackedShape, measure
from core.formats.quantized import QuantizedLinear
from core.formats.settings import Settings, find_config, read_object, read_settings
from core.model.headers import TensorInfo, read_header, short
from core.model.tree import read_tensors
from core.model.weights import TensorStore
from core.schemes import LayerScheme

_AGAIN = "Download the model again."
_FLOATS = ("F16", "BF16", "F32")


def is_quantized(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json has a `quantization_config`, of any method."""
    return bool(config.get("quantization_config"))


class QuantizedCheckpoint:
    """A quantized checkpoint on disk; the constructor reads headers and configs only.

    Attributes:
        folder: of the model.
        config: config.json.
        tensors: table of all tensors.
        schemes: name of each quantized linear layer -> its scheme, in the order of the checkpoint.
        plain: names of all tensors that are not packed, including biases of quantized layers.

    Args:
        folder: of the model.
        module_name: function from a layer name in the checkpoint to the module name in the transformers model, which
            the config uses. By default, a missing prefix is found from `block_name_to_quantize`.

    Raises:
        ModelNotFound: there is no config.json.
        CorruptFile: files are damaged, incomplete or contradictory.
        UnsupportedModel: the quantization is not supported.
    """

    def __init__(self, folder: Path, module_name: Callable[[str], str] | None = None) -> None:
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"There is no model in {folder}: config.json is missing.", "Check the path.")
        self.folder = folder
        self.config = read_object(folder / "config.json")
        settings = read_settings(find_config(folder, self.config))
        self.tensors = _tensors(folder, self.config, settings)
        names = [name.removesuffix(".qweight") for name in self.tensors if name.endswith(".qweight")]
        if not names:
            raise CorruptFile(
                f"The config of {folder} describes a quantized model, but there are no packed tensors.", _AGAIN
            )
        self._module_name = module_name or settings.module_names(names)
        self._settings = settings.among({self._module_name(name.rpartition(".")[0]) for name in self.tensors})
        self._measures = {name: self._measure(name) for name in names}
        self.schemes: Mapping[str, LayerScheme] = {name: self._scheme(name) for name in names}
        for name in names:
            self._check_parts(name)
        packed = {f"{name}.{part}" for name in names for part in PARTS}
        lost = next((name for name in self.tensors if name.endswith(".qzeros") and name not in packed), None)
        if lost is not None:
            raise CorruptFile(f"The packed weights that belong to {short(lost)} are missing.", _AGAIN)
        self.plain = [name for name in self.tensors if name not in packed]

    @cached_property
    def store(self) -> TensorStore:
        """The tensors that are not packed, read on demand."""
        return TensorStore(self.folder, {name: self.tensors[name] for name in self.plain})

    @cached_property
    def act_order(self) -> tuple[str, ...]:
        """Names of the quantized linear layers with act-order; reads their `g_idx`.

        Raises:
            CorruptFile: a `g_idx` is invalid.
        """
        return tuple(name for name in self.schemes if self._order(name) is not None)

    @property
    def settings(self) -> Settings:
        """The parsed quantization config."""
        return self._settings

    def shape(self, name: str) -> tuple[int, int]:
        """Return (out_features, in_features) of a quantized linear layer."""
        measures = self._measures[name]
        return measures.out_features, measures.in_features

    def weight_name(self, name: str) -> str:
        """Return the name of the weight of a quantized linear layer in `dense_table`."""
        return f"{name}.weight"

    def dense_table(self) -> dict[str, TensorInfo]:
        """Return the tensor table with a weight [out, in] in place of the packed tensors of each layer.

        It is used to build the tree of the original model; the byte ranges of these weights are not valid.
        """
        plain, table = set(self.plain), {}
        for name, info in self.tensors.items():
            if name in plain:
                table[name] = info
            elif name.endswith(".qweight"):
                weight = name.removesuffix("qweight") + "weight"
                shape = self.shape(name.removesuffix(".qweight"))
                table[weight] = TensorInfo(weight, "F16", shape, info.file, 0, 2 * shape[0] * shape[1])
        return table

    def layer(self, name: str) -> QuantizedLinear:
        """Read one quantized linear layer.

        Raises:
            KeyError: there is no quantized layer of that name.
            CorruptFile: values are invalid.
            UnsupportedModel: scales cannot be represented as 16-bit floats.
        """
        scheme = self.schemes[name]
        order = self._order(name)
        parts = {part: self._read(f"{name}.{part}") for part in PARTS[:3]}
        parts["scales"] = _half(parts["scales"], name)
        layer = decode(self._settings.packing, name, scheme, parts, order)
        if scheme.sym and not bool((layer.zeros == scheme.levels // 2).all()):
            # Some kernels ignore the zero points of symmetric layers, so readers would compute different weights.
            raise CorruptFile(
                f"{short(name)} is symmetric according to the config, but its zero points are not in the middle.",
                "The config may have the wrong version of GPTQ (checkpoint_format); download the model again.",
            )
        return layer

    def _measure(self, name: str) -> PackedShape:
        parts = {}
        for part in PARTS[:3]:
            info = self.tensors.get(f"{name}.{part}")
            if info is None:
                raise CorruptFile(f"{short(name)} has packed weights but no {part}.", _AGAIN)
            if info.dtype not in (_FLOATS if part == "scales" else ("I32", "U32")):
                raise CorruptFile(f"{short(name)}.{part} has the dtype {info.dtype}.", _AGAIN)
            parts[part] = info.shape
        measures = measure(self._settings.packing, parts)
        if measures is None:
            shapes = ", ".join(f"{part} {list(shape)}" for part, shape in parts.items())
            raise CorruptFile(f"The shapes of the tensors of {short(name)} are inconsistent: {shapes}.", _AGAIN)
        return measures

    def _scheme(self, name: str) -> LayerScheme:
        """Return the scheme in the config, after checking it against the tensors."""
        measures, entry = self._measures[name], self._settings.entry(self._module_name(name))
        if entry.bits != measures.bits:
            raise CorruptFile(
                f"The config specifies {entry.bits} bits for {short(name)}, but its tensors have {measures.bits}.",
                _AGAIN,
            )
        try:
            scheme = LayerScheme(entry.bits, entry.group_size, entry.sym)
        except BadInput as error:
            raise UnsupportedModel(
                f"{short(name)} is quantized to {entry.bits} bits in groups of {entry.group_size}, "
                "which is not supported yet.",
                "Supported are 2, 3, 4 and 8 bits in groups of a multiple of 32.",
            ) from error
        if scheme.groups(measures.in_features) != measures.groups:
            raise CorruptFile(
                f"The config specifies groups of {entry.group_size} for {short(name)}, but its {measures.in_features} "
                f"inputs have {measures.groups} scales.",
                _AGAIN,
            )
        return scheme

    def _check_parts(self, name: str) -> None:
        """Check the other tensors of a layer by their headers."""
        if f"{name}.weight" in self.tensors:
            raise CorruptFile(f"{short(name)} has both packed and unpacked weights.", _AGAIN)
        info, measures = self.tensors.get(f"{name}.g_idx"), self._measures[name]
        if info is not None and (info.dtype not in ("I32", "I64") or info.shape != (measures.in_features,)):
            raise CorruptFile(f"{short(name)}.g_idx is not a list of {measures.in_features} groups.", _AGAIN)
        if info is None and self._settings.desc_act and not self._settings.static_groups and measures.groups > 1:
            raise CorruptFile(f"{short(name)} was quantized with act-order (desc_act) but has no g_idx.", _AGAIN)

    def _order(self, name: str) -> Tensor | None:
        """Return the group of each input, int32 [in]; None if the groups are in natural order."""
        if f"{name}.g_idx" not in self.tensors:
            return None
        try:
            g_idx = self._read(f"{name}.g_idx")
            return own_order(short(name), self.schemes[name], g_idx, self._measures[name].in_features)
        except ValueError as error:
            raise CorruptFile(f"{error}.", _AGAIN) from error

    def _read(self, name: str) -> Tensor:
        info = self.tensors[name]
        # U32 and I32 words have the same bits, and torch has shifts for I32 only.
        value = TensorStore(self.folder, {name: info}).get(name)
        return value.view(torch.int32) if info.dtype == "U32" else value


def _tensors(folder: Path, config: Mapping[str, Any], settings: Settings) -> dict[str, TensorInfo]:
    """Return the tensor table of the weights file in the config, else of the usual files of the folder."""
    file = folder / f"{settings.weights_file}.safetensors"
    return read_header(file) if settings.weights_file and file.is_file() else read_tensors(folder, config)


def _half(scales: Tensor, name: str) -> Tensor:
    """Return the scales as float16, the dtype in nearly all checkpoints."""
    if not bool(torch.isfinite(scales).all()):
        raise CorruptFile(f"The scales of {short(name)} are not all finite.", _AGAIN)
    half = scales.to(torch.float16)
    if not torch.equal(half.to(scales.dtype), scales):
        raise UnsupportedModel(
            f"The scales of {short(name)} cannot be converted to 16-bit floats without loss.",
            "Choose a checkpoint with F16 scales.",
        )
    return half
