"""What may end an answer, and when: tokens that are asked for, tokens that are put off, and a least length."""

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
    """What a model says that would say `text`, and what ended it."""
    speaker = scripted(model, text)
    said = "".join(part.text for part in speaker.reply(HELLO, sampling))
    return said, speaker.statistics.ended_by


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(model: ChatModel) -> None:
    (token,) = model.loaded.tokenizer("c", add_special_tokens=False)["input_ids"]
    assert answer(model, "abcd", Sampling(stop_token_ids=(token,))) == ("ab", "end")


def test_a_stop_token_that_no_vocabulary_has_ends_nothing(model: ChatModel) -> None:
    sampling = Sampling(stop_token_ids=(10**9,), min_tokens=1)
    assert answer(model, "abcd", sampling) == ("abcd", "end")


def test_a_special_token_among_the_stop_texts_ends_the_answer(model: ChatModel) -> None:
    from tokenizers import AddedToken

    model.loaded.tokenizer.add_tokens(
        [AddedToken("<|turn|>", special=True), AddedToken("<word>")], special_tokens=False
    )
    assert answer(model, "ab<word><|turn|>cd", Sampling(stop=("x", "<|turn|>"))) == ("ab<word>", "end")
    assert answer(model, "ab<word><|turn|>cd", Sampling(stop=("<word>",))) == ("ab", "stop")


def test_an_answer_has_its_least_length(model: ChatModel) -> None:
    said, _ = answer(model, "ab", Sampling(min_tokens=5, max_tokens=5))
    assert said.startswith("ab")
    assert len(model.loaded.tokenizer(said, add_special_tokens=False)["input_ids"]) >= 5


def test_a_stop_text_does_not_end_it_before(model: ChatModel) -> None:
    sampling = Sampling(stop=("b",), min_tokens=3)
    assert answer(model, "abab", sampling) == ("aba", "stop")


def test_end_tokens_that_are_ignored_end_nothing(model: ChatModel) -> None:
    assert answer(model, "ab", Sampling(ignore_eos=True, max_tokens=9))[1] == "length"


def test_tokens_that_are_barred_are_not_drawn(model: ChatModel) -> None:
    sampling = Sampling(ignore_eos=True, max_tokens=9, temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=3)
    assert answer(model, "ab", sampling)[1] == "length"
