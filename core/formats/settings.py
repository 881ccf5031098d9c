"""What a `quantization_config` says, of AutoRound's or of GPTQ's kind, ours or another program's.

Which packing the file has, and which scheme a module is said to have. Knows no tensor; whether the claims are true
is for the reader to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import BadInput, CorruptFile, UnsupportedModel
from core.files import read_json
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2, Packing

_PACKINGS = {
    "auto": AUTO_ROUND_GPTQ,
    "auto_round:gptq": AUTO_ROUND_GPTQ,
    "auto_round:auto_gptq": AUTO_ROUND_GPTQ,
    "auto_round:awq": AUTO_ROUND_AWQ,
    "auto_round:auto_awq": AUTO_ROUND_AWQ,
    "auto_round": AUTO_ROUND,
    "auto_round:gptqmodel": GPTQ_V2,
}
_CONFIG_FILES = ("quantization_config.json", "quantize_config.json")
_HINT = "Choose a checkpoint that AutoRound or a GPTQ program made."
_AGAIN = "Fetch the model again."


@dataclass(frozen=True)
class Claim:
    """What a config says of one layer; as yet unchecked, so any number may stand here. 16 bits: not quantized."""

    bits: int
    group_size: int
    sym: bool


@dataclass(frozen=True)
class Override:
    """Keys for the modules that a name or a pattern covers."""

    name: str
    pattern: re.Pattern[str] | None
    keys: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """A quantization config, read.

    Attributes:
        method: `auto-round` or `gptq`.
        packing: of the tensors.
        default: the scheme of every layer that no override covers.
        overrides: an exact name counts before all patterns, then the first pattern that matches.
        blocks: modules that hold the quantized blocks, as far as the config names them.
        desc_act: inputs may be grouped in an order of their own.
    """

    method: str
    packing: Packing
    default: Claim
    overrides: tuple[Override, ...]
    blocks: tuple[str, ...]
    desc_act: bool

    def among(self, modules: Collection[str]) -> Settings:
        """These settings for a model that has `modules`: an override with the name of one is no pattern.

        Else the entry of `mlp.gate` would cover `mlp.gate_proj`.
        """
        overrides = tuple(
            replace(override, pattern=None) if override.name in modules else override for override in self.overrides
        )
        return replace(self, overrides=overrides)

    def claim(self, module: str) -> Claim:
        """What the config says of the module with this name."""
        keys = self._keys(module)
        bits, group_size, sym = (
            keys.get(key, usual)
            for key, usual in (
                ("bits", self.default.bits),
                ("group_size", self.default.group_size),
                ("sym", self.default.sym),
            )
        )
        return Claim(bits, group_size, sym)

    def module_names(self, names: Sequence[str]) -> Callable[[str], str]:
        """From a checkpoint's names of quantized layers to those of modules: adds the base model's prefix if it lacks.

        With `block_name_to_quantize` "transformer.h" and tensors under "h.0", all of "h" gets "transformer.".
        """
        for block in self.blocks:
            parts = block.split(".")
            for cut in range(len(parts)):
                inner = ".".join(parts[cut:]) + "."
                if any(name.startswith(inner) for name in names):
                    outer = ".".join([*parts[:cut], ""])
                    return lambda name, inner=inner, outer=outer: (  # type: ignore[misc]
                        f"{outer}{name}" if name.startswith(inner) else name
                    )
        return str

    def _keys(self, module: str) -> Mapping[str, Any]:
        for override in self.overrides:
            if override.name == module:
                return override.keys
        for override in self.overrides:
            if override.pattern is not None and override.pattern.search(module):
                return override.keys
        return {}


def read_settings(config: Mapping[str, Any]) -> Settings:
    """The meaning of a `quantization_config`.

    Raises:
        CorruptFile: keys are missing or cannot be.
        UnsupportedModel: another method, or a variant that is not read yet.
    """
    method = config.get("quant_method", "gptq" if "desc_act" in config else None)
    if not isinstance(method, str):
        raise CorruptFile("The quantization config names no method.", _AGAIN)
    if "auto-round" in method:
        return _auto_round(config)
    if method == "gptq":
        return _gptq(config)
    raise UnsupportedModel(f"The model is quantized with {method[:40]!r}, which is not read yet.", _HINT)


def find_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The quantization config of a model: in its `config`, or in a file of its own beside it.

    Raises:
        BadInput: the model is not quantized.
        CorruptFile: what is there is no JSON object.
    """
    inside = config.get("quantization_config")
    if isinstance(inside, dict):
        return inside
    if inside is not None:
        raise CorruptFile(f"The quantization_config in {folder / 'config.json'} is not an object.", _AGAIN)
    for name in _CONFIG_FILES:
        if (folder / name).is_file():
            return read_object(folder / name)
    raise BadInput(f"The model in {folder} is not quantized.", "Choose a quantized model.")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; CorruptFile where it holds anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} is not a JSON object.", _AGAIN)
    return value


