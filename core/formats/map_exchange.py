"""Conversion of bits maps from and to other notations: AutoRound's `layer_config`, command lines, checkpoint configs.

An imported config is resolved to the scheme of each layer. Patterns become rules of the map if they have the same
meaning; all other layers are listed by name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import bitsmap
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError, ModelNotFound
from core.files import read_json
from core.formats.packing import PARTS, measure
from core.formats.patterns import is_simple
from core.formats.settings import LayerEntry, Settings, find_config, read_object, read_settings
from core.model.fused_experts import single_kind
from core.model.headers import TensorInfo, read_folder
from core.model.kept_layers import ROUTER, kept_names
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

_REPORT = "bitwright.json"


def to_layer_config(tree: ModelTree, bits_map: BitsMap) -> dict[str, dict[str, Any]]:
    """Return AutoRound's `layer_config` for a model: the layers that differ from the default of the map, by exact name.

    Names are those of the checkpoint, which AutoRound also uses if the checkpoint has the prefix of the base model. The
    default scheme is passed to AutoRound by its own options. A quantized head has every key, since the default does not
    apply to it. Routers that stay in 16 bits are not listed: AutoRound leaves them out, and many are no linear modules.
    """
    usual = bits_map.default.to_json()
    found: dict[str, dict[str, Any]] = {}
    for plan in resolve_schemes(tree, bits_map):
        scheme = plan.scheme
        if plan.linear.block < 0:
            keys = scheme.to_json() if scheme.quantized else {}
        elif not scheme.quantized:
            if plan.linear.kept == ROUTER:
                continue
            keys = {"bits": UNTOUCHED} if bits_map.default.quantized else {}
        else:
            keys = {key: value for key, value in scheme.to_json().items() if value != usual[key]}
        if keys:
            found[plan.linear.name] = keys
    return found


def to_command(bits_map: BitsMap, model: str = "MODEL", map_file: str = "map.json") -> str:
    """Return the command line that applies a map; a map with rules or listed layers is referred to as `map_file`."""
    default = bits_map.default
    words = ["bitwright", "quantize", model, "--output", "DIR"]
    if bits_map.rules or bits_map.by_hand:
        return shlex.join([*words, "--bits-map", map_file])
    words += ["--bits", str(default.bits), "--group-size", str(default.group_size)]
    return shlex.join([*words, "--sym" if default.sym else "--asym"])


def from_quantization_config(config: Mapping[str, Any], names: Sequence[str]) -> BitsMap:
    """Return the bits map that is equivalent to a `quantization_config` for the linear layers in `names`.

    Supports AutoRound's `extra_config`, GPTQModel's `dynamic` with GPTQ's `modules_in_block_to_quantize`, and AWQ's
    `modules_to_not_convert`. Names may lack the prefix of the base model.

    Raises:
        BadInput: bits or group sizes that a bits map does not support.
        CorruptFile, UnsupportedModel: see `read_settings`.
    """
    meaning = _awq(config) if config.get("quant_method") == "awq" else _of_settings(config, names)
    kept = kept_names(names)
    meaning = replace(meaning, kept=frozenset(map(meaning.module, kept)))
    expected = {}
    for name in names:
        module = meaning.module(name)
        scheme = meaning.scheme(module)
        if scheme is not None:
            expected[name] = scheme
    drafted = BitsMap(meaning.default, tuple(meaning.rules))
    return _renamed(drafted, expected, names, kept)


def from_checkpoint(folder: Path) -> BitsMap:
    """Return the bits map of a quantized checkpoint.

    This is the map in Bitwright's report if it matches the files, else a map derived from the config and the files.

    Raises:
        ModelNotFound: the folder does not exist or has no config.json.
        BadInput: the model is not quantized.
        CorruptFile, UnsupportedModel: the checkpoint cannot be read.
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
    names, packed = [single_kind(name) for name in names], set(map(single_kind, packed))
    kept = kept_names(names)
    expected = {}
    for name in names:
        scheme = drafted.resolve(name, exact_only=not _ruled(name, kept)).scheme
        if name not in packed:
            scheme = replace(drafted.default, bits=UNTOUCHED)
        elif not scheme.quantized:
            scheme = drafted.default
        expected[name] = scheme
    found = _repaired(drafted, expected, names, kept)
    return _reported(folder, config, tensors, expected, kept) or found


