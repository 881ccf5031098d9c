"""Tests of prompts: chat templates, system prompts, thinking, continued answers, and dropped turns."""

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
    said: Message = {"role": "assistant", "content": content}
    return {**said, "thinking": thinking} if thinking else said


def test_the_prompt_is_written_by_the_model_s_template(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).write(HELLO)
    assert tokenizer.decode(prompt.ids) == prompt.text == "user: hello\nassistant:"


def test_variables_are_passed_to_the_template(tokenizer: Any) -> None:
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


def test_a_refused_system_prompt_is_moved_into_the_question(tokenizer: Any) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + PLAIN
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert prompt.text == "user: Be brief.\n\nhello\nassistant:"


def test_an_ignored_system_prompt_is_moved_into_the_question(tokenizer: Any) -> None:
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert prompt.text == "user: Be brief.\n\nhello\n"
    assert prompt.note == SYSTEM_IN_QUESTION
    assert writer(tokenizer, template).write(HELLO).note == ""


def test_a_system_prompt_that_the_template_changes_is_not_moved(tokenizer: Any) -> None:
    template = PLAIN.replace("m['content']", "m['content'].replace('/quiet', '')")
    prompt = writer(tokenizer, template).write([{"role": "system", "content": "/quiet"}, *HELLO])
    assert (prompt.text, prompt.note) == ("system: \nuser: hello\nassistant:", "")


def test_the_template_s_reason_is_reported_if_moving_the_system_prompt_does_not_help(
    tokenizer: Any,
) -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('One message only') }}{% endif %}" + PLAIN
    talk: list[Message] = [{"role": "system", "content": "Be brief."}, *HELLO, answer("Hi"), *HELLO]
    with pytest.raises(BadInput, match="One message only"):
        writer(tokenizer, template).write(talk)


def test_a_template_that_times_out_is_rendered_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 0.5)
    calls: list[int] = []
    ask = chat_template._PROCESS.ask

    def counted(*some: Any) -> Any:
        calls.append(1)
        return ask(*some)

    monkeypatch.setattr(chat_template._PROCESS, "ask", counted)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(BadInput, match="did not finish in time"):
        writer(tokenizer, loops).write([{"role": "system", "content": "Be brief."}, *HELLO])
    assert len(calls) == 1


def test_a_thinking_mark_at_the_end_of_a_question_is_ignored(tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{# <think> #}"
    assert not writer(tokenizer, template).write([{"role": "user", "content": "what is <think>"}]).thinking


def test_a_text_is_continued_from_its_end(tokenizer: Any) -> None:
    """The end token that a tokenizer appends to every text is removed."""
    kept = tokenizer.backend_tokenizer.post_processor
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 0)])
    try:
        assert tokenizer("ab")["input_ids"][-1] == 0
        assert tokenizer.decode(writer(tokenizer, None).plain("ab").ids) == "ab"
    finally:
        tokenizer.backend_tokenizer.post_processor = kept


def test_the_template_s_reason_for_a_refusal_is_reported(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="Roles must alternate"):
        writer(tokenizer, "{{ raise_exception('Roles must alternate') }}").write(HELLO)


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": 3}]])
def test_an_invalid_conversation_is_refused(tokenizer: Any, messages: list[Any]) -> None:
    with pytest.raises(BadInput):
        writer(tokenizer, PLAIN).write(messages)


def test_an_answer_starts_within_thinking_that_the_template_opens(tokenizer: Any) -> None:
    prompt = writer(tokenizer, OPENING).write(HELLO)
    assert (prompt.thinking, prompt.marks[0].closes) == (True, "</think>")


def test_a_thinking_mark_in_a_question_is_ignored(tokenizer: Any) -> None:
    assert not writer(tokenizer, MARKED).write([{"role": "user", "content": "what is <think>"}]).thinking


@pytest.mark.parametrize(("template", "thinks"), [(PLAIN, False), (MARKED, True), (OPENING, True)])
def test_a_template_with_thinking_marks_supports_thinking(tokenizer: Any, template: str, thinks: bool) -> None:
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


def test_an_answer_that_the_template_omits_can_be_continued(tokenizer: Any) -> None:
    template = (
        "{% for m in messages if m['role'] == 'user' %}<user>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    prompt = writer(tokenizer, template).write([*HELLO, answer("Hi", "well")], continue_last=True)
    assert prompt.text == "<user>hello<assistant><think>\nwell\n</think>\n\nHi"


def turns(letters: str, size: int = 20) -> list[Message]:
    questions: list[Message] = [{"role": "user", "content": letter * size} for letter in letters]
    return [message for question in questions for message in (question, answer(question["content"].upper()))]


SYSTEM: list[Message] = [{"role": "system", "content": "Be brief."}]


def test_no_turn_is_dropped_if_all_fit(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*SYSTEM, *turns("abc"), *HELLO], 1000, 100)
    assert prompt.dropped == 0


