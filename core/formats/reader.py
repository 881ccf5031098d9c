"""Reading quantized checkpoints, ours and other programs': AutoRound's packings, GPTQ and AWQ, layer by layer.

Believes the shapes of the tensors and holds the config against them; a contradiction is an error, never a guess.
Knows nothing of models beyond names that end in `.qweight`.
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

_AGAIN = "Fetch the model again."
_FLOATS = ("F16", "BF16", "F32")


def is_quantized(config: Mapping[str, Any]) -> bool:
    """Whether a model's config.json says that its weights are quantized, by whatever method."""
    return bool(config.get("quantization_config"))


class QuantizedCheckpoint:
    """A quantized checkpoint on disk. Opening it reads headers and configs only.

    Attributes:
        config: the model's config.json.
        tensors: the table of all its tensors.
        schemes: name of each quantized linear, as in the checkpoint -> its scheme, in the order of the checkpoint.
        plain: names of all tensors that belong to no packing; biases of quantized layers are among them.

    Args:
        folder: of the model.
        module_name: from a linear's name in the checkpoint to that of its module in the transformers model, which the
            config uses; by default the prefix that the checkpoint lacks is found from `block_name_to_quantize`.

    Raises:
        ModelNotFound: no such model.
        CorruptFile: files torn, incomplete or in contradiction.
        UnsupportedModel: sound, but in a way that is not read yet.
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
            raise CorruptFile(f"The config of {folder} says quantized, and no tensor is.", _AGAIN)
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
        """The tensors that belong to no packing, read on demand."""
        return TensorStore(self.folder, {name: self.tensors[name] for name in self.plain})

    @cached_property
    def act_order(self) -> tuple[str, ...]:
        """Names of the quantized linears with act-order (`desc_act`); reads their `g_idx` tensors.

        Raises:
            CorruptFile: a list that cannot be.
        """
        return tuple(name for name in self.schemes if self._order(name) is not None)

    @property
    def settings(self) -> Settings:
        """What the quantization config says."""
        return self._settings

    def shape(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a quantized linear."""
        measures = self._measures[name]
        return measures.out_features, measures.in_features

    def dense_table(self) -> dict[str, TensorInfo]:
        """The tensor table as if nothing were quantized: a weight [out, in] in place of each layer's packed parts.

        For building the tree of the original; the byte ranges of those weights mean nothing.
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
        """One quantized linear, read from disk.

        Raises:
            KeyError: no quantized layer has that name.
            CorruptFile: values that cannot be.
            UnsupportedModel: scales that are no 16-bit floats.
        """
        scheme = self.schemes[name]
        order = self._order(name)
        parts = {part: self._read(f"{name}.{part}") for part in PARTS[:3]}
        parts["scales"] = _half(parts["scales"], name)
        layer = decode(self._settings.packing, name, scheme, parts, order)
        if scheme.sym and not bool((layer.zeros == scheme.levels // 2).all()):
            # Some kernels never look at the zero points of such a layer, so readers would not agree what it means.
            raise CorruptFile(
                f"The config says that {short(name)} is symmetric, and its zero points are not in the middle.",
                "The config may name the wrong version of GPTQ (checkpoint_format); fetch the model again.",
            )
        return layer

    def _measure(self, name: str) -> PackedShape:
        parts = {}
        for part in PARTS[:3]:
            info = self.tensors.get(f"{name}.{part}")
            if info is None:
                raise CorruptFile(f"{short(name)} has packed weights and no {part}.", _AGAIN)
            if info.dtype not in (_FLOATS if part == "scales" else ("I32", "U32")):
                raise CorruptFile(f"{short(name)}.{part} has the dtype {info.dtype}.", _AGAIN)
            parts[part] = info.shape
        measures = measure(self._settings.packing, parts)
        if measures is None:
            shapes = ", ".join(f"{part} {list(shape)}" for part, shape in parts.items())
            raise CorruptFile(f"The tensors of {short(name)} do not fit together: {shapes}.", _AGAIN)
        return measures

    def _scheme(self, name: str) -> LayerScheme:
        """The scheme in the config, if the tensors agree with it."""
        measures, claim = self._measures[name], self._settings.claim(self._module_name(name))
        if claim.bits != measures.bits:
            raise CorruptFile(
                f"The config says {claim.bits} bits for {short(name)}, and its tensors have {measures.bits}.", _AGAIN
            )
        try:
            scheme = LayerScheme(claim.bits, claim.group_size, claim.sym)
        except BadInput as error:
            raise UnsupportedModel(
                f"{short(name)} is quantized to {claim.bits} bits in groups of {claim.group_size}, "
                "which is not read yet.",
                "Bits 2, 3, 4 and 8 in groups of 32 or a multiple are.",
            ) from error
        if scheme.groups(measures.in_features) != measures.groups:
            raise CorruptFile(
                f"The config says groups of {claim.group_size} for {short(name)}, and its {measures.in_features} "
                f"inputs have {measures.groups} scales.",
                _AGAIN,
            )
        return scheme

    def _check_parts(self, name: str) -> None:
        """What can be said of a layer's other tensors without reading them."""
        if f"{name}.weight" in self.tensors:
            raise CorruptFile(f"{short(name)} has packed weights and plain ones.", _AGAIN)
        info, measures = self.tensors.get(f"{name}.g_idx"), self._measures[name]
        if info is not None and (info.dtype not in ("I32", "I64") or info.shape != (measures.in_features,)):
            raise CorruptFile(f"{short(name)}.g_idx is not a list of {measures.in_features} groups.", _AGAIN)
        if info is None and self._settings.desc_act and not self._settings.static_groups and measures.groups > 1:
            raise CorruptFile(f"{short(name)} was quantized in order of activation and has no g_idx.", _AGAIN)

    def _order(self, name: str) -> Tensor | None:
        """The group of each input, int32 [in]; None where they follow each other."""
        if f"{name}.g_idx" not in self.tensors:
            return None
        try:
            g_idx = self._read(f"{name}.g_idx")
            return own_order(short(name), self.schemes[name], g_idx, self._measures[name].in_features)
        except ValueError as error:
            raise CorruptFile(f"{error}.", _AGAIN) from error

    def _read(self, name: str) -> Tensor:
        info = self.tensors[name]
        # U32 and I32 words have the same bits, and shifts are defined on I32 only.
        value = TensorStore(self.folder, {name: info}).get(name)
        return value.view(torch.int32) if info.dtype == "U32" else value


def _tensors(folder: Path, config: Mapping[str, Any], settings: Settings) -> dict[str, TensorInfo]:
    """The table of the file that the config names, else of the folder's usual ones."""
    named = folder / f"{settings.weights_file}.safetensors"
    return read_header(named) if settings.weights_file and named.is_file() else read_tensors(folder, config)


def _half(scales: Tensor, name: str) -> Tensor:
    """Scales as float16, which is what nearly all checkpoints have."""
    if not bool(torch.isfinite(scales).all()):
        raise CorruptFile(f"The scales of {short(name)} are not all finite.", _AGAIN)
    half = scales.to(torch.float16)
    if not torch.equal(half.to(scales.dtype), scales):
        raise UnsupportedModel(
            f"The scales of {short(name)} do not fit into 16-bit floats without loss.",
            "Choose a checkpoint with F16 scales.",
        )
    return half
