"""Conversations as JSON: nothing is lost on the way, and what is no conversation is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.json_format import from_json, to_json
from core.errors import CorruptFile
from core.inference.generation.reply import Statistics


def branched() -> Conversation:
    talk = Conversation()
    talk.title, talk.model, talk.system = "Greetings", "tiny", "Be brief."
    question = talk.add("user", "hello")
    first = talk.add("assistant", "hi")
    first.figures, first.sampling, first.model = Statistics(30, 12, 0.5, 1.6, 10.0, "end", seed=7), {"seed": 7}, "tiny"
    first.thinking = "Hm."
    talk.branch(question, "good day")
    talk.add("assistant", "good day to you")
    talk.show(first)
    return talk


def back(talk: Conversation) -> Conversation:
    return from_json(json.loads(json.dumps(to_json(talk))))


def test_everything_comes_back() -> None:
    talk = branched()
    assert list(back(talk)) == list(talk)
    assert to_json(back(talk)) == to_json(talk)


def test_the_shown_branch_comes_back() -> None:
    assert [message.text for message in back(branched()).path()] == ["hello", "hi"]


def test_the_other_branch_can_still_be_shown() -> None:
    talk = back(branched())
    other = talk.siblings(talk.path()[0])[1]
    talk.show(other)
    assert [message.text for message in talk.path()] == ["good day", "good day to you"]


def test_what_is_added_gets_an_id_of_its_own() -> None:
    talk = back(branched())
    assert talk.add("user", "more").id == 4


def test_the_id_can_be_another_one() -> None:
    assert from_json(to_json(branched()), "other").id == "other"


@given(st.lists(st.tuples(st.sampled_from(["add", "branch", "again", "show"]), st.integers(0, 30)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back(steps: list[tuple[str, int]]) -> None:
    talk = Conversation()
    for act, number in steps:
        messages = list(talk)
        if act == "add" or not messages:
            last = talk.last
            talk.add("assistant" if last is not None and last.role == "user" else "user", f"text {number}")
        elif act == "branch":
            talk.branch(messages[number % len(messages)], f"anew {number}")
        elif act == "again":
            talk.rewind()
        else:
            talk.show(messages[number % len(messages)])
    found = back(talk)
    assert list(found) == list(talk)
    # a question whose answer was about to be another one shows its newest answer again
    assert [message.id for message in found.path()][: len(talk)] == [message.id for message in talk.path()]


def test_messages_of_another_program_are_read() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]
    for value in (messages, {"messages": messages}):
        talk = from_json(value)
        assert [message.text for message in talk.path()] == ["hello", "hi"]
        assert talk.system == "Be brief."


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": 0, "parent": None, "role": "user", "text": "hello", **changes}


def own(*messages: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "bitwright-conversation", "version": 1, "id": "x", "messages": list(messages), **changes}


@pytest.mark.parametrize(
    "value",
    [
        None, 7, "text", [], {}, {"messages": "none"}, [{"role": "tool", "content": "x"}], [{"role": "user"}],
        {"messages": [3]}, own(entry(), version=2), own(entry(), entry()), own(entry(parent=5)), own(entry(parent=0)),
        own(entry(id=-1)), own(entry(id="0")), own(entry(role="system")), own(7), own(entry(sampling=3)),
        {"kind": "bitwright-conversation", "version": 1},
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused(value: Any) -> None:
    with pytest.raises(CorruptFile):
        from_json(value)


def test_odd_values_on_the_side_do_no_harm() -> None:
    talk = from_json(own(entry(figures={"tokens": "many"}, thinking=3), title=5, updated="never"))
    assert talk.title == ""
    assert next(iter(talk)).figures == Statistics()
