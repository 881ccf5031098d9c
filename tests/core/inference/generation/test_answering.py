"""Tests of the end of an answer: stop tokens, stop texts, ignored end tokens and the minimum length."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.inference.generation.chat import ChatModel, Message, Sampling
from tests.core.inference.scripted_runners import load_recording, scripted
from tests.core.tiny_model import save_model

HELLO: list[Message] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder: Path = tmp_path_factory.mktemp("answering")
    return load_recording(save_model(folder / "model"))


def answer(model: ChatModel, text: str, sampling: Sampling) -> tuple[str, str]:
    """Return the answer of a model that generates `text`, and the reason for its end."""
    writer = scripted(model, text)
    found = "".join(part.text for part in writer.reply(HELLO, sampling))
    return found, writer.statistics.ended_by


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(model: ChatModel) -> None:
    (token,) = model.loaded.tokenizer("c", add_special_tokens=False)["input_ids"]
    assert answer(model, "abcd", Sampling(stop_token_ids=(token,))) == ("ab", "end")


def test_a_stop_token_outside_the_vocabulary_is_ignored(model: ChatModel) -> None:
    sampling = Sampling(stop_token_ids=(10**9,), min_tokens=1)
    assert answer(model, "abcd", sampling) == ("abcd", "end")


def test_a_special_token_among_the_stop_texts_ends_the_answer(model: ChatModel) -> None:
    from tokenizers import AddedToken

    model.loaded.tokenizer.add_tokens(
        [AddedToken("<|turn|>", special=True), AddedToken("<word>")], special_tokens=False
    )
    assert answer(model, "ab<word><|turn|>cd", Sampling(stop=("x", "<|turn|>"))) == ("ab<word>", "end")
    assert answer(model, "ab<word><|turn|>cd", Sampling(stop=("<word>",))) == ("ab", "stop")


def test_an_answer_has_the_minimum_length(model: ChatModel) -> None:
    found, _ = answer(model, "ab", Sampling(min_tokens=5, max_tokens=5))
    assert found.startswith("ab")
    assert len(model.loaded.tokenizer(found, add_special_tokens=False)["input_ids"]) >= 5


def test_a_stop_text_before_the_minimum_length_is_ignored(model: ChatModel) -> None:
    sampling = Sampling(stop=("b",), min_tokens=3)
    assert answer(model, "abab", sampling) == ("aba", "stop")


def test_ignored_end_tokens_do_not_end_the_answer(model: ChatModel) -> None:
    assert answer(model, "ab", Sampling(ignore_eos=True, max_tokens=9))[1] == "length"


def test_ignored_end_tokens_are_never_drawn(model: ChatModel) -> None:
    sampling = Sampling(ignore_eos=True, max_tokens=9, temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=3)
    assert answer(model, "ab", sampling)[1] == "length"
