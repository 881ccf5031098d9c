"""Bits map: the scheme of each linear layer, by ordered rules over the layer names of the checkpoint.

Precedence: a layer set by hand (`layers`) overrides all rules; of several matching rules the last one applies; missing
keys are inherited from `default`. A glob must match the whole name, and `*` also matches dots; `/.../` is a regular
expression search. Embeddings, lm_head and routers are changed by exact name only. Shapes are not checked here;
`LayerScheme.fit` adapts a scheme to the shape of a layer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

from core.errors import BadInput
from core.files import read_json, write_json
from core.schemes import UNTOUCHED, LayerScheme

_SCHEME_KEYS = {"bits", "group_size", "sym"}
_DEFAULT, _STAYS, _TOWERS = 0, -1, -2
"""Origins of a scheme other than the number of a rule."""
TOWER_BITS = (4, 8, UNTOUCHED)
"""Bits that a layer of a tower can have: with fewer, rounding without calibration would be coarse."""


@dataclass(frozen=True, eq=False)
class RuleKeys:
    """Keys that a rule overrides; created by `_keys` only, once per combination, so that equality is identity."""

    bits: int | None
    group_size: int | None
    sym: bool | None

    def apply(self, scheme: LayerScheme) -> LayerScheme:
        """Return `scheme` with these keys replaced."""
        return replace(scheme, **self.overrides())

    def overrides(self) -> dict[str, Any]:
        """Return the overridden keys and their values."""
        pairs = (("bits", self.bits), ("group_size", self.group_size), ("sym", self.sym))
        return {key: value for key, value in pairs if value is not None}


@dataclass(frozen=True)
class Rule:
    """A pattern, or in `BitsMap.layers` the name of a layer, with the keys that it overrides."""

    match: str
    bits: int | None = None
    group_size: int | None = None
    sym: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.match, str) or not self.match:
            raise BadInput("A rule of the bits map has an empty pattern.", "Give a glob such as *.down_proj.")
        if _is_expression(self.match):
            _ = self.pattern  # globs are always valid, and compiling 20,000 layer names would take seconds
        RuleKeys(self.bits, self.group_size, self.sym).apply(LayerScheme())

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The compiled pattern; use with `.search`."""
        return _compiled(self.match)

    @property
    def keys(self) -> RuleKeys:
        """Overridden keys."""
        return _keys(self.bits, self.group_size, self.sym)

    def apply(self, scheme: LayerScheme) -> LayerScheme:
        """Return `scheme` with the keys of this rule replaced."""
        return self.keys.apply(scheme)

    def overrides(self) -> dict[str, Any]:
        """Return the overridden keys and their values."""
        return self.keys.overrides()


class LayerOverrides(Sequence[Rule]):
    """Layers set by hand: a sequence of rules that stores only a name and shared keys for each layer.

    Attributes:
        keys: layer name -> overridden keys.
    """

    def __init__(self, keys: Mapping[str, RuleKeys]) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Rule]:
        return (Rule(name, keys.bits, keys.group_size, keys.sym) for name, keys in self.keys.items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LayerOverrides):
            return self.keys == other.keys
        return tuple(self) == other

    def __hash__(self) -> int:
        return hash(frozenset(self.keys.items()))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True)
class Assignment:
    """Scheme of a layer and its source: `default`, `by hand`, or `rule N  PATTERN`."""

    scheme: LayerScheme
    why: str


