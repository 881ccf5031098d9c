"""Which scheme every linear layer gets: ordered rules over the checkpoint's own names.

Precedence: a layer set by hand (`layers`) beats every rule; among rules the last that matches wins; keys a
rule or a layer does not give are inherited from `default`. A glob matches the whole name and `*` crosses
dots; `/.../` is a regular expression search. Embeddings and lm_head change only by exact name. Knows nothing
of shapes: `LayerScheme.fit` says what a layer can really have.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import read_json, write_json
from core.schemes import LayerScheme

_SCHEME_KEYS = {"bits", "group_size", "sym"}


@dataclass(frozen=True)
class Rule:
    """A pattern and the keys it overrides."""

    match: str
    bits: int | None = None
    group_size: int | None = None
    sym: bool | None = None

    def __post_init__(self) -> None:
        _ = self.pattern
        self.apply(LayerScheme())

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The compiled pattern; use with `.search`."""
        if not isinstance(self.match, str) or not self.match:
            raise BadInput("A rule of the bits map has an empty pattern.", "Give a glob such as *.down_proj.")
        try:
            if len(self.match) > 2 and self.match.startswith("/") and self.match.endswith("/"):
                return re.compile(self.match[1:-1])
            return re.compile(rf"\A(?:{fnmatch.translate(self.match)})")
        except re.error as error:
            raise BadInput(f"The rule {self.match} is not a valid pattern: {error}.", "Correct the pattern.") from error

    def apply(self, scheme: LayerScheme) -> LayerScheme:
        """`scheme` with this rule's keys in place of its own."""
        return replace(scheme, **self.overrides())

    def overrides(self) -> dict[str, Any]:
        pairs = (("bits", self.bits), ("group_size", self.group_size), ("sym", self.sym))
        return {key: value for key, value in pairs if value is not None}


@dataclass(frozen=True)
class Assignment:
    """The scheme of one layer and why: `default`, `by hand`, or `rule N  PATTERN`."""

    scheme: LayerScheme
    why: str


@dataclass(frozen=True)
class BitsMap:
    """Default scheme, ordered rules, and layers set by hand."""

    default: LayerScheme = field(default_factory=LayerScheme)
    rules: tuple[Rule, ...] = ()
    layers: tuple[Rule, ...] = ()
    version: int = 1

    @cached_property
    def _by_hand(self) -> dict[str, Rule]:
        return {rule.match: rule for rule in self.layers}

    def resolve(self, name: str, *, exact_only: bool = False) -> Assignment:
        """The scheme of the layer called `name`; `exact_only` for embeddings and lm_head, 16 bits otherwise."""
        by_hand = self._by_hand.get(name)
        if by_hand is not None:
            return Assignment(by_hand.apply(self.default), "by hand")
        if exact_only:
            return Assignment(replace(self.default, bits=16), "embeddings and lm_head stay, unless named")
        for number in range(len(self.rules), 0, -1):
            rule = self.rules[number - 1]
            if rule.pattern.search(name):
                return Assignment(rule.apply(self.default), f"rule {number}  {rule.match}")
        return Assignment(self.default, "default")

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Patterns and names of this map that no layer in `names` answers to."""
        names = list(names)
        known = set(names)
        missing = [rule.match for rule in self.rules if not any(rule.pattern.search(name) for name in names)]
        return missing + [rule.match for rule in self.layers if rule.match not in known]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "default": self.default.to_json(),
            "rules": [{"match": rule.match, **rule.overrides()} for rule in self.rules],
            "layers": {rule.match: rule.overrides() for rule in self.layers},
        }

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def from_json(value: Any, default: LayerScheme | None = None) -> BitsMap:
    """A bits map from its JSON value; `default` fills the keys that the file's own default lacks.

    Raises:
        BadInput: an unknown version, key or value, said in one sentence.
    """
    hint = (
        'A bits map looks like {"version": 1, "default": {"bits": 4}, "rules": [{"match": "*.down_proj", "bits": 8}]}.'
    )
    if not isinstance(value, dict):
        raise BadInput("The bits map is not a JSON object.", hint)
    if value.get("version") != 1:
        raise BadInput(f"The bits map has version {value.get('version')!r}; this Bitwright reads version 1.", hint)
    unknown = set(value) - {"version", "default", "rules", "layers"}
    if unknown:
        raise BadInput(f"The bits map has an unknown part: {', '.join(sorted(unknown))}.", hint)
    rules, layers = value.get("rules", []), value.get("layers", {})
    if not isinstance(rules, list) or not isinstance(layers, dict):
        raise BadInput("In the bits map, rules must be a list and layers an object.", hint)
    base = Rule("default", **_scheme_keys(value.get("default", {}), "default"))
    return BitsMap(
        default=base.apply(default or LayerScheme()),
        rules=tuple(_rule(item) for item in rules),
        layers=tuple(Rule(name, **_scheme_keys(item, name)) for name, item in layers.items()),
    )


def load(path: Path, default: LayerScheme | None = None) -> BitsMap:
    """The bits map in a JSON file."""
    if not path.is_file():
        raise BadInput(f"There is no bits map at {path}.", "Check the path.")
    return from_json(read_json(path), default)


def _rule(item: Any) -> Rule:
    if not isinstance(item, dict) or not isinstance(item.get("match"), str):
        raise BadInput("A rule of the bits map has no match.", 'Write {"match": "*.down_proj", "bits": 8}.')
    rest = {key: value for key, value in item.items() if key != "match"}
    return Rule(item["match"], **_scheme_keys(rest, item["match"]))


def _scheme_keys(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or set(item) - _SCHEME_KEYS:
        raise BadInput(f"In the bits map, {where} has something other than bits, group_size and sym.", "Remove it.")
    return item
