"""A bits map in other notations and back: AutoRound's `layer_config`, command lines, configs of quantized checkpoints.

What comes in is resolved to the schemes that it means, layer by layer; rules are kept where they say the same, and what
they do not say is set by hand. Knows names and configs, no tensor's values.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import bitsmap
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError, ModelNotFound
from core.files import read_json
from core.formats.packing import PARTS, measure
from core.formats.patterns import tame
from core.formats.settings import LayerEntry, Settings, find_config, read_object, read_settings
from core.model.headers import TensorInfo, read_folder
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

_REPORT = "bitwright.json"


def to_layer_config(tree: ModelTree, bits_map: BitsMap) -> dict[str, dict[str, Any]]:
    """AutoRound's `layer_config` for a model: the layers by exact name that differ from the map's default.

    Names are the checkpoint's, which are AutoRound's own where the checkpoint has the base model's prefix. The default
    goes to AutoRound's own options. A quantized head carries every key, as it has no default.
    """
    usual = bits_map.default.to_json()
    found: dict[str, dict[str, Any]] = {}
    for plan in resolve_schemes(tree, bits_map):
        scheme = plan.scheme
        if plan.linear.block < 0:
            keys = scheme.to_json() if scheme.quantized else {}
        elif not scheme.quantized:
            keys = {"bits": UNTOUCHED} if bits_map.default.quantized else {}
        else:
            keys = {key: value for key, value in scheme.to_json().items() if value != usual[key]}
        if keys:
            found[plan.linear.name] = keys
    return found


def to_command(bits_map: BitsMap, model: str = "MODEL", map_file: str = "map.json") -> str:
    """The command line that runs a map; one with rules or layers of its own is expected in `map_file`."""
    default = bits_map.default
    words = ["bitwright", "quantize", model, "--output", "DIR"]
    if bits_map.rules or bits_map.by_hand:
        return shlex.join([*words, "--bits-map", map_file])
    words += ["--bits", str(default.bits), "--group-size", str(default.group_size)]
    return shlex.join([*words, "--sym" if default.sym else "--asym"])


def from_quantization_config(config: Mapping[str, Any], names: Sequence[str]) -> BitsMap:
    """The map that a checkpoint's `quantization_config` means for the linears in `names`, in blocks and outside.

    Reads AutoRound's `extra_config`, GPTQModel's `dynamic` with GPTQ's `modules_in_block_to_quantize`, and AWQ's
    `modules_to_not_convert`. Names may lack the base model's prefix.

    Raises:
        BadInput: bits or groups that no bits map can hold.
        CorruptFile, UnsupportedModel: see `read_settings`.
    """
    meaning = _awq(config) if config.get("quant_method") == "awq" else _of_settings(config, names)
    expected = {}
    for name in names:
        module = meaning.module(name)
        scheme = meaning.scheme(module)
        if scheme is not None:
            expected[name] = scheme
    drafted = BitsMap(meaning.default, tuple(meaning.rules))
    known = [rule for rule in drafted.rules if any(rule.pattern.search(name) for name in names if _inside(name))]
    return _repaired(replace(drafted, rules=tuple(known)), expected, names)


def from_checkpoint(folder: Path) -> BitsMap:
    """The map that a quantized checkpoint was made with.

    The one in Bitwright's own report, if the files bear it out; else what config and files say.

    Raises:
        ModelNotFound: no such folder. BadInput: it is not quantized.
        CorruptFile, UnsupportedModel: what is there cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"There is no model in {folder}: config.json is missing.", "Check the path.")
    config = find_config(folder, read_object(folder / "config.json"))
    tensors = read_folder(folder)
    packed = {name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")}
    names = list(
        dict.fromkeys(name.rpartition(".")[0] for name, info in tensors.items() if _linear(name, info, packed))
    )
    drafted = from_quantization_config(config, names)
    expected = {}
    for name in names:
        scheme = drafted.resolve(name, exact_only=not _inside(name)).scheme
        if name not in packed:
            scheme = replace(drafted.default, bits=UNTOUCHED)
        elif not scheme.quantized:
            scheme = drafted.default
        expected[name] = scheme
    found = _repaired(drafted, expected, names)
    return _reported(folder, config, tensors, expected) or found


@dataclass(frozen=True)
class _Meaning:
    """A config, read for exchange: `rules` in a map's order (the last wins), over the names of modules."""

    default: LayerScheme
    rules: Sequence[Rule]
    settings: Settings | None = None
    prefix: Any = str
    head: bool = False
    kinds: frozenset[str] = frozenset()
    skipped: Sequence[re.Pattern[str]] = ()

    def module(self, name: str) -> str:
        return str(self.prefix(name))

    def scheme(self, module: str) -> LayerScheme | None:
        """What the config says of a module; None where it does not speak of it and it lies outside the blocks."""
        if any(pattern.search(module) for pattern in self.skipped):
            return replace(self.default, bits=UNTOUCHED) if _inside(module) else None
        if self.settings is None:
            return self.default if _inside(module) else None
        if not _inside(module) and not self.head and not self._covered(module):
            return None
        if _inside(module) and self.kinds and not any(module.endswith(f".{kind}") for kind in self.kinds):
            return replace(self.default, bits=UNTOUCHED)
        return _scheme(self.settings.claim(module), self.default)

    def _covered(self, module: str) -> bool:
        """Whether an override speaks of a module."""
        assert self.settings is not None
        return any(
            override.name == module or (override.pattern is not None and override.pattern.search(module))
            for override in self.settings.overrides
        )


def _of_settings(config: Mapping[str, Any], names: Sequence[str]) -> _Meaning:
    read = read_settings(config)
    prefix = read.module_names(names)
    settings = read.among({prefix(name) for name in names})
    default = LayerScheme(settings.default.bits, settings.default.group_size, settings.default.sym)
    modules = [prefix(name) for name in names]
    rules = []
    # There the first match wins, in a map the last.
    for override in reversed(settings.overrides):
        if override.pattern is None or not tame(override.pattern.text):
            continue  # what it means is then said layer by layer
        if sum(1 for module in modules if override.pattern.search(module)) < 2:
            continue  # for one layer: its name says it
        rules.append(Rule(f"/{override.pattern.pattern}/", **_rule_keys(override.keys)))
    return _Meaning(
        default, rules, settings, prefix, head=config.get("lm_head") is True, kinds=frozenset(_kinds(config))
    )


def _awq(config: Mapping[str, Any]) -> _Meaning:
    """AWQ: one scheme, and modules that stay. Which those are is transformers' rule (`should_convert_module`, 5.23)."""
    sym = config.get("zero_point", True) is not True
    default = LayerScheme(config.get("bits", config.get("w_bit", 4)), config.get("group_size", 128), sym)
    kept = config.get("modules_to_not_convert") or []
    patterns = [_stays(key) for key in kept if isinstance(key, str) and key]
    rules = [Rule(f"/{pattern.pattern}/", bits=UNTOUCHED) for pattern in patterns]
    return _Meaning(default, rules, skipped=patterns)


def _stays(key: str) -> re.Pattern[str]:
    """A regular expression for the start of a name up to a dot or its end, or any name that ends with the key."""
    ending = rf"{re.escape(key)}\Z"
    if not tame(key):
        return re.compile(ending)
    try:
        return re.compile(rf"\A(?:{key})(?:(?<=\.)|(?=\.|\Z))|{ending}")
    except re.error:
        return re.compile(ending)


def _kinds(config: Mapping[str, Any]) -> Iterable[str]:
    """GPTQ's `modules_in_block_to_quantize`: the only kinds of layers that are quantized, in lists of lists."""
    value = config.get("modules_in_block_to_quantize") or []
    for item in value if isinstance(value, list) else []:
        yield from (kind for kind in (item if isinstance(item, list) else [item]) if isinstance(kind, str))


def _scheme(claim: LayerEntry, default: LayerScheme) -> LayerScheme:
    if claim.bits >= UNTOUCHED:
        return replace(default, bits=UNTOUCHED)
    return LayerScheme(claim.bits, claim.group_size, claim.sym)


def _rule_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    if keys.get("bits", 0) >= UNTOUCHED:
        return {"bits": UNTOUCHED}
    return dict(keys)


def _inside(name: str) -> bool:
    """Whether a name lies in a numbered block."""
    return any(part.isdecimal() for part in name.split("."))


def _linear(name: str, info: TensorInfo, packed: set[str]) -> bool:
    """Whether a tensor is the weight of a linear: packed, or a matrix in a block."""
    owner, _, part = name.rpartition(".")
    if part == "qweight":
        return True
    return part == "weight" and len(info.shape) == 2 and _inside(owner) and owner not in packed


def _repaired(drafted: BitsMap, expected: Mapping[str, LayerScheme], names: Sequence[str]) -> BitsMap:
    """`drafted` with layers by hand wherever it does not say what is expected; its own for unknown names go."""
    usual = drafted.default.to_json()
    layers = {rule.match: rule for rule in drafted.layers if rule.match in expected}
    for name in names:
        wanted = expected.get(name)
        if wanted is None or (name in layers and drafted.resolve(name).scheme == wanted):
            continue
        layers.pop(name, None)
        said = replace(drafted, layers=()).resolve(name, exact_only=not _inside(name)).scheme
        if said == wanted or not (said.quantized or wanted.quantized):
            continue
        keys = {key: value for key, value in wanted.to_json().items() if value != usual[key]}
        layers[name] = Rule(name, **(keys or {"bits": wanted.bits}))
    return replace(drafted, layers=tuple(layers.values()))


def _reported(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], expected: Mapping[str, LayerScheme]
) -> BitsMap | None:
    """The map in the report of the run that made a checkpoint, if it gives each layer what the files have."""
    try:
        told = bitsmap.from_json(read_json(folder / _REPORT)["bits_map"])
        packing = read_settings(config).packing
    except (BitwrightError, KeyError, TypeError):
        return None
    if told.unmatched(expected):
        return None
    for name, scheme in expected.items():
        wanted = told.resolve(name, exact_only=not _inside(name)).scheme
        if scheme.quantized:
            found = measure(packing, {part: tensors[f"{name}.{part}"].shape for part in PARTS[:3]})
            shape = (found.in_features, found.out_features) if found else (0, 0)
        else:
            rows, columns = tensors[f"{name}.weight"].shape
            shape = (rows, columns)
        fitted = wanted.fit(*shape)[0]
        if fitted != scheme and (fitted.quantized or scheme.quantized):
            return None
    return told
