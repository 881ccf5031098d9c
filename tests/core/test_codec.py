"""Tests of the JSON codec: round trips of dataclasses, and errors with the name of the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.codec import decode, encode


class _Named(TypedDict):
    name: str


class Item(_Named, total=False):
    sizes: Sequence[int]


@dataclass(frozen=True)
class Inner:
    name: str
    size: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rows: tuple[Inner, ...]
    pair: tuple[str, int]
    folder: Path
    kind: Literal["one", "two"]
    number: float
    share: float | None
    flags: dict[str, bool]
    table: Mapping[str, tuple[Inner, ...]]
    free: dict[str, Any]
    words: list[str] = field(default_factory=list)
    note: str = ""


NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INNER = st.builds(Inner, NAMES, st.lists(st.integers(), max_size=3).map(tuple))
ROWS = st.lists(INNER, max_size=3).map(tuple)
OUTER = st.builds(
    Outer,
    inner=INNER,
    rows=ROWS,
    pair=st.tuples(NAMES, st.integers()),
    folder=st.sampled_from([Path("/a/b"), Path("c d")]),
    kind=st.sampled_from(["one", "two"]),
    number=NUMBERS,
    share=st.none() | NUMBERS,
    flags=st.dictionaries(NAMES, st.booleans(), max_size=2),
    table=st.dictionaries(NAMES, ROWS, max_size=2),
    free=st.dictionaries(NAMES, st.none() | st.integers() | st.lists(NAMES, max_size=2), max_size=2),
    words=st.lists(NAMES, max_size=2),
    note=NAMES,
)
VALUES = {
    "inner": {"name": "a"}, "rows": [], "pair": ["a", 1], "folder": "/a", "kind": "one", "number": 1.5, "share": None,
    "flags": {}, "table": {}, "free": {},
}  # fmt: skip


@given(OUTER)
def test_a_dataclass_comes_back_from_its_json(value: Outer) -> None:
    assert decode(Outer, json.loads(json.dumps(encode(value), allow_nan=False))) == value


def test_missing_fields_have_their_default_and_unknown_ones_are_ignored() -> None:
    found = decode(Outer, {**VALUES, "color": "red"})
    assert (found.words, found.note, found.inner.size) == ([], "", ())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null_and_then_nan(number: float) -> None:
    assert encode(Outer(**{**vars(decode(Outer, VALUES)), "number": number}))["number"] is None
    assert math.isnan(decode(Outer, {**VALUES, "number": None}).number)


def test_whole_numbers_are_numbers() -> None:
    assert type(decode(Outer, {**VALUES, "number": 3}).number) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inner", {}), ("inner", []), ("rows", {"name": "a"}), ("rows", [{"name": 3}]), ("pair", ["a"]),
        ("pair", ["a", True]), ("folder", None), ("kind", "three"), ("number", "1"), ("number", True),
        ("number", 10**400), ("share", "much"), ("flags", {"a": 1}), ("table", {"a": [3]}), ("free", []),
        ("words", "text"), ("note", None),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"Outer.{name}"):
        decode(Outer, {**VALUES, name: value})


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(TypeError, match="pair"):
        decode(Outer, {name: value for name, value in VALUES.items() if name != "pair"})


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be encoded"):
        encode({"value": object()})


@pytest.mark.parametrize("item", [{"name": "a"}, {"name": "a", "sizes": [1, 2]}])
def test_typed_dictionaries_are_decoded(item: dict[str, Any]) -> None:
    assert decode(tuple[Item, ...], [item]) == ({**item, **({"sizes": (1, 2)} if "sizes" in item else {})},)


@pytest.mark.parametrize(("value", "words"), [({}, "name is missing"), ({"name": 1}, "Item.name: 1 is not str")])
def test_invalid_typed_dictionary_is_an_error_with_the_name_of_the_item(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        decode(Item, value)


def test_unknown_items_of_a_typed_dictionary_are_ignored() -> None:
    assert decode(Item, {"name": "a", "colour": 1}) == {"name": "a"}