def _auto_round(config: Mapping[str, Any]) -> Settings:
    # Files from before packing_format had a name have GPTQ's layout, and transformers assumes so too.
    name = config.get("packing_format", "auto_round:auto_gptq")
    packing = _PACKINGS.get(name) if isinstance(name, str) else None
    if packing is None:
        raise UnsupportedModel(f"The packing {str(name)[:60]!r} is not read yet.", _HINT)
    extra = _table(config, "extra_config")
    overrides = tuple(
        Override(key, _pattern(key, anchored=False), _keys(value, key)) for key, value in extra.items() if value != {}
    )
    return Settings("auto-round", packing, _default(config), overrides, _blocks(config), desc_act=False)


def _gptq(config: Mapping[str, Any]) -> Settings:
    version = config.get("checkpoint_format") or config.get("format") or "gptq"
    if version not in ("gptq", "gptq_v2"):
        raise UnsupportedModel(
            f"The GPTQ checkpoint has the format {str(version)[:40]!r}, which is not read yet.", _HINT
        )
    if config.get("is_marlin_format") or config.get("pack_dtype", "int32") != "int32":
        raise UnsupportedModel("The GPTQ checkpoint is packed for a kernel of its own, which is not read yet.", _HINT)
    overrides = []
    for key, value in _table(config, "dynamic").items():
        # GPTQModel's rule: "-:" skips, "+:" or nothing overrides; matched from the start, the first match wins.
        skip = key.startswith("-:")
        pattern = _pattern(key.removeprefix("-:").removeprefix("+:"), anchored=True)
        overrides.append(Override(key, pattern, {"bits": 16} if skip else _keys(value, key)))
    return Settings(
        "gptq",
        GPTQ if version == "gptq" else GPTQ_V2,
        _default(config),
        tuple(overrides),
        _blocks(config),
        desc_act=config.get("desc_act") is True,
    )


def _default(config: Mapping[str, Any]) -> Claim:
    keys = _keys({"sym": True, **config}, "the whole model")
    if "bits" not in keys or "group_size" not in keys:
        raise CorruptFile("The quantization config lacks bits or group_size.", _AGAIN)
    return Claim(keys["bits"], keys["group_size"], keys["sym"])


def _keys(value: Any, where: str) -> dict[str, Any]:
    """bits, group_size and sym of an entry, each of the right type; anything but plain integers is refused."""
    if not isinstance(value, Mapping):
        raise CorruptFile(f"In the quantization config, the entry for {where[:80]} is not an object.", _AGAIN)
    kinds = {"bits": int, "group_size": int, "sym": bool}
    keys = {key: value[key] for key in kinds if value.get(key) is not None}
    for key, item in keys.items():
        if type(item) is not kinds[key]:
            raise CorruptFile(f"In the quantization config, {key} of {where[:80]} is {str(item)[:40]!r}.", _AGAIN)
    activations = value.get("act_bits")
    if isinstance(activations, int) and activations < 16:
        raise UnsupportedModel(f"Activations quantized to {activations} bits are not read yet.", _HINT)
    if keys.get("bits", 4) < 16 and value.get("data_type", "int") != "int":
        raise UnsupportedModel(f"Weights of the type {str(value['data_type'])[:40]!r} are not read yet.", _HINT)
    return keys


def _pattern(text: str, *, anchored: bool) -> re.Pattern[str] | None:
    try:
        return re.compile(rf"\A(?:{text})" if anchored else text)
    except (re.error, RecursionError, OverflowError):
        # AutoRound passes over what is no pattern; the name itself still counts.
        return None


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise CorruptFile(f"In the quantization config, {key} is not an object.", _AGAIN)
    return value


def _blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`block_name_to_quantize`: one name, several with commas, a list, or a list of lists of numbered blocks."""
    value = config.get("block_name_to_quantize") or config.get("to_quant_block_names") or []
    names: list[str] = []
    for item in value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []:
        first = item[0] if isinstance(item, list) and item else item
        if isinstance(first, str):
            names.append(re.sub(r"\.\d+\Z", "", first.strip()) if isinstance(item, list) else first.strip())
    return tuple(name for name in names if name)
