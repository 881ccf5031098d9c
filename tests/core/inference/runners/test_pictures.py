"""Answers about pictures: the tokens and logits are those of transformers, with and without the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.api.chats import open_chat
from core.cli import main
from core.control import never
from core.errors import BadInput, UnsupportedModel
from core.events import Event, Log
from core.inference import loader
from core.inference.generation.chat import ChatModel, load
from core.inference.generation.message import Message
from core.inference.generation.settings import Sampling
from core.inference.runners.module import ModuleRunner
from tests.core.pictures.made_pictures import data_uri, encoded
from tests.core.tiny_vision import FAMILIES, save_vision_model

TOKENS = 6
GREEDY = Sampling(max_tokens=TOKENS, ignore_eos=True)


def picture(width: int, height: int, seed: int = 0) -> str:
    """Return a random picture."""
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return data_uri(encoded(Image.fromarray(values)))


def user(content: str, *pictures: str) -> Message:
    return {"role": "user", "content": content, "pictures": pictures}


def said(content: str) -> Message:
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_model(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def talk(folder: Path) -> ChatModel:
    return load(str(folder), "cpu", context=400)


@pytest.fixture(scope="module")
def original(folder: Path, talk: ChatModel) -> Any:
    """The same weights, loaded by transformers."""
    from transformers import AutoModelForMultimodalLM

    dtype = getattr(torch, talk.loaded.dtype)  # type: ignore[attr-defined] # a LoadedRunner
    return AutoModelForMultimodalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.fixture
def empty(talk: ChatModel) -> Iterator[ChatModel]:
    talk.forget()
    yield talk
    talk.forget()


def answered(talk: ChatModel, messages: list[Message]) -> tuple[str, list[int]]:
    """Return the text of an answer and its tokens, without the last one, which is not in the cache."""
    text = "".join(part.text for part in talk.reply(messages, GREEDY))
    return text, talk._runner._held[talk.statistics.prompt_tokens :]


def of_transformers(original: Any, talk: ChatModel, messages: list[Message]) -> Any:
    """Return the result of transformers' `generate` for the whole conversation, with logits."""
    prompt = talk.prompts.write(messages)
    assert isinstance(talk.loaded.runner, ModuleRunner)
    arguments: dict[str, Tensor] = {}
    if prompt.pictures is not None:
        arguments = talk.loaded.runner._picture_arguments(prompt.pictures, len(prompt.ids))
    ids = torch.tensor([prompt.ids])
    return original.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **arguments, max_new_tokens=TOKENS, do_sample=False,
        suppress_tokens=sorted(talk._ends), eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
        output_logits=True,
    )  # fmt: skip


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected.float()).norm() / expected.float().norm()) < 1e-4


def test_conversation_equals_generate_of_transformers(empty: ChatModel, original: Any) -> None:
    """A picture in the first question, text, two pictures in the third question, and an edited second question."""
    first = [user("What is it?", picture(40, 64))]
    messages = list(first)
    steps: list[tuple[Message | None, bool]] = [
        (None, False),
        (user("And why?"), True),
        (user("And these?", picture(64, 30, 1), picture(50, 50, 2)), False),
        (user("Why so?"), False),
        (user("Tell me more."), True),
    ]
    for number, (question, cached) in enumerate(steps):
        if number == 3:
            messages = messages[:2]
        messages += [] if question is None else [question]
        text, tokens = answered(empty, messages)
        expected = of_transformers(original, empty, messages)
        start = empty.statistics.prompt_tokens
        assert tokens == expected.sequences[0, start : start + TOKENS - 1].tolist()
        assert (empty.statistics.cached_tokens > 0) == cached
        messages.append(said(text))


def test_logits_equal_those_of_transformers(empty: ChatModel, original: Any) -> None:
    messages = [user("What is it?", picture(40, 64)), said("A"), user("And this?", picture(30, 30, 3))]
    expected = of_transformers(original, empty, messages)
    prompt = empty.prompts.write(messages)
    found = empty._runner.prefill(prompt.ids, never, prompt.pictures)[0]
    assert close(found, expected.logits[0][0])
    for step, token in enumerate(expected.sequences[0, len(prompt.ids) : -1].tolist()):
        assert close(empty._runner.step(token, never), expected.logits[step + 1][0])


def test_the_answer_depends_on_the_picture(empty: ChatModel) -> None:
    logits = []
    for seed in (0, 1):
        prompt = empty.prompts.write([user("What is it?", picture(40, 64, seed))])
        logits.append(empty._runner.prefill(prompt.ids, never, prompt.pictures)[0])
        assert empty._runner._held == list(prompt.ids)
    assert float((logits[0] - logits[1]).norm() / logits[0].norm()) > 1e-4


def test_another_picture_of_the_same_size_is_not_taken_from_the_cache(empty: ChatModel) -> None:
    def logits(seed: int) -> Tensor:
        prompt = empty.prompts.write([user("What is it?", picture(40, 64, seed)), said("A"), user("Why?")])
        return empty._runner.prefill(prompt.ids, never, prompt.pictures)[0]

    fresh = logits(1)
    empty.forget()
    logits(0)
    assert torch.equal(logits(1), fresh)