@dataclass(frozen=True)
class _Meaning:
    """A parsed quantization config.

    Attributes:
        default: default scheme.
        rules: in the order of a bits map (the last match wins), with patterns for module names.
        settings: the config; None for AWQ.
        prefix: function from a name in the checkpoint to a module name.
        head: whether the head is quantized.
        kinds: the only kinds of layers that are quantized; empty for all.
        skipped: patterns of layers that are not quantized.
        kept: modules in the blocks that stay in 16 bits if no override applies to them.
    """

    default: LayerScheme
    rules: Sequence[Rule]
    settings: Settings | None = None
    prefix: Any = str
    head: bool = False
    kinds: frozenset[str] = frozenset()
    skipped: Sequence[re.Pattern[str]] = ()
    kept: frozenset[str] = frozenset()

    def module(self, name: str) -> str:
        return str(self.prefix(name))

    def scheme(self, module: str) -> LayerScheme | None:
        """Return the scheme of a module; None for a module outside the blocks that the config does not mention."""
        ruled = _ruled(module, self.kept)
        if any(pattern.search(module) for pattern in self.skipped):
            return replace(self.default, bits=UNTOUCHED) if ruled else None
        if self.settings is None:
            return self.default if ruled else None
        if not ruled and not (self.head and not _inside(module)) and not self._covered(module):
            return None
        if ruled and self.kinds and not any(module.endswith(f".{kind}") for kind in self.kinds):
            return replace(self.default, bits=UNTOUCHED)
        return _scheme(self.settings.entry(module), self.default)

    def _covered(self, module: str) -> bool:
        """Return whether an override applies to a module."""
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
    # In a config the first match wins, in a bits map the last.
    for override in reversed(settings.overrides):
        if override.pattern is None or not is_simple(override.pattern.text):
            continue  # its layers are listed by name instead
        if sum(1 for module in modules if override.pattern.search(module)) < 2:
            continue  # a single layer is listed by name
        rules.append(Rule(f"/{override.pattern.pattern}/", **_rule_keys(override.keys)))
    return _Meaning(
        default, rules, settings, prefix, head=config.get("lm_head") is True, kinds=frozenset(_kinds(config))
    )


def _awq(config: Mapping[str, Any]) -> _Meaning:
    """Parse a config of AWQ: one scheme, and modules to skip as in `should_convert_module` of transformers 5.23."""
    sym = config.get("zero_point", True) is not True
    default = LayerScheme(config.get("bits", config.get("w_bit", 4)), config.get("group_size", 128), sym)
    kept = config.get("modules_to_not_convert") or []
    patterns = [_stays(key) for key in kept if isinstance(key, str) and key]
    rules = [Rule(f"/{pattern.pattern}/", bits=UNTOUCHED) for pattern in patterns]
    return _Meaning(default, rules, skipped=patterns)


def _stays(key: str) -> re.Pattern[str]:
    """Return a pattern for names that end with the key, or start with it up to a dot or the end."""
    ending = rf"{re.escape(key)}\Z"
    if not is_simple(key):
        return re.compile(ending)
    try:
        return re.compile(rf"\A(?:{key})(?:(?<=\.)|(?=\.|\Z))|{ending}")
    except re.error:
        return re.compile(ending)


def _kinds(config: Mapping[str, Any]) -> Iterable[str]:
    """Yield GPTQ's `modules_in_block_to_quantize`, the only kinds of layers that are quantized, from nested lists."""
    value = config.get("modules_in_block_to_quantize") or []
    for item in value if isinstance(value, list) else []:
        yield from (kind for kind in (item if isinstance(item, list) else [item]) if isinstance(kind, str))


