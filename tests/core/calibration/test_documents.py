"""Tests of the extraction of documents from records, and of the cutting of long texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calibration.documents import Document, cut, from_record, is_conversation

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
        ({"messages": [*MESSAGES, {"content": "who?"}]}, None),
        (MESSAGES, Document(messages=TURNS)),
        ({"messages": json.dumps(MESSAGES)}, Document(messages=TURNS)),
        ({"text": json.dumps(MESSAGES)}, Document(messages=TURNS)),
        ({"conversation": {"messages": MESSAGES}}, Document(messages=TURNS)),
        ({"body": {"messages": MESSAGES}, "method": "POST"}, Document(messages=TURNS)),
        ({"dialog": ["Why?", "Because."]}, Document(messages=TURNS)),
        ({"conversation": [{"human": "Why?", "assistant": "Because."}]}, Document(messages=TURNS)),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, Document(messages=TURNS)),
        ({"prompt": "Why?", "chosen": MESSAGES, "rejected": MESSAGES}, Document(messages=TURNS)),
        ({"chosen": MESSAGES, "rejected": MESSAGES}, Document(messages=TURNS)),
        ({"chosen": "Human: Why?", "rejected": "x"}, Document("Human: Why?")),
        ({"question": "Why?", "answer": "Because.", "history": [["Add\n\n1 2", "3"]]}, Document(messages=SUM + TURNS)),
        ({"system": "Be brief.", "conversations": SHARED}, Document(messages=(("system", "Be brief."), *TURNS))),
        ({"text": ["one", "two"]}, Document("one\n\ntwo")),
        ({"prompt": "no answer"}, Document("no answer")),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1]}, None),
        (3, None),
        ([], None),
    ],
)  # fmt: skip
def test_the_text_of_a_record(record: object, expected: Document | None) -> None:
    assert from_record(record) == expected


def test_arguments_of_tool_calls_are_parsed_for_the_template() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    turns = [MESSAGES[0], called, {"role": "tool", "content": "42"}]
    found = from_record({"messages": turns, "tools": [{"name": "f"}]})
    assert found is not None
    assert [turn["role"] for turn in found.turns] == ["user", "assistant", "tool"]
    assert found.turns[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert found.tools == ({"name": "f"},)
    assert '"name": "f"' in found.messages[1][1]


def test_a_list_of_records_is_not_a_conversation() -> None:
    assert not is_conversation([{"author": "Poe", "content": "The Raven"}, {"author": "Yeats", "content": "The Tower"}])
    assert is_conversation(MESSAGES)


def test_only_the_given_field_is_read() -> None:
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
def test_no_piece_is_longer_than_the_size(text: str, size: int) -> None:
    assert all(0 < len(piece) <= size for piece in cut(text, size))


def test_a_piece_ends_at_a_paragraph_where_it_can() -> None:
    assert list(cut("one two\n\nthree four five", 12)) == ["one two\n\n", "three four ", "five"]
