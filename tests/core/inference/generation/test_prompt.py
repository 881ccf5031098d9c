"""Conversations in a model's own format: templates and their whims, thoughts, continuing, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from core.errors import BadInput
from core.inference.generation.prompt import SYSTEM_IN_QUESTION, Message, PromptWriter
from core.model import chat_template
from core.model.tokenizer import load_tokenizer
from tests.core.tiny_model import save_model

HELLO: list[Message] = [{"role": "user", "content": "hello"}]
PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
MARKED = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{% if m['role'] == 'assistant' and loop.last and m['reasoning_content'] %}"
    "<think>\n{{ m['reasoning_content'] }}\n</think>\n\n{% endif %}"
    "{{ m['content'] | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPENING = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_model(tmp_path_factory.mktemp("prompt") / "model"))


def writer(tokenizer: Any, template: str | None) -> PromptWriter:
    tokenizer.chat_template = template
    return PromptWriter(tokenizer)


def answer(content: str, thinking: str = "") -> Message:
    return {"role": "assistant", "content": content, **({"thinking": thinking} if thinking else {})}


def test_the_prompt_is_the_models_own_template(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).write(HELLO)
    assert tokenizer.decode(prompt.ids) == prompt.text == "user: hello\nassistant:"


def test_the_template_gets_its_own_variables(tokenizer: Any) -> None:
    template = PLAIN + "{% if enable_thinking is defined and not enable_thinking %}<quiet>{% endif %}"
    prompts = writer(tokenizer, template)
    assert prompts.write(HELLO, variables={"enable_thinking": False}).text == "user: hello\nassistant:<quiet>"
    assert prompts.fitted(HELLO, 100, 9, variables={"enable_thinking": True}).text == "user: hello\nassistant:"


def test_a_prompt_can_end_with_the_question(tokenizer: Any) -> None:
    prompt = writer(tokenizer, MARKED).write(HELLO, variables={"add_generation_prompt": False})
    assert prompt.text == "<user>hello<end>"


def test_a_model_without_a_template_gets_the_bare_text(tokenizer: Any) -> None:
    prompt = writer(tokenizer, None).write([*HELLO, {"role": "user", "content": "you"}])
    assert prompt.text == "hello\nyou"
    assert prompt.marks == ()


def test_a_template_without_a_system_prompt_gets_it_with_the_question(tokenizer: Any) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + PLAIN
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert prompt.text == "user: Be brief.\n\nhello\nassistant:"


def test_a_system_prompt_that_the_template_leaves_out_is_put_with_the_question(tokenizer: Any) -> None:
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert prompt.text == "user: Be brief.\n\nhello\n"
    assert prompt.note == SYSTEM_IN_QUESTION
    assert writer(tokenizer, template).write(HELLO).note == ""


def test_a_system_prompt_that_the_template_changes_stays_where_it_is(tokenizer: Any) -> None:
    template = PLAIN.replace("m['content']", "m['content'].replace('/quiet', '')")
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "/quiet"}, *HELLO])
    assert (prompt.text, prompt.note) == ("system: \nuser: hello\nassistant:", "")


def test_the_reason_of_a_template_is_told_where_another_place_of_the_system_prompt_does_not_help(
    tokenizer: Any,
) -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('One message only') }}{% endif %}" + PLAIN
    talk = [{"role": "system", "content": "Be brief."}, *HELLO, answer("Hi"), *HELLO]
    with pytest.raises(BadInput, match="One message only"):
        writer(tokenizer, template).write(talk)


def test_a_template_that_does_not_end_is_not_tried_twice(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 0.5)
    asked: list[int] = []
    ask = chat_template._PROCESS.ask
    monkeypatch.setattr(chat_template._PROCESS, "ask", lambda *some: (asked.append(1), ask(*some))[1])
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(BadInput, match="did not finish in time"):
        writer(tokenizer, loops).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert len(asked) == 1


def test_a_thought_that_a_question_ends_with_opens_nothing(tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{# <think> #}"
    assert not writer(tokenizer, template).write([{"role": "user", "content": "what is <think>"}]).thinking


def test_a_text_is_continued_from_its_end(tokenizer: Any) -> None:
    """A tokenizer that puts an end behind every text would have the answer begin after it."""
    kept = tokenizer.backend_tokenizer.post_processor
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 0)])
    try:
        assert tokenizer("ab")["input_ids"][-1] == 0
        assert tokenizer.decode(writer(tokenizer, None).plain("ab").ids) == "ab"
    finally:
        tokenizer.backend_tokenizer.post_processor = kept


def test_a_conversation_that_the_template_refuses_is_told_in_its_words(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="Roles must alternate"):
        writer(tokenizer, "{{ raise_exception('Roles must alternate') }}").write(HELLO)


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": 3}]])
def test_what_is_no_conversation_is_refused(tokenizer: Any, messages: list[Any]) -> None:
    with pytest.raises(BadInput):
        writer(tokenizer, PLAIN).write(messages)


def test_a_template_that_opens_a_thought_begins_with_one(tokenizer: Any) -> None:
    prompt = writer(tokenizer, OPENING).write(HELLO)
    assert (prompt.thinking, prompt.marks[0].closes) == (True, "</think>")


def test_a_mark_in_a_question_opens_nothing(tokenizer: Any) -> None:
    assert not writer(tokenizer, MARKED).write([{"role": "user", "content": "what is <think>"}]).thinking


@pytest.mark.parametrize(("template", "thinks"), [(PLAIN, False), (MARKED, True), (OPENING, True)])
def test_whether_a_model_has_a_place_for_thoughts(tokenizer: Any, template: str, thinks: bool) -> None:
    assert writer(tokenizer, template).thinks is thinks


@pytest.mark.parametrize(
    ("template", "last", "text", "thinking"),
    [
        (PLAIN, answer("Hi th"), "user: hello\nassistant: Hi th", False),
        (MARKED, answer("Hi "), "<user>hello<end><assistant>Hi", False),
        (MARKED, answer("Hi", "well"), "<user>hello<end><assistant><think>\nwell\n</think>\n\nHi", False),
        (MARKED, answer("", "well"), "<user>hello<end><assistant><think>\nwell", True),
        (MARKED, answer(""), "<user>hello<end><assistant>", False),
        (OPENING, answer("", "well"), "<user>hello<end><assistant><think>\nwell", True),
        (OPENING, answer(""), "<user>hello<end><assistant><think>\n", True),
    ],
)
def test_an_answer_is_continued(tokenizer: Any, template: str, last: Message, text: str, thinking: bool) -> None:
    prompt = writer(tokenizer, template).write([*HELLO, last], continue_last=True)
    assert (prompt.text, prompt.thinking, prompt.continues) == (text, thinking, True)


def test_a_template_that_hides_the_answer_is_continued_by_hand(tokenizer: Any) -> None:
    template = (
        "{% for m in messages if m['role'] == 'user' %}<user>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    prompt = writer(tokenizer, template).write([*HELLO, answer("Hi", "well")], continue_last=True)
    assert prompt.text == "<user>hello<assistant><think>\nwell\n</think>\n\nHi"


def turns(letters: str, size: int = 20) -> list[Message]:
    return [
        message
        for letter in letters
        for message in ({"role": "user", "content": letter * size}, answer(letter.upper() * size))
    ]


SYSTEM: list[Message] = [{"role": "system", "content": "Be brief."}]


def test_nothing_is_left_out_where_all_fits(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*SYSTEM, *turns("abc"), *HELLO], 1000, 100)
    assert prompt.dropped == 0


def test_the_oldest_turns_are_left_out_and_the_system_prompt_stays(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*SYSTEM, *turns("abcdef"), *HELLO], 256, 64)
    assert prompt.dropped > 0
    assert prompt.text.startswith("system: Be brief.\nuser: ")
    assert "aaaa" not in prompt.text
    assert prompt.text.endswith("F\nuser: hello\nassistant:")
    assert len(prompt.ids) <= 192


def test_little_more_is_left_out_than_frees_a_quarter(tokenizer: Any) -> None:
    messages = [*turns("abcdef"), *HELLO]
    write = writer(tokenizer, PLAIN)
    prompt = write.fitted(messages, 256, 64)
    assert len(write.write(messages[prompt.dropped - 2 :]).ids) > 192 - 64


def test_the_next_question_leaves_out_the_same_turns(tokenizer: Any) -> None:
    write = writer(tokenizer, PLAIN)
    first = write.fitted([*turns("abcdef"), *HELLO], 256, 40)
    second = write.fitted([*turns("abcdef"), *HELLO, answer("Hi"), *HELLO], 256, 40)
    assert second.dropped == first.dropped
    assert second.text.startswith(first.text)


def test_another_conversation_is_not_short_of_them(tokenizer: Any) -> None:
    write = writer(tokenizer, PLAIN)
    write.fitted([*turns("abcdef"), *HELLO], 256, 40)
    assert write.fitted([*turns("abc"), *HELLO], 256, 40).dropped == 0


def test_the_last_question_stays_even_if_little_room_is_left(tokenizer: Any) -> None:
    question: Message = {"role": "user", "content": "x" * 220}
    prompt = writer(tokenizer, PLAIN).fitted([*turns("ab"), question], 256, 100)
    assert prompt.dropped == 4
    assert prompt.text == f"user: {question['content']}\nassistant:"


def test_a_question_that_does_not_fit_alone_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="317 tokens and the model reads 256"):
        writer(tokenizer, PLAIN).fitted([*turns("ab"), {"role": "user", "content": "x" * 300}], 256, 10)


def test_continuing_keeps_question_and_answer(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*turns("abcdef"), *turns("g")], 256, 40, continue_last=True)
    assert prompt.dropped > 0
    assert prompt.text.endswith(f"user: {'g' * 20}\nassistant: {'G' * 20}")


@pytest.mark.parametrize("template", ["{{ '\\ud83d' }}{{ messages[0]['content'] }}", None])
def test_half_a_character_is_replaced(tokenizer: Any, template: str | None) -> None:
    prompt = writer(tokenizer, template).write([{"role": "user", "content": "hi \ud83d"}])
    assert tokenizer.decode(prompt.ids).endswith("hi \N{REPLACEMENT CHARACTER}")
