"""The tensors of a source as 16-bit or 32-bit floats, from headers and configs alone.

Sources may be quantized: in FP8, MXFP4, NVFP4 or by compressed-tensors (see `detection`), or by AutoRound, GPTQ or AWQ.
Their weights have the names and shapes of the original model here, and are unpacked when they are read (`store`). Does
not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, UnsupportedModel
from core.formats.dequantized.detection import find_weights
from core.formats.dequantized.settings import read_source_settings
from core.formats.dequantized.stored_weight import StoredWeight
from core.formats.quantized_headers import QuantizedHeaders, read_quantized_tensors
from core.formats.settings import CONFIG_FILES, is_integer_method, read_object, read_settings
from core.model.corrections import is_stale
from core.model.folder import read_config
from core.model.headers import TensorInfo
from core.model.towers import text_config
from core.model.tree import ModelTree, build_tree, read_tensors

MODELOPT_FILE: Final = "hf_quant_config.json"
"""Config of ModelOpt beside a config.json without one."""
_KEYS: Final = ("quantization_config", "compression_config")
"""Keys of config.json with the quantization config; the second one is from the first version of llm-compressor."""
_NAMES: Final = {"auto-round": "AutoRound", "gptq": "GPTQ", "awq": "AWQ"}


@dataclass(frozen=True)
class SourceTensors:
    """The tensors of a model as floats, with the storage of those that are quantized in its files.

    Attributes:
        config: config.json, without the quantization config if the weights can be read.
        table: tensor name in the original model -> TensorInfo; of quantized weights only the length of the byte range
            is valid.
        stored: name -> storage of the weights that are quantized in the formats of `detection`.
        packed: layers that are quantized by AutoRound, GPTQ or AWQ; None if there are none.
        integers: True if the config is of AutoRound, GPTQ or AWQ, also of a variant that cannot be read.
        stored_bytes: size of all tensors in the files if weights are quantized, else 0.
        refusal: the reason why the weights cannot be read, in one sentence; "" if they can.
    """

    config: dict[str, Any]
    table: dict[str, TensorInfo]
    stored: Mapping[str, StoredWeight] = field(default_factory=dict)
    packed: QuantizedHeaders | None = None
    integers: bool = False
    stored_bytes: int = 0
    refusal: str = ""

    @property
    def quantized(self) -> bool:
        """True if weights are quantized and can be read."""
        return bool(self.stored) or self.packed is not None

    @property
    def kind(self) -> str:
        """Format of the quantized weights for display, such as `FP8 (blocks of 128x128)`; "" if there are none."""
        counts = Counter(weight.label for weight in self.stored.values())
        if self.packed is not None:
            method = _NAMES.get(self.packed.settings.method, self.packed.settings.method)
            schemes = Counter(scheme.label() for scheme in self.packed.schemes.values())
            counts = Counter({f"{method} ({scheme})": count for scheme, count in schemes.items()})
        return ", ".join(label for label, _ in counts.most_common(4))

    @property
    def exact(self) -> bool:
        """True if no weight is rounded when it is unpacked."""
        return self.packed is None and all(weight.exact for weight in self.stored.values())

    @property
    def note(self) -> str:
        """Remark about the weights for a report; "" if they are not quantized."""
        if not self.quantized:
            return ""
        return f"The weights are quantized in the source as {self.kind}, and are unpacked to 16 bits."

    def tree(self) -> ModelTree:
        """Return the layer tree of the original model."""
        tree = build_tree(self.config, self.table)
        return replace(tree, refusal=self.refusal) if self.refusal else tree


def is_quantized(folder: Path) -> bool:
    """Return whether a model folder has a quantization config; its tensors may contradict it."""
    return (_quantization(read_config(folder)) or _separate_config(folder)) is not None


def read_source(folder: Path) -> SourceTensors:
    """Read the config and the tensor table of a model folder.

    Raises:
        ModelNotFound: config or weights are missing.
        CorruptFile: they are damaged or contradictory.
    """
    config = read_config(folder)
    settings = _separate_config(folder) if _quantization(config) is None else None
    method = _quantization(config) or settings
    if method is not None and is_integer_method(method):
        with suppress(UnsupportedModel, CorruptFile):  # raised again below if the tensors are quantized
            return from_headers(config, read_quantized_tensors(folder, config, read_settings(method)), settings)
    return from_headers(config, read_tensors(folder, config), settings)


def from_headers(
    config: dict[str, Any], table: dict[str, TensorInfo], settings: Mapping[str, Any] | None = None
) -> SourceTensors:
    """Return the tensors of the original model for a config and a tensor table.

    Args:
        config: config.json.
        table: tensor table of the files.
        settings: quantization config from a separate file, for a config.json without one.

    Raises:
        CorruptFile: scales are missing, or shapes contradict each other or the config.
    """
    method = _quantization(config) or settings
    if method is None or is_stale({"quantization_config": method}, table):
        return SourceTensors(config, table)
    size = sum(info.nbytes for info in table.values())
    try:
        if is_integer_method(method):
            headers = QuantizedHeaders(read_settings(method), table, "the model")
            table = headers.dense_table()
            return SourceTensors(_without(config), table, packed=headers, integers=True, stored_bytes=size)
        stored, original = find_weights(table, read_source_settings(method))
    except UnsupportedModel as error:
        return SourceTensors(config, table, integers=is_integer_method(method), refusal=error.message)
    return SourceTensors(_without(config), original, stored, stored_bytes=size if stored else 0)


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the quantization config in config.json; None if there is none."""
    for part in (config, text_config(config)):
        for key in _KEYS:
            if part.get(key):
                return part[key] if isinstance(part[key], Mapping) else {"quant_method": None}
    return None


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without its quantization config."""
    plain = {key: value for key, value in config.items() if key not in _KEYS}
    if isinstance(plain.get("text_config"), dict):
        plain["text_config"] = {key: value for key, value in plain["text_config"].items() if key not in _KEYS}
    return plain


def _separate_config(folder: Path) -> Mapping[str, Any] | None:
    """Return the quantization config of a folder from a file beside config.json; None if there is none."""
    for name in (MODELOPT_FILE, *CONFIG_FILES):
        if (folder / name).is_file():
            return read_object(folder / name)
    return None
