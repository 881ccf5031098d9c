"""Tests of the handlers of a chat without a child process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from core.codec import decode, encode
from core.errors import BadInput, BitwrightError, Cancelled
from core.events import Event, Log, Progress, Token
from core.inference import devices as machine
from core.inference.evaluate import perplexity
from core.inference.generation.message import Message
from core.inference.generation.settings import Sampling
from core.inference.loader import load_model
from core.model.headers import read_folder
from core.quant import heldout
from core.service import chat_calls
from core.service.chat_calls import ChatCalls, reported_perplexity
from core.service.messages import (
    CountTokens,
    LoadModel,
    MeasurePerplexity,
    MeasureSpeed,
    ReportedPerplexity,
    Request,
    Say,
    TokenCount,
    result_type,
)
from tests.core.tiny_model import CONFIG, save_model

HELLO: tuple[Message, ...] = ({"role": "user", "content": "hello"},)
R = TypeVar("R")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("chat-calls") / "model")


@pytest.fixture(scope="module")
def open_chat(model: Path) -> ChatCalls:
    chat = ChatCalls()
    ask(chat, LoadModel(str(model), "cpu"))
    return chat


@pytest.fixture
def chat() -> Iterator[ChatCalls]:
    found = ChatCalls()
    yield found
    found._close()


def ask(chat: ChatCalls, request: Request[R], seen: list[Event] | None = None) -> R:
    """Return the result of a request after encoding and decoding."""
    events: list[Event] = [] if seen is None else seen
    result = chat.handlers()[type(request)](request, events.append, lambda: False)
    return decode(result_type(type(request)), json.loads(json.dumps(encode(result))))


@pytest.mark.parametrize("request_", [Say(HELLO), CountTokens(HELLO), MeasurePerplexity(), MeasureSpeed()])
def test_requests_without_a_model_are_errors(chat: ChatCalls, request_: Request[Any]) -> None:
    with pytest.raises(BadInput, match="No model is loaded"):
        ask(chat, request_)


def test_same_model_is_not_loaded_twice(chat: ChatCalls, model: Path) -> None:
    ask(chat, LoadModel(str(model), "cpu"))
    first = chat._model
    ask(chat, LoadModel(str(model), "cpu"))
    assert chat._model is first


@pytest.mark.parametrize("other", [{"backend": "dense"}, {"context": 64}])
def test_same_model_with_other_settings_is_loaded_again(chat: ChatCalls, model: Path, other: dict[str, Any]) -> None:
    ask(chat, LoadModel(str(model), "cpu"))
    first = chat._model
    values = ask(chat, LoadModel(str(model), "cpu", **other))
    assert chat._model is not first
    assert values.context == other.get("context", CONFIG["max_position_embeddings"])


def test_changed_folder_is_loaded_again(chat: ChatCalls, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "changing")
    ask(chat, LoadModel(str(folder), "cpu"))
    first = chat._model
    (folder / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 128}))
    assert ask(chat, LoadModel(str(folder), "cpu")).context == 128
    assert chat._model is not first


def test_failed_load_leaves_no_model_loaded(chat: ChatCalls, model: Path) -> None:
    ask(chat, LoadModel(str(model), "cpu"))
    with pytest.raises(BitwrightError):
        ask(chat, LoadModel(str(model / "nothing"), "cpu"))
    with pytest.raises(BadInput, match="No model is loaded"):
        ask(chat, Say(HELLO))


def test_context_of_zero_is_an_error(chat: ChatCalls, model: Path) -> None:
    with pytest.raises(BadInput, match="context"):
        ask(chat, LoadModel(str(model), context=0))


def test_description_of_a_loaded_model(open_chat: ChatCalls, model: Path) -> None:
    values = ask(open_chat, LoadModel(str(model), "cpu"))
    assert (values.schemes, values.folder, values.label) == ({}, str(model), "model")
    assert values.weight_bytes == sum(info.nbytes for info in read_folder(model).values())
    assert values.device_name == machine.choose("cpu").name
    assert (values.template, values.thinking, values.perplexity) == (True, False, None)
    assert values.memory_bytes > 0
    assert "native" in [row.name for row in values.backends]


def test_missing_device_is_replaced_by_the_cpu_with_a_warning(chat: ChatCalls, model: Path) -> None:
    seen: list[Event] = []
    loaded = ask(chat, LoadModel(str(model), "cuda:77"), seen)
    assert (loaded.device, "cuda:77" in loaded.device_note) == ("cpu", True)
    assert [event.level for event in seen if isinstance(event, Log) and "cuda:77" in event.message] == ["warning"]


def test_answer_has_tokens_and_statistics(open_chat: ChatCalls) -> None:
    seen: list[Event] = []
    said = ask(open_chat, Say(HELLO, Sampling(max_tokens=6, temperature=1.0, seed=4)), seen)
    assert "".join(event.text for event in seen if isinstance(event, Token)) == said.text
    assert len(said.statistics.pieces) == said.statistics.tokens <= 6
    assert (said.statistics.seed, said.statistics.dropped_messages) == (4, 0)


def test_second_question_reuses_the_cache(open_chat: ChatCalls) -> None:
    first = ask(open_chat, Say(HELLO, Sampling(max_tokens=4)))
    messages: tuple[Message, ...] = (*HELLO, {"role": "assistant", "content": first.text}, *HELLO)
    assert ask(open_chat, Say(messages, Sampling(max_tokens=4))).statistics.cached_tokens >= 22


def test_answer_is_continued(open_chat: ChatCalls) -> None:
    messages: tuple[Message, ...] = (*HELLO, {"role": "assistant", "content": "Hi"})
    said = ask(open_chat, Say(messages, Sampling(max_tokens=2), continue_last=True))
    assert said.statistics.prompt_tokens == len("user: hello\nassistant: Hi")


WITHOUT_CONTENT: Any = {"role": "user"}


@pytest.mark.parametrize("request_", [Say(()), Say((WITHOUT_CONTENT,)), Say(HELLO, continue_last=True)])
def test_invalid_conversation_is_an_error(open_chat: ChatCalls, request_: Say) -> None:
    with pytest.raises(BadInput):
        ask(open_chat, request_)


def test_count_tokens_of_a_conversation(open_chat: ChatCalls) -> None:
    expected = TokenCount(len("user: hello\nassistant:"), CONFIG["max_position_embeddings"])
    assert ask(open_chat, CountTokens(HELLO)) == expected


def test_perplexity_equals_that_of_the_plain_model_on_the_text_of_a_run(
    open_chat: ChatCalls, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "WINDOWS", 2)
    seen: list[Event] = []
    values = ask(open_chat, MeasurePerplexity(), seen)
    plain = load_model(str(model), "cpu", "float32")
    rows = heldout.windows(plain.tokenizer, 256)
    expected = perplexity(plain.model, rows)
    assert math.isclose(values.value, expected.value, rel_tol=5e-3)
    assert (values.tokens, values.text) == (expected.tokens, chat_calls.HELD_OUT)
    assert [event.fraction for event in seen if isinstance(event, Progress)] == [0.5, 1.0]


def test_measurement_of_perplexity_can_be_stopped(open_chat: ChatCalls) -> None:
    with pytest.raises(Cancelled):
        open_chat.perplexity(MeasurePerplexity(), lambda _event: None, lambda: True)


def report(folder: Path, value: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "bitwright.json").write_text(json.dumps(value))
    return folder


MEASURED = {"perplexity": {"original": 20.5, "quantized": 21.25, "text": "a text"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MEASURED, ReportedPerplexity(21.25, "a text")),
        ({"error": None, "source_report": MEASURED}, ReportedPerplexity(21.25, "a text")),
        ({"error": {"largest_difference": 1}, "source_report": MEASURED}, None),
        ({"error": None, "source_report": None}, None),
        ({"perplexity": {"quantized": None}}, None),
        ({"perplexity": 3}, None),
        ([], None),
    ],
)
def test_perplexity_from_the_report_of_a_run(tmp_path: Path, value: Any, expected: Any) -> None:
    folder = report(tmp_path / "out", value)
    assert reported_perplexity(folder, folder) == expected


def test_report_beside_the_only_gguf_file(tmp_path: Path) -> None:
    folder = report(tmp_path / "out", MEASURED)
    file = folder / "model.gguf"
    file.touch()
    assert reported_perplexity(file, tmp_path / "elsewhere") == ReportedPerplexity(21.25, "a text")
    (folder / "other.gguf").touch()
    assert reported_perplexity(file, tmp_path / "elsewhere") is None


def test_no_perplexity_without_a_report(tmp_path: Path) -> None:
    assert reported_perplexity(Path("some/model"), tmp_path) is None
