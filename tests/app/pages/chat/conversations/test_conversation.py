"""Conversations: messages, branches, prompts for templates, and statistics."""

from __future__ import annotations

import pytest

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.live_statistics import LiveStatistics
from core.inference.generation.reply import Statistics


@pytest.fixture
def conversation() -> Conversation:
    conversation = Conversation()
    conversation.add("user", "hello")
    conversation.add("assistant", "hi")
    return conversation


def texts(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.path()]


def test_a_conversation_keeps_its_order(conversation: Conversation) -> None:
    conversation.add("user", "more")
    assert texts(conversation) == ["hello", "hi", "more"]


def test_a_new_conversation_is_empty() -> None:
    assert len(Conversation()) == 0
    assert Conversation().last is None


def test_another_answer_takes_the_place_of_the_last(conversation: Conversation) -> None:
    conversation.rewind()
    conversation.add("assistant", "good day")
    assert texts(conversation) == ["hello", "good day"]


def test_the_earlier_answer_can_be_shown_again(conversation: Conversation) -> None:
    first = conversation.last
    conversation.rewind()
    second = conversation.add("assistant", "good day")
    assert conversation.siblings(second) == [first, second]
    assert first is not None
    conversation.show(first)
    assert texts(conversation) == ["hello", "hi"]


def test_showing_a_message_brings_what_follows_it(conversation: Conversation) -> None:
    first = conversation.path()[0]
    conversation.add("user", "more")
    conversation.show(first)
    assert texts(conversation) == ["hello", "hi", "more"]


def test_an_answer_that_never_came_gives_way_to_the_one_before(conversation: Conversation) -> None:
    conversation.rewind()
    conversation.add("assistant", "")
    conversation.drop_last()
    assert texts(conversation) == ["hello", "hi"]


def test_dropping_the_only_answer_leaves_its_question(conversation: Conversation) -> None:
    conversation.drop_last()
    assert texts(conversation) == ["hello"]


def test_rewinding_a_question_does_nothing() -> None:
    conversation = Conversation()
    conversation.add("user", "hello")
    conversation.rewind()
    assert texts(conversation) == ["hello"]