def _scheme(entry: LayerEntry, default: LayerScheme) -> LayerScheme:
    if entry.bits >= UNTOUCHED:
        return replace(default, bits=UNTOUCHED)
    return LayerScheme(entry.bits, entry.group_size, entry.sym)


def _rule_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    if keys.get("bits", 0) >= UNTOUCHED:
        return {"bits": UNTOUCHED}
    return dict(keys)


def _ruled(name: str, kept: Collection[str]) -> bool:
    """Return whether the rules of a bits map apply to a layer: it is in a block, and no router or gate."""
    return _inside(name) and name not in kept


def _inside(name: str) -> bool:
    """Return whether a name is inside a numbered block."""
    return any(part.isdecimal() for part in name.split("."))


def _linear(name: str, info: TensorInfo, packed: set[str]) -> bool:
    """Return whether a tensor is the weight of a linear layer: packed, or a matrix in a block."""
    owner, _, part = name.rpartition(".")
    if part == "qweight":
        return True
    return part == "weight" and len(info.shape) == 2 and _inside(owner) and owner not in packed


def _renamed(
    drafted: BitsMap, expected: Mapping[str, LayerScheme], names: Sequence[str], kept: Collection[str]
) -> BitsMap:
    """Return `drafted` with the names that experts have in bits maps, repaired, without rules that match nothing."""
    names = [single_kind(name) for name in names]
    expected = {single_kind(name): scheme for name, scheme in expected.items()}
    matched = [rule for rule in drafted.rules if any(map(rule.pattern.search, (n for n in names if _ruled(n, kept))))]
    return _repaired(replace(drafted, rules=tuple(matched)), expected, names, kept)


def _repaired(
    drafted: BitsMap, expected: Mapping[str, LayerScheme], names: Sequence[str], kept: Collection[str]
) -> BitsMap:
    """Return `drafted` with a listed layer wherever its scheme differs from `expected`, without unknown names."""
    usual = drafted.default.to_json()
    layers = {rule.match: rule for rule in drafted.layers if rule.match in expected}
    for name in names:
        wanted = expected.get(name)
        if wanted is None or (name in layers and drafted.resolve(name).scheme == wanted):
            continue
        layers.pop(name, None)
        resolved = replace(drafted, layers=()).resolve(name, exact_only=not _ruled(name, kept)).scheme
        if resolved == wanted or not (resolved.quantized or wanted.quantized):
            continue
        keys = {key: value for key, value in wanted.to_json().items() if value != usual[key]}
        layers[name] = Rule(name, **(keys or {"bits": wanted.bits}))
    return replace(drafted, layers=tuple(layers.values()))


def _reported(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    expected: Mapping[str, LayerScheme],
    kept: Collection[str],
) -> BitsMap | None:
    """Return the map in Bitwright's report if it gives each layer the scheme in the files, else None."""
    try:
        reported = bitsmap.from_json(read_json(folder / _REPORT)["bits_map"])
        packing = read_settings(config).packing
    except (BitwrightError, KeyError, TypeError):
        return None
    if reported.unmatched(expected):
        return None
    stored = {single_kind(name.rpartition(".")[0]): name.rpartition(".")[0] for name in tensors}
    for name, scheme in expected.items():
        wanted = reported.resolve(name, exact_only=not _ruled(name, kept)).scheme
        file = stored[name]
        if scheme.quantized:
            found = measure(packing, {part: tensors[f"{file}.{part}"].shape for part in PARTS[:3]})
            shape = (found.in_features, found.out_features) if found else (0, 0)
        else:
            rows, columns = tensors[f"{file}.weight"].shape
            shape = (rows, columns)
        fitted = wanted.fit(*shape)[0]
        if fitted != scheme and (fitted.quantized or scheme.quantized):
            return None
    return reported
