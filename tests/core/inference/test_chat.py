"""Answers of a tiny model: streaming, sampling, stopping, limits."""

from __future__ import annotations

import pytest
import torch

from core.errors import BadInput
from core.inference.chat import ChatModel, Sampling
from core.inference.loader import load_model
from tests.core.tiny_model import save_model

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return ChatModel(load_model(str(save_model(tmp_path_factory.mktemp("chat") / "model")), "cpu", "float32"))


def test_the_prompt_is_the_models_own_template(talk: ChatModel) -> None:
    text = talk.loaded.tokenizer.decode(talk.prompt_ids(HELLO)[0])
    assert text == "user: hello\nassistant:"


def test_greedy_is_what_transformers_generates(talk: ChatModel) -> None:
    pieces = "".join(talk.reply(HELLO, Sampling(max_tokens=12)))
    ids = talk.prompt_ids(HELLO)
    with torch.no_grad():
        out = talk.loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
    expected = talk.loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert expected.startswith(pieces)
    assert len(pieces) >= len(expected.rstrip("\N{REPLACEMENT CHARACTER}"))


def test_the_same_seed_gives_the_same_answer(talk: ChatModel) -> None:
    hot = [Sampling(max_tokens=16, temperature=1.5, seed=seed) for seed in (4, 4, 5)]
    first, again, other = ("".join(talk.reply(HELLO, sampling)) for sampling in hot)
    assert first == again
    assert first != other


def test_top_k_of_one_is_greedy(talk: ChatModel) -> None:
    narrow = Sampling(max_tokens=8, temperature=1.0, top_k=1, seed=9)
    assert list(talk.reply(HELLO, narrow)) == list(talk.reply(HELLO, Sampling(max_tokens=8)))


def test_a_stop_ends_after_the_token_at_hand(talk: ChatModel) -> None:
    list(talk.reply(HELLO, Sampling(max_tokens=50, temperature=1.0), should_stop=lambda: True))
    assert talk.statistics.tokens == 1
    assert talk.statistics.ended_by == "stopped"


def test_the_answer_ends_where_the_context_is_full(talk: ChatModel) -> None:
    long = [{"role": "user", "content": "x" * (talk.context - 30)}]
    list(talk.reply(long, Sampling(max_tokens=500, temperature=1.0, seed=3)))
    assert talk.statistics.prompt_tokens + talk.statistics.tokens <= talk.context
    assert talk.statistics.ended_by in ("context", "end")


def test_a_conversation_longer_than_the_context_is_refused(talk: ChatModel) -> None:
    with pytest.raises(BadInput, match="256"):
        list(talk.reply([{"role": "user", "content": "x" * 400}], Sampling()))


@pytest.mark.parametrize("values", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}])
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Sampling(**values)  # type: ignore[arg-type]


def test_a_template_without_a_system_prompt_gets_it_with_the_question(talk: ChatModel) -> None:
    kept = talk.loaded.tokenizer.chat_template
    talk.loaded.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + kept
    )
    try:
        ids = talk.prompt_ids([{"role": "system", "content": "Be brief."}, *HELLO])
    finally:
        talk.loaded.tokenizer.chat_template = kept
    assert talk.loaded.tokenizer.decode(ids[0]) == "user: Be brief.\n\nhello\nassistant:"


def test_a_conversation_that_the_template_refuses_is_told_in_its_words(talk: ChatModel) -> None:
    kept = talk.loaded.tokenizer.chat_template
    talk.loaded.tokenizer.chat_template = "{{ raise_exception('Roles must alternate') }}"
    try:
        with pytest.raises(BadInput, match="Roles must alternate"):
            talk.prompt_ids(HELLO)
    finally:
        talk.loaded.tokenizer.chat_template = kept


def test_what_stands_before_half_a_character_is_not_lost(talk: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token may hold a letter and the first half of a character; the answer may end there."""
    monkeypatch.setattr(type(talk.loaded.tokenizer), "decode", lambda _self, ids, **_options: "a" * len(ids) + "\ufffd")
    assert "".join(talk.reply(HELLO, Sampling(max_tokens=3))) == "aaa"
