"""Messages, branches, what a template gets, and the figures of answers."""

from __future__ import annotations

import pytest

from app.pages.chat.answer_figures import Meter
from app.pages.chat.conversations.conversation import Conversation
from core.inference.generation.reply import Statistics


@pytest.fixture
def talk() -> Conversation:
    talk = Conversation()
    talk.add("user", "hello")
    talk.add("assistant", "hi")
    return talk


def texts(talk: Conversation) -> list[str]:
    return [message.text for message in talk.path()]


def test_a_conversation_keeps_its_order(talk: Conversation) -> None:
    talk.add("user", "more")
    assert texts(talk) == ["hello", "hi", "more"]


def test_a_new_conversation_is_empty() -> None:
    assert len(Conversation()) == 0
    assert Conversation().last is None


def test_another_answer_takes_the_place_of_the_last(talk: Conversation) -> None:
    talk.rewind()
    talk.add("assistant", "good day")
    assert texts(talk) == ["hello", "good day"]


def test_the_earlier_answer_can_be_shown_again(talk: Conversation) -> None:
    first = talk.last
    talk.rewind()
    second = talk.add("assistant", "good day")
    assert talk.siblings(second) == [first, second]
    assert first is not None
    talk.show(first)
    assert texts(talk) == ["hello", "hi"]


def test_showing_a_message_brings_what_follows_it(talk: Conversation) -> None:
    first = talk.path()[0]
    talk.add("user", "more")
    talk.show(first)
    assert texts(talk) == ["hello", "hi", "more"]


def test_an_answer_that_never_came_gives_way_to_the_one_before(talk: Conversation) -> None:
    talk.rewind()
    talk.add("assistant", "")
    talk.drop_last()
    assert texts(talk) == ["hello", "hi"]


def test_dropping_the_only_answer_leaves_its_question(talk: Conversation) -> None:
    talk.drop_last()
    assert texts(talk) == ["hello"]


def test_rewinding_a_question_does_nothing() -> None:
    talk = Conversation()
    talk.add("user", "hello")
    talk.rewind()
    assert texts(talk) == ["hello"]


def test_the_prompt_begins_with_the_system_prompt(talk: Conversation) -> None:
    assert talk.prompt("Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]


def test_a_blank_system_prompt_is_none(talk: Conversation) -> None:
    assert talk.prompt(" \n")[0]["role"] == "user"


def test_two_questions_in_a_row_become_one() -> None:
    """Many templates refuse them; the first stayed without an answer because it was stopped."""
    talk = Conversation()
    talk.add("user", "hello")
    talk.add("user", "are you there?")
    assert talk.prompt() == [{"role": "user", "content": "hello\n\nare you there?"}]


def test_an_empty_answer_is_not_sent(talk: Conversation) -> None:
    talk.add("user", "more")
    talk.add("assistant", "")
    assert [message["content"] for message in talk.prompt()] == ["hello", "hi", "more"]


def test_markdown_names_who_speaks(talk: Conversation) -> None:
    text = talk.to_markdown("tiny", "Be brief.")
    assert text == "# tiny\n\n**System prompt**\n\nBe brief.\n\n**You**\n\nhello\n\n**tiny**\n\nhi\n"


def test_used_context_is_what_was_read_and_what_was_said() -> None:
    assert Statistics(prompt_tokens=30, tokens=12).used == 42


def test_the_meter_measures_to_the_first_piece() -> None:
    meter = Meter(began=100.0)
    meter.piece("Once", 100.5)
    assert meter.figures.first_token_seconds == pytest.approx(0.5)


def test_the_meter_counts_speed_after_the_first_piece() -> None:
    meter = Meter(began=100.0, per_token=4.0)
    for number in range(5):
        meter.piece("word", 101.0 + number * 0.1)
    assert meter.figures.tokens_per_second == pytest.approx(10.0)
    assert meter.figures.tokens == 5


def test_the_meter_knows_nothing_before_the_first_piece() -> None:
    assert Meter(began=100.0).figures == Statistics()


# --- branches ---


def test_another_wording_of_a_question_begins_a_branch(talk: Conversation) -> None:
    talk.branch(talk.path()[0], "good day")
    assert texts(talk) == ["good day"]


def test_what_followed_a_question_stays_with_it(talk: Conversation) -> None:
    first = talk.path()[0]
    talk.branch(first, "good day")
    talk.show(first)
    assert texts(talk) == ["hello", "hi"]


def test_wordings_of_a_question_stand_side_by_side(talk: Conversation) -> None:
    first = talk.path()[0]
    second = talk.branch(first, "good day")
    assert talk.siblings(first) == talk.siblings(second) == [first, second]


def test_going_back_to_a_branch_shows_what_was_shown_of_it(talk: Conversation) -> None:
    question, first = talk.path()
    talk.rewind()
    talk.add("assistant", "good day")
    talk.show(first)
    other = talk.branch(question, "are you there?")
    talk.show(question)
    assert texts(talk) == ["hello", "hi"]
    talk.show(other)
    assert texts(talk) == ["are you there?"]


def test_a_question_goes_on_below_the_branch_that_is_shown(talk: Conversation) -> None:
    talk.branch(talk.path()[0], "good day")
    talk.add("assistant", "good day to you")
    assert [message["content"] for message in talk.prompt()] == ["good day", "good day to you"]


def test_unwinding_brings_the_newest_answer_back(talk: Conversation) -> None:
    talk.rewind()
    talk.add("assistant", "good day")
    talk.rewind()
    talk.unwind()
    assert texts(talk) == ["hello", "good day"]


def test_what_was_thought_is_not_sent(talk: Conversation) -> None:
    assert talk.last is not None
    talk.last.thinking = "What do they want?"
    assert talk.prompt()[-1] == {"role": "assistant", "content": "hi"}


# --- names ---


def test_a_conversation_is_called_by_its_first_question(talk: Conversation) -> None:
    assert talk.name == "hello"


def test_a_long_question_is_cut(talk: Conversation) -> None:
    other = Conversation()
    other.add("user", "word " * 40)
    assert len(other.name) <= 60
    assert other.name.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_a_title_wins(talk: Conversation) -> None:
    talk.title = "Greetings"
    assert talk.name == "Greetings"


def test_every_conversation_has_an_id_of_its_own() -> None:
    assert Conversation().id != Conversation().id


def test_markdown_names_the_model_of_each_answer(talk: Conversation) -> None:
    assert talk.last is not None
    talk.last.model = "small"
    assert "**small**\n\nhi" in talk.to_markdown("big")