def test_the_oldest_turns_are_dropped_and_the_system_prompt_is_kept(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*SYSTEM, *turns("abcdef"), *HELLO], 256, 64)
    assert prompt.dropped > 0
    assert prompt.text.startswith("system: Be brief.\nuser: ")
    assert "aaaa" not in prompt.text
    assert prompt.text.endswith("F\nuser: hello\nassistant:")
    assert len(prompt.ids) <= 192


def test_turns_are_dropped_in_steps_of_a_quarter_of_the_context(tokenizer: Any) -> None:
    messages = [*turns("abcdef"), *HELLO]
    write = writer(tokenizer, PLAIN)
    prompt = write.fitted(messages, 256, 64)
    assert len(write.write(messages[prompt.dropped - 2 :]).ids) > 192 - 64


def test_the_next_question_drops_the_same_turns(tokenizer: Any) -> None:
    write = writer(tokenizer, PLAIN)
    first = write.fitted([*turns("abcdef"), *HELLO], 256, 40)
    second = write.fitted([*turns("abcdef"), *HELLO, answer("Hi"), *HELLO], 256, 40)
    assert second.dropped == first.dropped
    assert second.text.startswith(first.text)


def test_dropped_turns_do_not_affect_another_conversation(tokenizer: Any) -> None:
    write = writer(tokenizer, PLAIN)
    write.fitted([*turns("abcdef"), *HELLO], 256, 40)
    assert write.fitted([*turns("abc"), *HELLO], 256, 40).dropped == 0


def test_the_last_question_is_kept_even_if_little_room_is_left(tokenizer: Any) -> None:
    question: Message = {"role": "user", "content": "x" * 220}
    prompt = writer(tokenizer, PLAIN).fitted([*turns("ab"), question], 256, 100)
    assert prompt.dropped == 4
    assert prompt.text == f"user: {question['content']}\nassistant:"


def test_a_question_that_does_not_fit_alone_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="317 tokens, but the context has only 256"):
        writer(tokenizer, PLAIN).fitted([*turns("ab"), {"role": "user", "content": "x" * 300}], 256, 10)


def test_continuing_keeps_question_and_answer(tokenizer: Any) -> None:
    prompt = writer(tokenizer, PLAIN).fitted([*turns("abcdef"), *turns("g")], 256, 40, continue_last=True)
    assert prompt.dropped > 0
    assert prompt.text.endswith(f"user: {'g' * 20}\nassistant: {'G' * 20}")


@pytest.mark.parametrize("template", ["{{ '\\ud83d' }}{{ messages[0]['content'] }}", None])
def test_surrogates_are_replaced(tokenizer: Any, template: str | None) -> None:
    prompt = writer(tokenizer, template).write([{"role": "user", "content": "hi \ud83d"}])
    assert tokenizer.decode(prompt.ids).endswith("hi \N{REPLACEMENT CHARACTER}")


PICTURE: Message = {"role": "user", "content": "What?", "pictures": ["/a.png"]}


def test_pictures_for_a_model_of_text_are_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="This model reads text only") as caught:
        writer(tokenizer, PLAIN).write([PICTURE])
    assert "Remove the pictures" in caught.value.hint


def test_the_reason_why_pictures_cannot_be_read_is_given(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN
    with pytest.raises(BadInput, match=r"The processor needs torchvision\."):
        PromptWriter(tokenizer, None, "The processor needs torchvision.").write([PICTURE])


@pytest.mark.parametrize("pictures", ["/a.png", [1], None, {"a": 1}])
def test_pictures_must_be_a_list_of_paths(tokenizer: Any, pictures: Any) -> None:
    with pytest.raises(BadInput, match="must be a list of paths"):
        writer(tokenizer, PLAIN).write([{**PICTURE, "pictures": pictures}])


def test_an_empty_list_of_pictures_is_a_message_of_text(tokenizer: Any) -> None:
    plain: Message = {"role": "user", "content": "What?"}
    assert writer(tokenizer, PLAIN).write([{**PICTURE, "pictures": []}]) == writer(tokenizer, PLAIN).write([plain])