def test_text_after_pictures_equals_text_alone(empty: ChatModel) -> None:
    """Longer than a piece, so that positions that are shifted by a picture would show."""
    text = [user("x" * 150)]
    fresh = empty._runner.prefill(empty.prompts.write(text).ids, never)[0]
    prompt = empty.prompts.write([user("What is it?", picture(40, 64))])
    empty._runner.prefill(prompt.ids, never, prompt.pictures)
    assert close(empty._runner.prefill(empty.prompts.write(text).ids, never)[0], fresh)
    assert close(empty.loaded.runner.logits(empty.prompts.write(text).ids)[-1], fresh)


def test_towers_are_only_in_memory_while_a_picture_is_processed(empty: ChatModel) -> None:
    runner = empty.loaded.runner
    assert isinstance(runner, ModuleRunner)
    before = runner.memory_bytes
    answered(empty, [user("What is it?", picture(40, 64))])
    del runner._weight_bytes
    towers = [value for name, value in runner.model.named_parameters() if "vision" in name or "visual" in name]
    assert towers
    assert all(value.is_meta for value in towers)
    empty.forget()
    assert runner.memory_bytes <= before + 4096


def test_a_stop_leaves_a_cache_that_can_be_used(empty: ChatModel) -> None:
    messages = [user("What is it?", picture(40, 64))]
    expected = answered(empty, messages)[1]
    empty.forget()
    list(empty.reply(messages, GREEDY, lambda: True))
    assert empty.statistics.ended_by == "stopped"
    assert answered(empty, messages)[1] == expected


def test_regenerated_answer_is_equal(empty: ChatModel) -> None:
    messages = [user("What is it?", picture(40, 64))]
    assert answered(empty, messages) == answered(empty, messages)
    assert empty.statistics.cached_tokens > 0


def test_continued_answer_keeps_the_picture(empty: ChatModel) -> None:
    messages = [user("What is it?", picture(40, 64)), said("It is")]
    prompt = empty.prompts.write(messages, continue_last=True)
    assert prompt.pictures is not None
    assert prompt.text.endswith("It is")


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (1, 60)])
def test_small_and_narrow_pictures_are_read(empty: ChatModel, size: tuple[int, int]) -> None:
    assert len(answered(empty, [user("What is it?", picture(*size))])[1]) == TOKENS - 1


def test_oldest_turns_with_pictures_are_dropped(empty: ChatModel) -> None:
    messages: list[Message] = []
    for number in range(6):
        messages += [user(f"What is {number}?", picture(40, 64, number)), said("It is a picture.")]
    messages.append(user("And now?"))
    whole = empty.prompts.write(messages)
    context = len(whole.ids) - 20
    prompt = empty.prompts.fitted(messages, context, 10)
    assert 0 < prompt.dropped < 12
    assert prompt.dropped % 2 == 0
    assert len(prompt.ids) <= context - 10
    assert prompt.pictures is not None
    assert len(prompt.pictures.digests) == 6 - prompt.dropped // 2
    assert prompt.ids == empty.prompts.write(messages[prompt.dropped :]).ids


def test_count_includes_pictures(empty: ChatModel) -> None:
    assert empty.count([user("Why?", picture(40, 64))]) > empty.count([user("Why?")]) + 3


def test_too_many_pictures_for_the_context_is_one_sentence(empty: ChatModel) -> None:
    pictures = [picture(40, 64, number) for number in range(4)]
    with pytest.raises(BadInput, match="but the context has only 20") as caught:
        empty.prompts.fitted([user("Why?", *pictures)], 20, 4)
    assert "fewer or smaller pictures" in caught.value.hint


def test_a_backend_of_text_is_told(folder: Path) -> None:
    """The native program computes some of these models, if it is chosen."""
    talk = load(str(folder), "cpu", backend="native", context=64)
    reads_text = talk.loaded.runner.name == "native"
    assert talk.reads == (("text",) if reads_text else ("text", "pictures"))
    assert ("the backend native reads text only" in talk.prompts.pictures_note) == reads_text


def test_the_reason_for_text_only_is_reported_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise UnsupportedModel("Its image processor needs torchvision.", "Ask this model without pictures.")

    monkeypatch.setattr(loader, "load_processor", refuse)
    events: list[Event] = []
    talk = open_chat(folder, "cpu", context=64, emit=events.append)
    assert talk.reads == ("text",)
    assert [event.message for event in events if isinstance(event, Log) and "torchvision" in event.message] == [
        talk.prompts.pictures_note
    ]
    with pytest.raises(BadInput, match="needs torchvision"):
        talk.reply([user("What?", picture(40, 40))], GREEDY)


@pytest.mark.slow
def test_a_quantized_model_answers_as_its_dequantized_weights(tmp_path: Path) -> None:
    source, output = save_vision_model("qwen3_vl", tmp_path / "source"), tmp_path / "output"
    options = ["--recipe", "rtn", "--group-size", "32", "--device", "cpu", "--samples", "2", "--seqlen", "32"]
    assert main(["quantize", str(source), "--output", str(output), *options]) == 0
    talk = load(str(output), "cpu", context=200)
    assert talk.reads == ("text", "pictures")
    original = loader.load_model(str(output), "cpu", dtype=talk.loaded.dtype).model  # type: ignore[attr-defined]
    messages = [user("What is it?", picture(40, 64))]
    expected = of_transformers(original, talk, messages).sequences[0]
    start = len(talk.prompts.write(messages).ids)
    assert answered(talk, messages)[1] == expected[start : start + TOKENS - 1].tolist()
