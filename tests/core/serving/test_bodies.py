"""Tests of strict JSON parsing: ambiguous or invalid requests are refused with the field's name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.serving.bodies import parsed
from core.serving.request_errors import RequestError


def refusal(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parsed(data)
    return caught.value


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('{"model": "\\ud83d"}', "model"),
        ('{"messages": [{"content": "a \\ude00 b"}]}', "messages[0].content"),
        ('{"messages": [{"content": [{"text": "\\ud83d"}]}]}', "messages[0].content[0].text"),
        ('{"stop": ["a", "\\udfff"]}', "stop[1]"),
        ('{"\\ud83d": 1}', ""),
        ('{"a": {"\\ud83d": 1}}', "a"),
    ],
)
def test_an_unpaired_surrogate_is_refused_with_its_field(text: str, param: str) -> None:
    found = refusal(text.encode())
    assert (found.status, found.param) == (400, param)
    json.dumps(found.body(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"temperature": NaN}', "NaN"), (b'{"temperature": -Infinity}', "Infinity"), (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"), (b'{"stream": true, "stream": false}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"), (b'{"a":' * 70 + b"1" + b"}" * 70, "too deep"),
        (b'{"a":' * 100_000, "too deep"), (b'{"a": "caf\xe9"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"", "Expecting value"), (b"[]", "an object"), (b'{"a": 1} x', "Extra data"), (b"\x00", "Expecting value"),
    ],
)  # fmt: skip
def test_ambiguous_json_is_refused(data: bytes, words: str) -> None:
    found = refusal(data)
    assert (found.status, found.code) == (400, "invalid_json")
    assert words in found.message


def test_a_byte_order_mark_is_accepted() -> None:
    assert parsed(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.floats(allow_nan=False, allow_infinity=False)))
def test_valid_json_is_parsed(value: dict[str, object]) -> None:
    assert parsed(json.dumps(value).encode()) == value
