"""Parsing of a `quantization_config` of FP8, MXFP4, ModelOpt and compressed-tensors: the layout of the scales.

The values are compared with the shapes of the tensors in `detection`. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.errors import CorruptFile, UnsupportedModel
from core.formats.patterns import MAX_LENGTH, Pattern, TimeBudget

_FORMATS: Final = (
    "dense", "int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "mixed-precision",
    "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized",
)  # fmt: skip
"""Formats of compressed-tensors without sparsity."""
_ALGORITHMS: Final = (
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", "NVFP4", "W4A16_NVFP4", "MXFP4", "W4A8_MXFP4_FP8",
    "MIXED_PRECISION",
)  # fmt: skip
"""Values of ModelOpt's `quant_algo` whose weights are values with scales only."""
_AGAIN: Final = "Download the model again."
_ORIGINAL: Final = "Use the original model in 16 bits."


@dataclass(frozen=True)
class WeightSettings:
    """The quantization of the weights of some layers.

    Attributes:
        bits: of packed integers.
        block: rows and columns that share a scale; 0 for all; None if the config does not specify it.
        symmetric: True if integers have no zero points.
    """

    bits: int = 8
    block: tuple[int, int] | None = None
    symmetric: bool = True


@dataclass(frozen=True)
class Group:
    """The settings of the layers that match one of the targets.

    Attributes:
        weights: settings of the weights.
        names: exact names of layers.
        patterns: regular expressions, which match at the start of a name.
        classes: True if the targets contain the name of a class, such as `Linear`, which includes all layers.
    """

    weights: WeightSettings
    names: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()
    classes: bool = True


@dataclass(frozen=True)
class SourceSettings:
    """A parsed quantization config.

    Attributes:
        method: `quant_method`.
        groups: settings by layer.
    """

    method: str
    groups: tuple[Group, ...]

    def of(self, layer: str) -> WeightSettings | None:
        """Return the settings of a layer; an exact name takes precedence over patterns, and these over classes."""
        for group in self.groups:
            if layer in group.names:
                return group.weights
        for group in self.groups:
            if any(pattern.search(layer) for pattern in group.patterns):
                return group.weights
        return next((group.weights for group in self.groups if group.classes), None)


def read_source_settings(config: Mapping[str, Any]) -> SourceSettings:
    """Parse the `quantization_config` of config.json, or the content of ModelOpt's `hf_quant_config.json`.

    Raises:
        CorruptFile: keys are missing or invalid.
        UnsupportedModel: the variant of the method is not supported.
    """
    method = config.get("quant_method")
    nested = config.get("quantization")
    if isinstance(nested, Mapping) and "quant_algo" in nested:
        return _modelopt(nested)
    if method == "modelopt":
        return _modelopt(config)
    if method == "compressed-tensors":
        return _compressed(config)
    if method == "fp8":
        block = config.get("weight_block_size", [128, 128])  # the default of transformers; null: one scale
        return SourceSettings("fp8", (Group(WeightSettings(block=None if block is None else _block(block))),))
    if method in ("fbgemm_fp8", "mxfp4"):
        return SourceSettings(method, (Group(WeightSettings()),))
    if not isinstance(method, str):
        raise CorruptFile("The quantization config has no method.", _AGAIN)
    raise UnsupportedModel(f"The weights are quantized with {method[:40]!r}, whose format cannot be read.", _ORIGINAL)


def _modelopt(config: Mapping[str, Any]) -> SourceSettings:
    algorithm = config.get("quant_algo")
    if algorithm not in _ALGORITHMS:
        raise UnsupportedModel(f"Weights in ModelOpt's format {str(algorithm)[:40]!r} cannot be read.", _ORIGINAL)
    block = (128, 128) if algorithm == "FP8_PB_WO" else None
    return SourceSettings("modelopt", (Group(WeightSettings(block=block)),))


def _compressed(config: Mapping[str, Any]) -> SourceSettings:
    _check_format(config.get("format"))
    sparsity = config.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        raise UnsupportedModel("Weights in a sparse format of compressed-tensors cannot be read.", _ORIGINAL)
    transforms = config.get("transform_config")
    if isinstance(transforms, Mapping) and transforms.get("config_groups"):
        raise UnsupportedModel(
            "The weights are rotated (transform_config of compressed-tensors), which this version cannot undo.",
            _ORIGINAL,
        )
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise CorruptFile("The quantization config of compressed-tensors has no config_groups.", _AGAIN)
    budget = TimeBudget()
    return SourceSettings("compressed-tensors", tuple(_group(value, budget) for value in groups.values()))


def _check_format(name: Any) -> None:
    if name is not None and name not in _FORMATS:
        raise UnsupportedModel(f"Weights in the format {str(name)[:40]!r} cannot be read.", _ORIGINAL)


def _group(value: Any, budget: TimeBudget) -> Group:
    targets = value.get("targets") if isinstance(value, Mapping) else None
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise CorruptFile("In the quantization config, a group has no list of targets.", _AGAIN)
    _check_format(value.get("format"))
    expressions = [target.removeprefix("re:") for target in targets if target.startswith("re:")]
    patterns = tuple(Pattern(text, budget, anchored=True) for text in expressions if len(text) <= MAX_LENGTH)
    names = frozenset(target for target in targets if not target.startswith("re:"))
    # the name of a class has no dots, and that of a layer has, except for the head
    classes = any("." not in name and name != "lm_head" for name in names)
    return Group(_weights(value.get("weights")), names, patterns, classes)


def _weights(value: Any) -> WeightSettings:
    if value is None:  # only activations are quantized
        return WeightSettings()
    if not isinstance(value, Mapping):
        raise CorruptFile("In the quantization config, the weights of a group are not an object.", _AGAIN)
    bits, kind, symmetric = value.get("num_bits", 8), value.get("type", "int"), value.get("symmetric", True)
    if type(bits) is not int or not 1 <= bits <= 8 or kind not in ("int", "float") or not isinstance(symmetric, bool):
        raise CorruptFile("In the quantization config, num_bits, type or symmetric of a group is invalid.", _AGAIN)
    if kind == "float" and not symmetric:
        raise UnsupportedModel("Floating-point weights with zero points cannot be read.", _ORIGINAL)
    size, structure = value.get("group_size"), value.get("block_structure")
    strategy = value.get("strategy") or _strategy(size)
    if strategy == "tensor":
        return WeightSettings(bits, (0, 0), symmetric)
    if strategy == "channel":
        return WeightSettings(bits, (1, 0), symmetric)
    if strategy == "block":
        pair = structure.split("x") if isinstance(structure, str) else structure
        numbers = [int(part) if str(part).isdigit() else part for part in pair] if isinstance(pair, list) else pair
        return WeightSettings(bits, _block(numbers), symmetric)
    if strategy in ("group", "tensor_group") and type(size) is int and size > 0:
        return WeightSettings(bits, (1, size), symmetric)
    raise CorruptFile(f"In the quantization config, the strategy {str(strategy)[:40]!r} is invalid.", _AGAIN)


def _strategy(size: Any) -> str:
    """Return the strategy of a group without one, which compressed-tensors derives from the group size."""
    return "tensor" if size is None else "channel" if size == -1 else "group"


def _block(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(item) is int and item > 0 for item in value):
        raise CorruptFile("In the quantization config, the block size is not a pair of positive numbers.", _AGAIN)
    return value[0], value[1]
