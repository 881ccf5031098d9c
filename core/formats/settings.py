"""Parsing of a `quantization_config` of AutoRound, GPTQ or AWQ: the packing, and the scheme of each module.

The values are not compared with the tensors here; `core.formats.reader` does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import BadInput, CorruptFile, UnsupportedModel
from core.files import read_json
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2, Packing
from core.formats.patterns import MAX_LENGTH, Pattern, TimeBudget

_PACKINGS = {
    "auto": AUTO_ROUND_GPTQ,
    "auto_round:gptq": AUTO_ROUND_GPTQ,
    "auto_round:auto_gptq": AUTO_ROUND_GPTQ,
    "auto_round:awq": AUTO_ROUND_AWQ,
    "auto_round:auto_awq": AUTO_ROUND_AWQ,
    "auto_round": AUTO_ROUND,
    "auto_round:gptqmodel": GPTQ_V2,
}
CONFIG_FILES = ("quantization_config.json", "quantize_config.json", "quant_config.json")
"""Files of AutoRound, AutoGPTQ and AutoAWQ with the config if it is not in config.json."""

_HINT = "Choose a checkpoint made with AutoRound, a GPTQ program or AutoAWQ."
_AGAIN = "Download the model again."
_MAX_STEMS = 16
_AWQ_BITS = 4
_KEPT: Mapping[str, Any] = {"bits": 16}
_FILE = re.compile(r"[\w.-]{1,200}")


@dataclass(frozen=True)
class LayerEntry:
    """The bits (16: not quantized), group size and symmetry of a layer in a config; the values are unchecked."""

    bits: int
    group_size: int
    sym: bool


@dataclass(frozen=True)
class Override:
    """Config keys for the modules that match a name or a pattern.

    Attributes:
        name: exact name of a module, which takes precedence over patterns; None if the config has patterns only.
        pattern: None if only the exact name applies.
        keys: `bits`, `group_size` and `sym`, as far as they are set.
    """

    name: str | None
    pattern: Pattern | None
    keys: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """A parsed quantization config.

    Attributes:
        method: `auto-round`, `gptq` or `awq`.
        packing: of the tensors.
        default: entry of every layer without an override.
        overrides: an exact name takes precedence over patterns; of these, the first that matches applies.
        blocks: modules that contain the quantized blocks, if the config lists them.
        desc_act: whether layers may have act-order.
        static_groups: whether groups are in natural order even with `desc_act`.
        weights_file: file name of the weights without suffix; "" if the config has none.
    """

    method: str
    packing: Packing
    default: LayerEntry
    overrides: tuple[Override, ...]
    blocks: tuple[str, ...] = ()
    desc_act: bool = False
    static_groups: bool = False
    weights_file: str = ""

    def among(self, modules: Collection[str]) -> Settings:
        """Return these settings for a model with `modules`: overrides with the name of a module are not patterns.

        Otherwise the entry of `mlp.gate` would also match `mlp.gate_proj`.
        """
        overrides = tuple(
            replace(override, pattern=None) if override.name in modules else override for override in self.overrides
        )
        return replace(self, overrides=overrides)

    def entry(self, module: str) -> LayerEntry:
        """Return the entry of the module with this name."""
        keys = self._keys(module)
        bits, group_size, sym = (
            keys.get(key, usual)
            for key, usual in (
                ("bits", self.default.bits),
                ("group_size", self.default.group_size),
                ("sym", self.default.sym),
            )
        )
        return LayerEntry(bits, group_size, sym)

    def module_names(self, names: Sequence[str]) -> Callable[[str], str]:
        """Return a function from layer names in the checkpoint to module names, which adds a missing base prefix.

        With "transformer.h" in `block_name_to_quantize` and tensors under "h.0", names under "h" get "transformer.".
        """
        stems = _stems(names)
        for block in self.blocks:
            parts = block.split(".")
            for cut in range(min(len(parts), _MAX_STEMS)):
                inner = ".".join(parts[cut:])
                if inner in stems:
                    inner, outer = f"{inner}.", ".".join([*parts[:cut], ""])
                    return lambda name, inner=inner, outer=outer: (  # type: ignore[misc]
                        f"{outer}{name}" if name.startswith(inner) else name
                    )
        return str

    def _keys(self, module: str) -> Mapping[str, Any]:
        named, fixed, searched = self._index
        if module in named:
            return named[module]
        first = fixed.get(module, len(self.overrides))
        for number in searched:
            if number > first:
                break
            override = self.overrides[number]
            if override.pattern is not None and override.pattern.search(module):
                return override.keys
        return self.overrides[first].keys if first < len(self.overrides) else {}

    @cached_property
    def _index(self) -> tuple[dict[str, Mapping[str, Any]], dict[str, int], list[int]]:
        """(keys by exact name, index of the first literal pattern by its name, indices of all other patterns).

        The index makes look-ups fast for configs that list tens of thousands of layers.
        """
        named: dict[str, Mapping[str, Any]] = {}
        fixed: dict[str, int] = {}
        searched = []
        for number, override in enumerate(self.overrides):
            if override.name is not None:
                named.setdefault(override.name, override.keys)
            if override.pattern is None:
                continue
            literal = override.pattern.literal
            if literal is None:
                searched.append(number)
            else:
                fixed.setdefault(literal, number)
        return named, fixed, searched


def is_integer_method(config: Mapping[str, Any]) -> bool:
    """Return whether a `quantization_config` is of AutoRound, GPTQ or AWQ, which `read_settings` parses."""
    method = config.get("quant_method", _implied(config))
    return isinstance(method, str) and ("auto-round" in method or method in ("gptq", "awq"))


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Parse a `quantization_config`.

    Raises:
        CorruptFile: keys are missing or invalid.
        UnsupportedModel: the method or the variant is not supported.
    """
    method = config.get("quant_method", _implied(config))
    if not isinstance(method, str):
        raise CorruptFile("The quantization config has no method.", _AGAIN)
    if "auto-round" in method:
        return _auto_round(config)
    if method == "gptq":
        return _gptq(config)
    if method == "awq":
        return _awq(config)
    raise UnsupportedModel(f"The model is quantized with {method[:40]!r}, which is not supported yet.", _HINT)