def test_the_prompt_begins_with_the_system_prompt(conversation: Conversation) -> None:
    assert conversation.prompt("Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]


def test_a_blank_system_prompt_is_none(conversation: Conversation) -> None:
    assert conversation.prompt(" \n")[0]["role"] == "user"


def test_two_questions_in_a_row_become_one() -> None:
    """Many templates refuse them; the first stayed without an answer because it was stopped."""
    conversation = Conversation()
    conversation.add("user", "hello")
    conversation.add("user", "are you there?")
    assert conversation.prompt() == [{"role": "user", "content": "hello\n\nare you there?"}]


def test_an_empty_answer_is_not_sent(conversation: Conversation) -> None:
    conversation.add("user", "more")
    conversation.add("assistant", "")
    assert [message["content"] for message in conversation.prompt()] == ["hello", "hi", "more"]


def test_markdown_names_who_speaks(conversation: Conversation) -> None:
    text = conversation.to_markdown("tiny", "Be brief.")
    assert text == "# tiny\n\n**System prompt**\n\nBe brief.\n\n**You**\n\nhello\n\n**tiny**\n\nhi\n"


def test_used_context_is_what_was_read_and_what_was_said() -> None:
    assert Statistics(prompt_tokens=30, tokens=12).used == 42


def test_the_meter_measures_to_the_first_piece() -> None:
    meter = LiveStatistics(began=100.0)
    meter.piece("Once", 100.5)
    assert meter.figures.first_token_seconds == pytest.approx(0.5)


def test_the_meter_counts_speed_after_the_first_piece() -> None:
    meter = LiveStatistics(began=100.0, per_token=4.0)
    for number in range(5):
        meter.piece("word", 101.0 + number * 0.1)
    assert meter.figures.tokens_per_second == pytest.approx(10.0)
    assert meter.figures.tokens == 5


def test_the_meter_knows_nothing_before_the_first_piece() -> None:
    assert LiveStatistics(began=100.0).figures == Statistics()


# --- branches ---


def test_another_wording_of_a_question_begins_a_branch(conversation: Conversation) -> None:
    conversation.branch(conversation.path()[0], "good day")
    assert texts(conversation) == ["good day"]


def test_what_followed_a_question_stays_with_it(conversation: Conversation) -> None:
    first = conversation.path()[0]
    conversation.branch(first, "good day")
    conversation.show(first)
    assert texts(conversation) == ["hello", "hi"]


def test_wordings_of_a_question_stand_side_by_side(conversation: Conversation) -> None:
    first = conversation.path()[0]
    second = conversation.branch(first, "good day")
    assert conversation.siblings(first) == conversation.siblings(second) == [first, second]


def test_going_back_to_a_branch_shows_what_was_shown_of_it(conversation: Conversation) -> None:
    question, first = conversation.path()
    conversation.rewind()
    conversation.add("assistant", "good day")
    conversation.show(first)
    other = conversation.branch(question, "are you there?")
    conversation.show(question)
    assert texts(conversation) == ["hello", "hi"]
    conversation.show(other)
    assert texts(conversation) == ["are you there?"]


def test_a_question_goes_on_below_the_branch_that_is_shown(conversation: Conversation) -> None:
    conversation.branch(conversation.path()[0], "good day")
    conversation.add("assistant", "good day to you")
    assert [message["content"] for message in conversation.prompt()] == ["good day", "good day to you"]


def test_unwinding_brings_the_newest_answer_back(conversation: Conversation) -> None:
    conversation.rewind()
    conversation.add("assistant", "good day")
    conversation.rewind()
    conversation.unwind()
    assert texts(conversation) == ["hello", "good day"]


def test_what_was_thought_is_not_sent(conversation: Conversation) -> None:
    assert conversation.last is not None
    conversation.last.thinking = "What do they want?"
    assert conversation.prompt()[-1] == {"role": "assistant", "content": "hi"}


# --- names ---


def test_a_conversation_is_called_by_its_first_question(conversation: Conversation) -> None:
    assert conversation.name == "hello"


def test_a_long_question_is_cut(conversation: Conversation) -> None:
    other = Conversation()
    other.add("user", "word " * 40)
    assert len(other.name) <= 60
    assert other.name.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_a_title_wins(conversation: Conversation) -> None:
    conversation.title = "Greetings"
    assert conversation.name == "Greetings"


def test_every_conversation_has_an_id_of_its_own() -> None:
    assert Conversation().id != Conversation().id


def test_markdown_names_the_model_of_each_answer(conversation: Conversation) -> None:
    assert conversation.last is not None
    conversation.last.model = "small"
    assert "**small**\n\nhi" in conversation.to_markdown("big")


# --- pictures ---

CAT, DOG = f"/pictures/{'0' * 64}-cat.png", f"/pictures/{'1' * 64}-dog.png"


def test_a_message_of_pictures_alone_is_sent() -> None:
    conversation = Conversation()
    conversation.add("user", "", (CAT,))
    assert conversation.prompt() == [{"role": "user", "content": "", "pictures": (CAT,)}]


def test_joined_questions_keep_their_pictures() -> None:
    conversation = Conversation()
    conversation.add("user", "", (CAT,))
    conversation.add("user", "And this?", (DOG,))
    assert conversation.prompt() == [{"role": "user", "content": "And this?", "pictures": (CAT, DOG)}]


def test_pictures_can_be_left_out_of_a_prompt() -> None:
    conversation = Conversation()
    conversation.add("user", "Who is this?", (CAT,))
    assert conversation.prompt(pictures=False) == [{"role": "user", "content": "Who is this?"}]


def test_another_wording_has_pictures_of_its_own(conversation: Conversation) -> None:
    other = conversation.branch(conversation.path()[0], "hello", (CAT,))
    assert (conversation.siblings(other)[0].pictures, other.pictures) == ((), (CAT,))


def test_a_conversation_without_words_is_called_by_its_first_picture() -> None:
    conversation = Conversation()
    conversation.add("user", "", (CAT, DOG))
    assert conversation.name == "cat.png"


def test_markdown_names_the_pictures() -> None:
    conversation = Conversation()
    conversation.add("user", "Who?", (CAT, DOG))
    assert conversation.to_markdown("t").endswith("**You**\n\n*Picture: cat.png*\n\n*Picture: dog.png*\n\nWho?\n")
