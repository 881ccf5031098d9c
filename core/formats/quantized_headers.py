"""The layers of a quantized checkpoint (AutoRound's packings, GPTQ and AWQ), from its config and tensor table.

The config is checked against the shapes of the tensors; a contradiction is an error. Quantized layers are found by
names that end in `.qweight`. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput, CorruptFile, UnsupportedModel
from core.formats.packing import PARTS, PackedShape, measure
from core.formats.settings import Settings
from core.model.fused_experts import single_kind
from core.model.headers import TensorInfo, read_header, short
from core.model.tree import read_tensors
from core.schemes import LayerScheme

_AGAIN = "Download the model again."
_FLOATS = ("F16", "BF16", "F32")


class QuantizedHeaders:
    """The quantized layers and the other tensors of a checkpoint.

    Attributes:
        tensors: table of all tensors.
        settings: the parsed quantization config.
        schemes: name of each quantized linear layer -> its scheme, in the order of the checkpoint. Experts have the
            names of a bits map (`core.model.fused_experts`), also if the checkpoint has other ones.
        plain: names of all tensors that are not packed, including biases of quantized layers.

    Args:
        settings: the parsed quantization config.
        tensors: table of all tensors.
        label: name of the checkpoint for messages.
        module_name: function from a layer name in the checkpoint to the module name in the transformers model, which
            the config uses. By default, a missing prefix is found from `block_name_to_quantize`.

    Raises:
        CorruptFile: the config and the tensors are incomplete or contradictory.
        UnsupportedModel: the quantization is not supported.
    """

    def __init__(
        self,
        settings: Settings,
        tensors: dict[str, TensorInfo],
        label: str,
        module_name: Callable[[str], str] | None = None,
    ) -> None:
        self.tensors = tensors
        names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
        if not names:
            raise CorruptFile(
                f"The config of {label} describes a quantized model, but there are no packed tensors.", _AGAIN
            )
        self._module_name = module_name or settings.module_names(names)
        self.settings = settings.among({self._module_name(name.rpartition(".")[0]) for name in tensors})
        self._measures = {name: self._measure(name) for name in names}
        self._stored = {single_kind(name): name for name in names}
        if len(self._stored) < len(names):
            raise CorruptFile(f"Two packed experts of {label} have the same name in a bits map.", _AGAIN)
        self.schemes: Mapping[str, LayerScheme] = {name: self._scheme(stored) for name, stored in self._stored.items()}
        for name in names:
            self._check_parts(name)
        packed = {f"{name}.{part}" for name in names for part in PARTS}
        lost = next((name for name in tensors if name.endswith(".qzeros") and name not in packed), None)
        if lost is not None:
            raise CorruptFile(f"The packed weights that belong to {short(lost)} are missing.", _AGAIN)
        self.plain = [name for name in tensors if name not in packed]

    def shape(self, name: str) -> tuple[int, int]:
        """Return (out_features, in_features) of a quantized linear layer."""
        measures = self._measures[self._stored[name]]
        return measures.out_features, measures.in_features

    def stored_name(self, name: str) -> str:
        """Return the name of a quantized linear layer in the checkpoint, such as `w1` for a `gate_proj`."""
        return self._stored[name]

    def weight_name(self, name: str) -> str:
        """Return the name of the weight of a quantized linear layer in `dense_table`."""
        return f"{self._stored[name]}.weight"

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
                measures = self._measures[name.removesuffix(".qweight")]
                shape = (measures.out_features, measures.in_features)
                table[weight] = TensorInfo(weight, "F16", shape, info.file, 0, 2 * shape[0] * shape[1])
        return table

    def _measure(self, name: str) -> PackedShape:
        parts = {}
        for part in PARTS[:3]:
            info = self.tensors.get(f"{name}.{part}")
            if info is None:
                raise CorruptFile(f"{short(name)} has packed weights but no {part}.", _AGAIN)
            if info.dtype not in (_FLOATS if part == "scales" else ("I32", "U32")):
                raise CorruptFile(f"{short(name)}.{part} has the dtype {info.dtype}.", _AGAIN)
            parts[part] = info.shape
        measures = measure(self.settings.packing, parts)
        if measures is None:
            shapes = ", ".join(f"{part} {list(shape)}" for part, shape in parts.items())
            raise CorruptFile(f"The shapes of the tensors of {short(name)} are inconsistent: {shapes}.", _AGAIN)
        return measures

    def _scheme(self, name: str) -> LayerScheme:
        """Return the scheme in the config, after checking it against the tensors."""
        measures, entry = self._measures[name], self.settings.entry(self._module_name(name))
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
        if info is None and self.settings.desc_act and not self.settings.static_groups and measures.groups > 1:
            raise CorruptFile(f"{short(name)} was quantized with act-order (desc_act) but has no g_idx.", _AGAIN)


def read_quantized_tensors(folder: Path, config: Mapping[str, Any], settings: Settings) -> dict[str, TensorInfo]:
    """Return the tensor table of the weights file in the config, else of the usual files of the folder."""
    file = folder / f"{settings.weights_file}.safetensors"
    return read_header(file) if settings.weights_file and file.is_file() else read_tensors(folder, config)
