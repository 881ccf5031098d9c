"""The JSON format of conversations: lossless round trip, and refusal of invalid input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.json_format import from_json, to_json
from app.pages.chat.conversations.picture_files import PictureFiles
from core.errors import CorruptFile
from core.inference.generation.reply import Statistics


def branched() -> Conversation:
    conversation = Conversation()
    conversation.title, conversation.model, conversation.system = "Greetings", "tiny", "Be brief."
    question = conversation.add("user", "hello")
    first = conversation.add("assistant", "hi")
    first.figures, first.sampling, first.model = Statistics(30, 12, 0.5, 1.6, 10.0, "end", seed=7), {"seed": 7}, "tiny"
    first.thinking = "Hm."
    conversation.branch(question, "good day")
    conversation.add("assistant", "good day to you")
    conversation.show(first)
    return conversation


def back(conversation: Conversation) -> Conversation:
    return from_json(json.loads(json.dumps(to_json(conversation))))


def test_everything_comes_back() -> None:
    conversation = branched()
    assert list(back(conversation)) == list(conversation)
    assert to_json(back(conversation)) == to_json(conversation)


def test_the_shown_branch_comes_back() -> None:
    assert [message.text for message in back(branched()).path()] == ["hello", "hi"]


def test_the_other_branch_can_still_be_shown() -> None:
    conversation = back(branched())
    other = conversation.siblings(conversation.path()[0])[1]
    conversation.show(other)
    assert [message.text for message in conversation.path()] == ["good day", "good day to you"]


def test_what_is_added_gets_an_id_of_its_own() -> None:
    conversation = back(branched())
    assert conversation.add("user", "more").id == 4


def test_the_id_can_be_another_one() -> None:
    assert from_json(to_json(branched()), "other").id == "other"


@given(st.lists(st.tuples(st.sampled_from(["add", "branch", "again", "show"]), st.integers(0, 30)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back(steps: list[tuple[str, int]]) -> None:
    conversation = Conversation()
    for act, number in steps:
        messages = list(conversation)
        if act == "add" or not messages:
            last = conversation.last
            conversation.add("assistant" if last is not None and last.role == "user" else "user", f"text {number}")
        elif act == "branch":
            conversation.branch(messages[number % len(messages)], f"anew {number}")
        elif act == "again":
            conversation.rewind()
        else:
            conversation.show(messages[number % len(messages)])
    found = back(conversation)
    assert list(found) == list(conversation)
    # a question whose answer was about to be another one shows its newest answer again
    assert [message.id for message in found.path()][: len(conversation)] == [
        message.id for message in conversation.path()
    ]


def test_messages_of_another_program_are_read() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]
    for value in (messages, {"messages": messages}):
        conversation = from_json(value)
        assert [message.text for message in conversation.path()] == ["hello", "hi"]
        assert conversation.system == "Be brief."


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": 0, "parent": None, "role": "user", "text": "hello", **changes}


def own(*messages: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "bitwright-conversation", "version": 1, "id": "x", "messages": list(messages), **changes}


@pytest.mark.parametrize(
    "value",
    [
        None, 7, "text", [], {}, {"messages": "none"}, [{"role": "tool", "content": "x"}], [{"role": "user"}],
        {"messages": [3]}, own(entry(), version=3), own(entry(), entry()), own(entry(parent=5)), own(entry(parent=0)),
        own(entry(id=-1)), own(entry(id="0")), own(entry(role="system")), own(7), own(entry(sampling=3)),
        own(entry(pictures=3)), own(entry(pictures=[3])), own(entry(pictures=["../x.png"])),
        {"kind": "bitwright-conversation", "version": 1},
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused(value: Any) -> None:
    with pytest.raises(CorruptFile):
        from_json(value)


def test_odd_values_on_the_side_do_no_harm() -> None:
    conversation = from_json(own(entry(figures={"tokens": "many"}, thinking=3), title=5, updated="never"))
    assert conversation.title == ""
    assert next(iter(conversation)).figures == Statistics()


PICTURE = f"{'0' * 64}-cat.png"


def test_a_picture_is_stored_by_the_name_of_its_copy(tmp_path: Path) -> None:
    conversation = Conversation()
    conversation.add("user", "", (str(tmp_path / PICTURE),))
    value = to_json(conversation)
    assert value["messages"][0]["pictures"] == [PICTURE]
    found = from_json(value, pictures=PictureFiles(tmp_path / "moved"))
    assert found.path()[0].pictures == (str(tmp_path / "moved" / PICTURE),)


def test_only_a_conversation_with_pictures_has_the_version_that_older_programs_refuse(tmp_path: Path) -> None:
    conversation = branched()
    assert to_json(conversation)["version"] == 1
    conversation.add("user", "", (str(tmp_path / PICTURE),))
    assert to_json(conversation)["version"] == 2
