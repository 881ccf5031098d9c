"""Tests of answers of a tiny model: streaming, reuse of the cache, stops and limits."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.control import ShouldStop
from core.errors import BadInput
from core.inference.generation.chat import ChatModel, Message, Sampling
from tests.core.inference.scripted_runners import (
    PIECE,
    Loaded,
    RecordingRunner,
    ScriptedRunner,
    load_recording,
    scripted,
)
from tests.core.tiny_model import save_model

HELLO: list[Message] = [{"role": "user", "content": "hello"}]
HOT = Sampling(max_tokens=12, temperature=1.0, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return load_recording(save_model(tmp_path_factory.mktemp("chat") / "model"))


@pytest.fixture
def talk(model: ChatModel) -> Iterator[ChatModel]:
    kept = model.loaded.tokenizer.chat_template
    fresh = ChatModel(model.loaded)
    fresh.forget()
    runner(fresh).read.clear()
    yield fresh
    model.loaded.tokenizer.chat_template = kept


def runner(talk: ChatModel) -> RecordingRunner:
    found = talk.loaded.runner
    assert isinstance(found, RecordingRunner)
    return found


def text_of(talk: ChatModel, messages: list[Message], sampling: Sampling, **options: Any) -> str:
    return "".join(part.text for part in talk.reply(messages, sampling, **options))


def prompts(talk: ChatModel) -> list[int]:
    """Return the number of tokens of each call of `extend` with more than one token."""
    return [len(ids) for ids in runner(talk).read if len(ids) > 1]


def test_greedy_decoding_equals_that_of_transformers(talk: ChatModel) -> None:
    pieces = text_of(talk, HELLO, Sampling(max_tokens=12))
    ids = torch.tensor([talk.prompts.write(HELLO).ids])
    with torch.no_grad():
        out = runner(talk).runner.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
    expected = talk.loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert expected.startswith(pieces)
    assert len(pieces) >= len(expected.rstrip("\N{REPLACEMENT CHARACTER}"))


def test_the_same_seed_gives_the_same_answer(talk: ChatModel) -> None:
    hot = [Sampling(max_tokens=16, temperature=1.5, seed=seed) for seed in (4, 4, 5)]
    first, again, other = (text_of(talk, HELLO, sampling) for sampling in hot)
    assert first == again
    assert first != other


def test_the_cache_does_not_change_an_answer(talk: ChatModel) -> None:
    question: list[Message] = [*HELLO, {"role": "assistant", "content": text_of(talk, HELLO, HOT)}, *HELLO]
    warm = text_of(talk, question, Sampling(max_tokens=12))
    assert talk.statistics.cached_tokens > 0
    talk.forget()
    assert text_of(talk, question, Sampling(max_tokens=12)) == warm
    assert talk.statistics.cached_tokens == 0


def test_a_drawn_seed_is_reported_and_reproduces_the_answer(talk: ChatModel) -> None:
    first = text_of(talk, HELLO, Sampling(max_tokens=16, temperature=1.5, seed=None))
    assert text_of(talk, HELLO, Sampling(max_tokens=16, temperature=1.5, seed=talk.statistics.seed)) == first


def test_a_second_question_processes_only_the_new_tokens(talk: ChatModel) -> None:
    first = text_of(talk, HELLO, HOT)
    before = talk.statistics.prompt_tokens + talk.statistics.tokens
    question: list[Message] = [*HELLO, {"role": "assistant", "content": first}, {"role": "user", "content": "more"}]
    runner(talk).read.clear()
    text_of(talk, question, HOT)
    statistics = talk.statistics
    assert sum(prompts(talk)) == statistics.prompt_tokens - statistics.cached_tokens
    # All but a few tokens: the template's text, and tokens of the answer that the tokenizer would not produce.
    assert statistics.cached_tokens >= before - HOT.max_tokens
    assert statistics.cached_tokens > talk.count(HELLO) - 1


def test_a_repeated_question_processes_one_token(talk: ChatModel) -> None:
    text_of(talk, HELLO, HOT)
    runner(talk).read.clear()
    text_of(talk, HELLO, Sampling(max_tokens=3, temperature=1.0, seed=2))
    assert [len(ids) for ids in runner(talk).read] == [1] * 3
    assert talk.statistics.cached_tokens == talk.statistics.prompt_tokens - 1


def test_another_conversation_keeps_the_common_prefix(talk: ChatModel) -> None:
    text_of(talk, HELLO, HOT)
    text_of(talk, [{"role": "user", "content": "help"}], HOT)
    assert talk.statistics.cached_tokens == len("user: hel")


def unusual_tokens(talk: ChatModel) -> ChatModel:
    """Return a model that generates `abc` as three tokens, while its tokenizer has one token for `ab`."""
    words = {letter: number for number, letter in enumerate("abcxyz:")} | {"ab": 7, "<end>": 8}
    inner = Tokenizer(models.BPE(vocab=words, merges=[("a", "b")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'x:' if m['role'] == 'user' else 'y:' }}{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}y:{% endif %}"
    )
    return ChatModel(Loaded(ScriptedRunner([0, 1, 2, 8] * 40), tokenizer, talk.loaded.folder / "no-config"))


AB: list[Message] = [{"role": "user", "content": "ab"}]
ABC: Message = {"role": "assistant", "content": "abc"}


def test_an_answer_in_other_tokens_than_its_text_changes_no_prompt(talk: ChatModel) -> None:
    model = unusual_tokens(talk)
    assert text_of(model, AB, Sampling()) == "abc"
    text_of(model, [*AB, ABC, *AB], Sampling())
    asked, answered = [3, 6, 7, 8, 4, 6], [7, 2]
    assert model.statistics.cached_tokens == len(asked)
    scripted_runner = model.loaded.runner
    assert isinstance(scripted_runner, ScriptedRunner)
    assert scripted_runner.ids[:-3] == [*asked, *answered, 8, *asked]


CONTENTS = st.sampled_from(["", "a", "ab", "abc", "c ab", "<end>", "<think>a</think>b", "\U0001f600"])
TURNS = st.lists(st.tuples(CONTENTS, CONTENTS), max_size=3)


@given(conversations=st.lists(st.tuples(TURNS, CONTENTS, st.booleans(), st.integers(1, 6)), min_size=1, max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_prompt_is_a_function_of_the_conversation(
    talk: ChatModel, conversations: list[tuple[list[tuple[str, str]], str, bool, int]]
) -> None:
    """The tokens do not depend on earlier answers, whether completed, stopped, continued or branched."""
    warm = unusual_tokens(talk)
    for turns, last, continues, limit in conversations:
        messages: list[Message] = [
            {"role": role, "content": content}
            for turn in turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
        messages.append({"role": "user", "content": last})
        if continues:
            messages.append({"role": "assistant", "content": "ab"})
        text_of(warm, messages, Sampling(max_tokens=limit), continue_last=continues)
        cold = unusual_tokens(talk)
        expected = cold.prompts.fitted(messages, cold.context, limit, continues).ids
        runner = warm.loaded.runner
        assert isinstance(runner, ScriptedRunner)
        assert tuple(runner.ids[: len(expected)]) == expected
        assert warm.statistics.prompt_tokens == len(expected)


def test_other_uses_of_the_runner_do_not_change_an_answer(talk: ChatModel) -> None:
    expected = text_of(talk, HELLO, HOT)
    runner(talk).logits([1, 2, 3])
    assert text_of(talk, HELLO, HOT) == expected


def stop_after(calls: int) -> ShouldStop:
    asked = iter(range(10**6))
    return lambda: next(asked) >= calls


def test_a_stop_ends_the_answer_after_the_current_token(talk: ChatModel) -> None:
    text_of(talk, HELLO, Sampling(max_tokens=50, temperature=1.0), should_stop=stop_after(2))
    assert (talk.statistics.tokens, talk.statistics.ended_by) == (1, "stopped")


def test_a_stop_within_a_long_prompt_keeps_the_processed_tokens(talk: ChatModel) -> None:
    long: list[Message] = [{"role": "user", "content": "x" * 100}]
    assert text_of(talk, long, HOT, should_stop=stop_after(2)) == ""
    assert (talk.statistics.tokens, talk.statistics.ended_by) == (0, "stopped")
    assert runner(talk).length == 2 * PIECE
    text_of(talk, long, HOT)
    assert talk.statistics.cached_tokens == 2 * PIECE


def test_closing_the_iterator_ends_the_answer(talk: ChatModel) -> None:
    parts = talk.reply(HELLO, Sampling(max_tokens=50, temperature=1.0))
    next(parts)
    assert isinstance(parts, Generator)
    parts.close()
    assert talk.statistics.ended_by == "stopped"
    assert runner(talk).length < 40


def test_the_answer_ends_when_the_context_is_full(talk: ChatModel) -> None:
    long: list[Message] = [{"role": "user", "content": "x" * (talk.context - 30)}]
    text_of(talk, long, Sampling(max_tokens=500, temperature=1.0, seed=3))
    assert talk.statistics.prompt_tokens + talk.statistics.tokens <= talk.context
    assert talk.statistics.ended_by in ("context", "end")


def test_a_question_longer_than_the_context_is_refused(talk: ChatModel) -> None:
    with pytest.raises(BadInput, match="256"):
        talk.reply([{"role": "user", "content": "x" * 400}], Sampling())


def test_old_turns_are_dropped_and_counted(talk: ChatModel) -> None:
    turns: list[Message] = []
    for letter in "abcdefgh":
        turns += [{"role": "user", "content": letter * 20}, {"role": "assistant", "content": letter.upper() * 20}]
    text_of(talk, [*turns, *HELLO], HOT)
    assert talk.statistics.dropped_messages > 0
    assert talk.statistics.dropped_messages % 2 == 0
    assert talk.statistics.prompt_tokens <= talk.context


def test_pieces_are_the_texts_of_the_tokens(talk: ChatModel) -> None:
    text = text_of(talk, HELLO, HOT)
    assert len(talk.statistics.pieces) == talk.statistics.tokens
    assert "".join(talk.statistics.pieces) == text


def test_an_end_token_is_not_counted(talk: ChatModel) -> None:
    model = scripted(talk, "hi")
    assert text_of(model, HELLO, Sampling()) == "hi"
    assert (model.statistics.tokens, model.statistics.ended_by) == (2, "end")


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(talk: ChatModel) -> None:
    model = scripted(talk, "one, two; three")
    assert text_of(model, HELLO, Sampling(stop=("; th", "four"))) == "one, two"
    assert model.statistics.ended_by == "stop"


def test_an_incomplete_stop_text_at_the_end_is_part_of_the_answer(talk: ChatModel) -> None:
    model = scripted(talk, "one; t")
    assert text_of(model, HELLO, Sampling(stop=("; th",))) == "one; t"
    assert model.statistics.ended_by == "end"


def test_thinking_is_separated_from_the_answer(talk: ChatModel) -> None:
    talk.loaded.tokenizer.chat_template += "{# </think> #}"
    model = scripted(talk, "<think>\nwell; th\n</think>\n\nyes")
    parts = list(model.reply(HELLO, Sampling(stop=("; th",))))
    assert "".join(part.text for part in parts if part.kind == "thinking") == "well; th"
    assert "".join(part.text for part in parts if part.kind == "text") == "yes"
    assert 0 < model.statistics.thinking_seconds <= model.statistics.seconds


def test_an_answer_of_a_model_that_does_not_think_is_text(talk: ChatModel) -> None:
    assert text_of(scripted(talk, "<reasoning>yes"), HELLO, Sampling()) == "<reasoning>yes"


def test_an_answer_can_be_continued(talk: ChatModel) -> None:
    text_of(talk, [*HELLO, {"role": "assistant", "content": "Hi th"}], Sampling(max_tokens=2), continue_last=True)
    assert talk.loaded.tokenizer.decode(runner(talk).read[0]) == "user: hello\nassistant: Hi th"


def test_a_question_cannot_be_continued(talk: ChatModel) -> None:
    with pytest.raises(BadInput, match="not an answer"):
        talk.reply(HELLO, Sampling(), continue_last=True)


def test_a_text_is_continued_without_a_chat_format(talk: ChatModel) -> None:
    "".join(part.text for part in talk.complete("abc", Sampling(max_tokens=2)))
    assert runner(talk).read[0] == list(talk.loaded.tokenizer("abc")["input_ids"])


@pytest.mark.parametrize("text", ["", "x" * 300])
def test_a_text_that_cannot_be_completed_is_refused(talk: ChatModel, text: str) -> None:
    with pytest.raises(BadInput, match="1 to 255"):
        talk.complete(text, Sampling())


def test_counting_includes_the_whole_conversation(talk: ChatModel) -> None:
    assert talk.count([{"role": "user", "content": "x" * 400}]) == len("user: \nassistant:") + 400
