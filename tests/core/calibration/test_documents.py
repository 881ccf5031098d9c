"""Which text a record holds, and how long texts are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calibration.documents import Document, cut, from_record

TURNS = (("user", "Why?"), ("assistant", "Because."))
MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
SHARED = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]
SUM = (("user", "Add\n\n1 2"), ("assistant", "3"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("plain", Document("plain")),
        ({"text": "a"}, Document("a")),
        ({"content": "b", "id": 3}, Document("b")),
        ({"article": "c"}, Document("c")),
        ({"text": None, "content": "d"}, Document("d")),
        ({"messages": MESSAGES}, Document(messages=TURNS)),
        ({"conversations": SHARED}, Document(messages=TURNS)),
        ({"messages": PARTS}, Document(messages=TURNS[:1])),
        ({"prompt": "Why?", "completion": "Because."}, Document(messages=TURNS)),
        ({"question": "Why?", "answer": "Because."}, Document(messages=TURNS)),
        ({"instruction": "Add", "input": "1 2", "output": "3"}, Document(messages=SUM)),
        ({"text": " \n"}, None),
        ({"text": 3}, None),
        ({"messages": []}, None),
        ({"messages": ["hello", {"role": 3, "content": "x"}]}, None),
        ({"prompt": "no answer"}, None),
        (3, None),
        ([], None),
    ],
)  # fmt: skip
def test_the_text_of_a_record(record: object, expected: Document | None) -> None:
    assert from_record(record) == expected


def test_a_named_field_is_read_and_no_other() -> None:
    assert from_record({"text": "a", "poem": "b"}, "poem") == Document("b")


def test_half_a_surrogate_pair_does_not_reach_a_tokenizer() -> None:
    found = from_record({"text": "a\ud800b"})
    assert found is not None
    assert found.text == "a?b"


def test_a_conversation_as_plain_text() -> None:
    assert Document(messages=TURNS).plain() == "User: Why?\n\nAssistant: Because."


@given(st.text(alphabet="ab. \n", max_size=300), st.integers(1, 40))
def test_cutting_loses_nothing(text: str, size: int) -> None:
    assert "".join(cut(text, size)) == text


@given(st.text(alphabet="ab. \n", max_size=300), st.integers(4, 40))
def test_no_piece_is_longer_than_asked(text: str, size: int) -> None:
    assert all(0 < len(piece) <= size for piece in cut(text, size))


def test_a_piece_ends_at_a_paragraph_where_it_can() -> None:
    assert list(cut("one two\n\nthree four five", 12)) == ["one two\n\n", "three four ", "five"]
