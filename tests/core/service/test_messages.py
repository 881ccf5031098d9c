"""Tests that every request has a handler and that all messages survive encoding and decoding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bitsmap import LayerScheme
from core.codec import decode, encode
from core.sensitivity.spec import AnalysisSpec
from core.sensitivity.table import SensitivityTable
from core.service import calls, messages
from core.service.messages import Request, Sampling, result_type

REQUESTS: list[type[Request[Any]]] = [
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, Request) and value is not Request
]
JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


def dictionaries(kind: Any) -> st.SearchStrategy[Any]:
    """Return dictionaries of the given type, with JSON values for `Any`."""
    value = get_args(kind)[1]
    return st.dictionaries(st.text(max_size=4), JSON if value is Any else st.from_type(value), max_size=2)


st.register_type_strategy(dict, dictionaries)
st.register_type_strategy(Sequence, lambda kind: st.lists(st.from_type(get_args(kind)[0])).map(tuple))
st.register_type_strategy(Path, st.sampled_from([Path("/a"), Path("/a/b c"), Path("/ä/x.gguf")]))
st.register_type_strategy(Sampling, st.builds(Sampling, max_tokens=st.integers(1, 99), seed=st.none() | st.just(7)))
st.register_type_strategy(LayerScheme, st.sampled_from([LayerScheme(4, 64), LayerScheme(8, -1, False)]))
st.register_type_strategy(AnalysisSpec, st.just(AnalysisSpec("demo", (LayerScheme(2, 32),), samples=3)))
st.register_type_strategy(
    SensitivityTable, st.just(SensitivityTable("fisher", ("a", "b"), (LayerScheme(2, 32),), ((0.5,), (0.25,))))
)


def test_every_request_has_a_handler() -> None:
    assert set(calls.handlers()) == set(REQUESTS)


@pytest.mark.parametrize("kind", [*REQUESTS, *map(result_type, REQUESTS)], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_message_round_trip_through_json(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(st.from_type(kind))
    assert decode(kind, json.loads(json.dumps(encode(message), allow_nan=False))) == message


def test_pictures_of_a_message_arrive() -> None:
    say = messages.Say(
        ({"role": "user", "content": "What is this?", "pictures": ("/a/b.png", "data:image/png;base64,")},)
    )
    assert decode(messages.Say, json.loads(json.dumps(encode(say)))) == say