def find_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the quantization config of a model, from its `config` or from a separate file in the folder.

    Raises:
        BadInput: the model is not quantized.
        CorruptFile: the quantization config is not a JSON object.
    """
    inside = config.get("quantization_config")
    if isinstance(inside, dict):
        return inside
    if inside is not None:
        raise CorruptFile(f"The quantization_config in {folder / 'config.json'} is not an object.", _AGAIN)
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            return read_object(folder / name)
    raise BadInput(f"The model in {folder} is not quantized.", "Choose a quantized model.")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raises CorruptFile if it is not an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} is not a JSON object.", _AGAIN)
    return value


def _implied(config: Mapping[str, Any]) -> str | None:
    """Return the method of a config without `quant_method`, as the first versions of AutoGPTQ and AutoAWQ wrote it."""
    return "gptq" if "desc_act" in config else "awq" if "w_bit" in config and "zero_point" in config else None


def _auto_round(config: Mapping[str, Any]) -> Settings:
    # Files from before `packing_format` existed have GPTQ's layout, which transformers assumes as well.
    name = config.get("packing_format", "auto_round:auto_gptq")
    packing = _PACKINGS.get(name) if isinstance(name, str) else None
    if packing is None:
        raise UnsupportedModel(f"The packing {_shown(name)} is not supported yet.", _HINT)
    if config.get("rotation_config") or config.get("spinquant_config"):
        raise UnsupportedModel("The model rotates its activations between layers, which is not supported yet.", _HINT)
    default, budget = _default(config), TimeBudget()
    if packing.awq and default.bits != _AWQ_BITS:
        raise UnsupportedModel(f"AWQ's packing with {default.bits} bits is not supported yet.", _HINT)
    overrides = tuple(
        Override(key, Pattern(key, budget, anchored=False) if len(key) <= MAX_LENGTH else None, _keys(value, key))
        for key, value in _table(config, "extra_config").items()
        if value != {}
    )
    return Settings("auto-round", packing, default, overrides, _blocks(config))


def _gptq(config: Mapping[str, Any]) -> Settings:
    version = config.get("checkpoint_format") or config.get("format") or "gptq"
    if version not in ("gptq", "gptq_v2"):
        raise UnsupportedModel(f"The GPTQ checkpoint format {_shown(version)} is not supported yet.", _HINT)
    if config.get("is_marlin_format") or config.get("pack_dtype", "int32") not in ("int32", "torch.int32"):
        raise UnsupportedModel("The GPTQ checkpoint is packed for a special kernel, which is not supported yet.", _HINT)
    overrides, budget = [], TimeBudget()
    for key, value in _table(config, "dynamic").items():
        # As in GPTQModel: "-:" skips, "+:" or no prefix overrides; anchored at the start, the first match wins.
        skip = key.startswith("-:")
        pattern = Pattern(key.removeprefix("-:").removeprefix("+:"), budget, anchored=True)
        overrides.append(Override(None, pattern, _KEPT if skip else _keys(value, key)))
    file = config.get("model_file_base_name")
    return Settings(
        "gptq",
        GPTQ if version == "gptq" else GPTQ_V2,
        _default(config),
        tuple(overrides),
        _blocks(config),
        desc_act=config.get("desc_act") is True,
        static_groups=config.get("static_groups") is True,
        weights_file=file if isinstance(file, str) and _FILE.fullmatch(file) else "",
    )


def _awq(config: Mapping[str, Any]) -> Settings:
    version = config.get("version") or config.get("format") or config.get("checkpoint_format") or "gemm"
    backend = config.get("backend") or "autoawq"
    if not isinstance(version, str) or version.lower() != "gemm" or backend == "llm-awq":
        what = version if backend != "llm-awq" else backend
        raise UnsupportedModel(
            f"The AWQ checkpoint version {_shown(what)} is not supported yet.",
            "Choose a checkpoint of version gemm, as nearly all are.",
        )
    zero_point = config.get("zero_point", True)
    if not isinstance(zero_point, bool):
        raise CorruptFile(f"In the quantization config, zero_point is {_shown(zero_point)}.", _AGAIN)
    short = {"bits": config.get("w_bit", _AWQ_BITS), "group_size": config.get("q_group_size"), "sym": not zero_point}
    default = _default({**short, **{key: value for key, value in config.items() if value is not None}})
    if default.bits != _AWQ_BITS:
        raise UnsupportedModel(
            f"AWQ with {default.bits} bits is not supported yet.", "Choose a checkpoint with 4 bits."
        )
    kept = config.get("modules_to_not_convert") or []
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise CorruptFile("In the quantization config, modules_to_not_convert is not a list of names.", _AGAIN)
    budget = TimeBudget()
    overrides = tuple(Override(name, pattern, _KEPT) for name in kept for pattern in _skip_patterns(name, budget))
    return Settings("awq", AUTO_ROUND_AWQ, default, overrides, _blocks(config))


def _skip_patterns(name: str, budget: TimeBudget) -> list[Pattern]:
    """Return the patterns of an entry in AWQ's `modules_to_not_convert`.

    As in `should_convert_module` of transformers 5.23, an entry matches the start of a name, as a pattern, up to a dot
    or the end; or it matches the end of a name literally.
    """
    if not name:
        return []
    return [
        Pattern(rf"(?:{name})(?:(?<=\.)|(?=\.|$))", budget, anchored=True),
        Pattern(rf"{re.escape(name)}\Z", budget, anchored=False),
    ]


def _default(config: Mapping[str, Any]) -> LayerEntry:
    keys = _keys(config, "the whole model")
    if "bits" not in keys or "group_size" not in keys:
        raise CorruptFile("The quantization config lacks bits or group_size.", _AGAIN)
    return LayerEntry(keys["bits"], keys["group_size"], keys.get("sym", True))


def _keys(value: Any, where: str) -> dict[str, Any]:
    """Return bits, group_size and sym of an entry, after checking their types and the data type of the weights."""
    if not isinstance(value, Mapping):
        raise CorruptFile(f"In the quantization config, the entry for {_named(where)} is not an object.", _AGAIN)
    kinds = {"bits": int, "group_size": int, "sym": bool}
    keys = {key: value[key] for key in kinds if value.get(key) is not None}
    for key, item in keys.items():
        if type(item) is not kinds[key] or (isinstance(item, int) and abs(item) >= 1 << 31):
            raise CorruptFile(f"In the quantization config, {key} of {_named(where)} is {_shown(item)}.", _AGAIN)
    activations = value.get("act_bits")
    if isinstance(activations, int) and activations < 16:
        raise UnsupportedModel(f"Activations quantized to {_shown(activations)} bits are not supported yet.", _HINT)
    if keys.get("bits", 4) < 16 and (value.get("data_type") or "int") != "int":
        raise UnsupportedModel(f"Weights of the type {_shown(value['data_type'])} are not supported yet.", _HINT)
    return keys


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise CorruptFile(f"In the quantization config, {key} is not an object.", _AGAIN)
    return value


def _blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Parse `block_name_to_quantize`: names separated by commas, a list, or a list of lists of numbered blocks."""
    value = config.get("block_name_to_quantize") or config.get("to_quant_block_names") or []
    names: dict[str, None] = {}
    for item in value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []:
        first = item[0] if isinstance(item, list) and item else item
        if isinstance(first, str) and len(first) <= MAX_LENGTH:
            name = first.strip()
            names[re.sub(r"\.\d+\Z", "", name) if isinstance(item, list) else name] = None
    return tuple(name for name in names if name)


def _stems(names: Iterable[str]) -> set[str]:
    """Return all prefixes of the names that end before a dot."""
    stems = set()
    for name in names:
        end = name.find(".")
        for _ in range(_MAX_STEMS):
            if end < 0:
                break
            stems.add(name[:end])
            end = name.find(".", end + 1)
    return stems


def _named(text: str) -> str:
    """Return an untrusted name in a form that is safe for a message."""
    return f"{text[:80]!r}"[1:-1]


def _shown(value: Any) -> str:
    """Return an untrusted value in a form that is safe for a message."""
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    return f"{value[:60]!r}" if isinstance(value, str) else f"{value!r}"[:40]
