"""Reading of quantized checkpoints of Bitwright and other programs: AutoRound's packings, GPTQ and AWQ, by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from core.errors import CorruptFile, ModelNotFound, UnsupportedModel
from core.formats.layout import decode, own_order
from core.formats.packing import PARTS
from core.formats.quantized import QuantizedLinear
from core.formats.quantized_headers import QuantizedHeaders, read_quantized_tensors
from core.formats.settings import find_config, read_object, read_settings
from core.model.headers import short
from core.model.weights import TensorStore

_AGAIN = "Download the model again."


class QuantizedCheckpoint(QuantizedHeaders):
    """A quantized checkpoint on disk; the constructor reads headers and configs only.

    Attributes:
        folder: of the model.
        config: config.json.

    Args:
        folder: of the model.
        module_name: as in `QuantizedHeaders`.

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
        super().__init__(settings, read_quantized_tensors(folder, self.config, settings), str(folder), module_name)

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

    def layer(self, name: str) -> QuantizedLinear:
        """Read one quantized linear layer.

        Raises:
            KeyError: there is no quantized layer of that name.
            CorruptFile: values are invalid.
            UnsupportedModel: scales cannot be represented as 16-bit floats.
        """
        scheme = self.schemes[name]
        order = self._order(name)
        parts = {part: self._read(f"{self.stored_name(name)}.{part}") for part in PARTS[:3]}
        parts["scales"] = _half(parts["scales"], name)
        layer = decode(self.settings.packing, name, scheme, parts, order)
        if scheme.sym and not bool((layer.zeros == scheme.levels // 2).all()):
            # Some kernels ignore the zero points of symmetric layers, so readers would compute different weights.
            raise CorruptFile(
                f"{short(name)} is symmetric according to the config, but its zero points are not in the middle.",
                "The config may have the wrong version of GPTQ (checkpoint_format); download the model again.",
            )
        return layer

    def _order(self, name: str) -> Tensor | None:
        """Return the group of each input, int32 [in]; None if the groups are in natural order."""
        stored = f"{self.stored_name(name)}.g_idx"
        if stored not in self.tensors:
            return None
        try:
            return own_order(short(name), self.schemes[name], self._read(stored), self.shape(name)[1])
        except ValueError as error:
            raise CorruptFile(f"{error}.", _AGAIN) from error

    def _read(self, name: str) -> Tensor:
        info = self.tensors[name]
        # U32 and I32 words have the same bits, and torch has shifts for I32 only.
        value = TensorStore(self.folder, {name: info}).get(name)
        return value.view(torch.int32) if info.dtype == "U32" else value


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