@dataclass(frozen=True)
class BitsMap:
    """A bits map: default scheme, ordered rules, and layers set by hand.

    Attributes:
        towers: bits of the linear layers of vision and audio towers and projectors, to which default and rules do not
            apply; UNTOUCHED to copy them.
    """

    default: LayerScheme = field(default_factory=LayerScheme)
    rules: tuple[Rule, ...] = ()
    layers: Sequence[Rule] = ()
    towers: int = UNTOUCHED
    version: int = 1

    def __post_init__(self) -> None:
        if type(self.towers) is not int or self.towers not in TOWER_BITS:
            raise BadInput(
                f"The layers of towers can have 4 or 8 bits, not {self.towers!r}.",
                "Choose 8 or 4 bits, or 16 bits, which copies the towers.",
            )
        if not isinstance(self.layers, LayerOverrides):
            object.__setattr__(self, "layers", LayerOverrides({rule.match: rule.keys for rule in self.layers}))

    @property
    def by_hand(self) -> Mapping[str, RuleKeys]:
        """Overridden keys of the layers set by hand, by name."""
        assert isinstance(self.layers, LayerOverrides)
        return self.layers.keys

    @cached_property
    def _assignments(self) -> dict[RuleKeys | int, Assignment]:
        """Cache of the assignments, by the keys of a layer set by hand or by origin."""
        return {}

    @cached_property
    def _winners(self) -> dict[str, int]:
        return _known_winners(tuple(rule.match for rule in self.rules))

    def resolve(self, name: str, *, exact_only: bool = False) -> Assignment:
        """Return the scheme of a layer; with `exact_only` (lm_head, routers) rules and default do not apply."""
        return self._assignment(self.by_hand.get(name) or (_STAYS if exact_only else self.winner(name)))

    def resolve_tower(self, name: str) -> Assignment:
        """Return the scheme of a layer of a tower."""
        stays = self.towers == UNTOUCHED
        return self._assignment(self.by_hand.get(name) or (_STAYS if stays else _TOWERS))

    def resolve_all(self, names: Sequence[str]) -> list[Assignment]:
        """Resolve many layers; layers with the same source share one `Assignment`."""
        reasons: list[RuleKeys | int | None] = list(map(self.by_hand.get, names))
        if self.rules:
            self._find_winners(names)
            winners = map(self._winners.__getitem__, names)
            reasons = [winner if keys is None else keys for keys, winner in zip(reasons, winners, strict=True)]
        assignments = {reason: self._assignment(reason or _DEFAULT) for reason in set(reasons)}
        return [assignments[reason] for reason in reasons]

    def winner(self, name: str) -> int:
        """Return the number, from 1, of the rule that applies to `name`; 0 for none."""
        if not self.rules:
            return _DEFAULT
        number = self._winners.get(name)
        if number is None:
            rules = self.rules
            found = (n for n in range(len(rules), 0, -1) if rules[n - 1].pattern.search(name))
            number = self._winners[name] = next(found, _DEFAULT)
        return number

    def _find_winners(self, names: Iterable[str]) -> None:
        """Put the number of the rule that applies to each name into the cache, for many names at once."""
        left = [name for name in names if name not in self._winners]
        if not left:
            return
        for number in range(len(self.rules), 0, -1):
            search = self.rules[number - 1].pattern.search
            found = {name for name in left if search(name)}
            self._winners.update(dict.fromkeys(found, number))
            left = [name for name in left if name not in found]
            if number == len(self.rules):
                # A map is often an earlier one with a rule more.
                earlier = _known_winners(tuple(rule.match for rule in self.rules[:-1]))
                self._winners.update((name, earlier[name]) for name in left if name in earlier)
                left = [name for name in left if name not in earlier]
            if not left:
                return
        self._winners.update(dict.fromkeys(left, _DEFAULT))

    def _assignment(self, reason: RuleKeys | int) -> Assignment:
        """Return the cached assignment for the keys of a layer, the number of a rule, or another origin."""
        found = self._assignments.get(reason)
        if found is None:
            found = self._assignments[reason] = self._make_assignment(reason)
        return found

    def _make_assignment(self, reason: RuleKeys | int) -> Assignment:
        if isinstance(reason, RuleKeys):
            return Assignment(reason.apply(self.default), "by hand")
        if reason == _STAYS:
            return Assignment(replace(self.default, bits=UNTOUCHED), "embeddings and lm_head stay, unless named")
        if reason == _TOWERS:
            return Assignment(replace(self.default, bits=self.towers), "bits of towers")
        if reason == _DEFAULT:
            return Assignment(self.default, "default")
        rule = self.rules[reason - 1]
        return Assignment(rule.apply(self.default), f"rule {reason}  {rule.match}")

    def unmatched(self, names: Iterable[str], exact_only: Iterable[str] = ()) -> list[str]:
        """Return the patterns that match no layer in `names`, and the layer names that are not in either argument."""
        names = list(names)
        known = {*names, *exact_only}
        self._find_winners(names)
        won = set(map(self._winners.__getitem__, names))
        missing = [
            rule.match
            for number, rule in enumerate(self.rules, 1)
            if number not in won and not any(map(rule.pattern.search, names))
        ]
        return missing + [name for name in self.by_hand if name not in known]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "default": self.default.to_json(),
            "rules": [{"match": rule.match, **rule.overrides()} for rule in self.rules],
            "layers": {name: keys.overrides() for name, keys in self.by_hand.items()},
            **({} if self.towers == UNTOUCHED else {"towers": self.towers}),
        }

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def with_layers(
    bits_map: BitsMap,
    names: Iterable[str],
    *,
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    exact_only: Collection[str] = (),
) -> BitsMap:
    """Return the bits map with the layers `names` set by hand; keys that are None do not change.

    A layer whose scheme then equals that of the rules and the default is not listed, so that it follows them.

    Args:
        exact_only: those of `names` to which rules do not apply (lm_head, routers).

    Raises:
        BadInput: a value is invalid.
    """
    given = Rule("given", bits, group_size, sym).overrides()
    names, apart = list(names), frozenset(exact_only)
    olds = list(map(bits_map.by_hand.get, names))
    bits_map._find_winners(names)
    origins = (
        [_STAYS if name in apart else bits_map._winners[name] for name in names]
        if bits_map.rules or apart
        else ([_DEFAULT] * len(names))
    )
    reasons = list(zip(olds, origins, strict=True))
    edits = {reason: _edited(bits_map, *reason, given) for reason in set(reasons)}
    layers = {**bits_map.by_hand}
    for name, reason in zip(names, reasons, strict=True):
        keys = edits[reason]
        if keys is not None:
            layers[name] = keys
        elif reason[0] is not None:
            layers.pop(name, None)
    return replace(bits_map, layers=LayerOverrides(layers))


def find(names: Sequence[str], text: str) -> list[int]:
    """Return the positions in `names` that match `text`: a glob or `/.../` as in a rule, else a part of the name.

    Raises:
        BadInput: the regular expression is invalid.
    """
    if _is_expression(text) or any(letter in text for letter in "*?["):
        search = _compiled(text).search
        return [index for index, name in enumerate(names) if search(name)]
    part = text.lower()
    return [index for index, name in enumerate(names) if part in name.lower()]


def from_json(value: Any, default: LayerScheme | None = None) -> BitsMap:
    """Return a bits map from its JSON value; `default` provides the keys that its default scheme lacks.

    Raises:
        BadInput: the version, a key or a value is unknown.
    """
    hint = (
        'A bits map looks like {"version": 1, "default": {"bits": 4}, "rules": [{"match": "*.down_proj", "bits": 8}]}.'
    )
    if not isinstance(value, dict):
        raise BadInput("The bits map is not a JSON object.", hint)
    if value.get("version") != 1:
        raise BadInput(f"The bits map has version {value.get('version')!r}; only version 1 is supported.", hint)
    unknown = set(value) - {"version", "default", "rules", "layers", "towers"}
    if unknown:
        raise BadInput(f"The bits map has an unknown part: {', '.join(sorted(unknown))}.", hint)
    rules, layers = value.get("rules", []), value.get("layers", {})
    if not isinstance(rules, list) or not isinstance(layers, dict):
        raise BadInput("In the bits map, rules must be a list and layers an object.", hint)
    base = Rule("default", **_scheme_keys(value.get("default", {}), "default"))
    return BitsMap(
        default=base.apply(default or LayerScheme()),
        rules=tuple(_rule(item) for item in rules),
        layers=_layers(layers),
        towers=value.get("towers", UNTOUCHED),
    )


def load(path: Path, default: LayerScheme | None = None) -> BitsMap:
    """Load a bits map from a JSON file."""
    if not path.is_file():
        raise BadInput(f"There is no bits map at {path}.", "Check the path.")
    return from_json(read_json(path, unique=True), default)


@cache
def _keys(bits: int | None, group_size: int | None, sym: bool | None) -> RuleKeys:
    return RuleKeys(bits, group_size, sym)


def _is_expression(match: str) -> bool:
    return len(match) > 2 and match.startswith("/") and match.endswith("/")


def _compiled(match: str) -> re.Pattern[str]:
    try:
        return re.compile(match[1:-1] if _is_expression(match) else rf"\A(?:{fnmatch.translate(match)})")
    except re.error as error:
        raise BadInput(f"The rule {match} is not a valid pattern: {error}.", "Correct the pattern.") from error


@lru_cache(maxsize=8)
def _known_winners(patterns: tuple[str, ...]) -> dict[str, int]:
    """Return a cache for `BitsMap.winner`, shared by all bits maps whose rules have these patterns."""
    return {}


def _edited(bits_map: BitsMap, old: RuleKeys | None, origin: int, given: dict[str, Any]) -> RuleKeys | None:
    """Return the keys of a layer after an edit; None if rules and default already give that scheme."""
    before: dict[str, Any] = {}
    if old is not None:
        before = old.overrides()
    elif origin == _STAYS:
        before = {"bits": UNTOUCHED}
    elif origin != _DEFAULT:
        before = bits_map.rules[origin - 1].overrides()
    keys = Rule("edited", **{**before, **given}).keys
    after, anyway = keys.apply(bits_map.default), bits_map._assignment(origin).scheme
    return None if after == anyway or not (after.quantized or anyway.quantized) else keys


def _rule(item: Any) -> Rule:
    if not isinstance(item, dict) or not isinstance(item.get("match"), str):
        raise BadInput("A rule of the bits map has no match.", 'Write {"match": "*.down_proj", "bits": 8}.')
    rest = {key: value for key, value in item.items() if key != "match"}
    return Rule(item["match"], **_scheme_keys(rest, item["match"]))


def _layers(items: dict[str, Any]) -> LayerOverrides:
    """Return the layers set by hand; equal overrides are checked only once."""
    checked: dict[str, RuleKeys] = {}
    made = {}
    for name, item in items.items():
        written = repr(item)
        if written not in checked or not name or _is_expression(name):
            checked[written] = Rule(name, **_scheme_keys(item, name)).keys
        made[name] = checked[written]
    return LayerOverrides(made)


def _scheme_keys(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or set(item) - _SCHEME_KEYS:
        raise BadInput(f"In the bits map, {where} has something other than bits, group_size and sym.", "Remove it.")
    return item
