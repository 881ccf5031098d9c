"""The calls of a chat, asked without a process: loading, answers, figures, and what the report of a run tells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, BitwrightError, Cancelled
from core.events import Event, Log, Progress, Token
from core.inference import devices as machine
from core.inference.evaluate import perplexity
from core.inference.loader import load_model
from core.model.headers import read_folder
from core.quant import heldout
from core.service import chat_calls
from core.service.chat_calls import Chat, reported_perplexity
from tests.core.tiny_model import CONFIG, save_model

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("chat-calls") / "model")


@pytest.fixture(scope="module")
def open_chat(model: Path) -> Chat:
    chat = Chat()
    ask(chat, "chat_open", model=str(model), device="cpu")
    return chat


@pytest.fixture
def chat() -> Iterator[Chat]:
    found = Chat()
    yield found
    found._close()


def ask(chat: Chat, name: str, seen: list[Event] | None = None, **arguments: Any) -> dict[str, Any]:
    """The values of a call, as they look on the other side of the pipe."""
    emit = [].append if seen is None else seen.append
    values: dict[str, Any] = json.loads(json.dumps(chat.table()[name](arguments, emit, lambda: False)))
    return values


@pytest.mark.parametrize("name", ["chat_say", "chat_count", "chat_perplexity", "chat_bench"])
def test_nothing_is_answered_without_a_model(chat: Chat, name: str) -> None:
    with pytest.raises(BadInput, match="No model is open"):
        ask(chat, name, messages=HELLO, sampling={})


def test_the_same_model_is_not_loaded_twice(chat: Chat, model: Path) -> None:
    ask(chat, "chat_open", model=str(model), device="cpu")
    first = chat._talk
    ask(chat, "chat_open", model=str(model), device="cpu")
    assert chat._talk is first


@pytest.mark.parametrize("other", [{"backend": "dense"}, {"context": 64}])
def test_the_same_model_in_another_way_is_loaded_again(chat: Chat, model: Path, other: dict[str, Any]) -> None:
    ask(chat, "chat_open", model=str(model), device="cpu")
    first = chat._talk
    values = ask(chat, "chat_open", model=str(model), device="cpu", **other)
    assert chat._talk is not first
    assert values["context"] == other.get("context", CONFIG["max_position_embeddings"])


def test_a_folder_that_holds_another_model_now_is_loaded_again(chat: Chat, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "changing")
    ask(chat, "chat_open", model=str(folder), device="cpu")
    first = chat._talk
    (folder / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 128}))
    assert ask(chat, "chat_open", model=str(folder), device="cpu")["context"] == 128
    assert chat._talk is not first


def test_a_model_that_cannot_be_loaded_leaves_none_open(chat: Chat, model: Path) -> None:
    ask(chat, "chat_open", model=str(model), device="cpu")
    with pytest.raises(BitwrightError):
        ask(chat, "chat_open", model=str(model / "nothing"), device="cpu")
    with pytest.raises(BadInput, match="No model is open"):
        ask(chat, "chat_say", messages=HELLO, sampling={})


@pytest.mark.parametrize("context", [0, "many", 1.5, True])
def test_a_context_that_is_none_is_refused(chat: Chat, model: Path, context: Any) -> None:
    with pytest.raises(BadInput, match="context"):
        ask(chat, "chat_open", model=str(model), context=context)


def test_what_is_said_of_a_loaded_model(open_chat: Chat, model: Path) -> None:
    values = ask(open_chat, "chat_open", model=str(model), device="cpu")
    assert (values["schemes"], values["folder"], values["label"]) == ({}, str(model), "model")
    assert values["weight_bytes"] == sum(info.nbytes for info in read_folder(model).values())
    assert values["device_name"] == machine.choose("cpu").name
    assert (values["template"], values["thinking"], values["perplexity"]) == (True, False, None)
    assert values["memory_bytes"] > 0
    assert {"name", "usable", "why_not", "layers"} <= set(values["backends"][0])


def test_a_device_that_is_not_there_becomes_the_cpu_and_says_so(chat: Chat, model: Path) -> None:
    seen: list[Event] = []
    values = ask(chat, "chat_open", seen, model=str(model), device="cuda:77")
    assert (values["device"], "cuda:77" in values["device_note"]) == ("cpu", True)
    assert [event.level for event in seen if isinstance(event, Log) and "cuda:77" in event.message] == ["warning"]


def test_an_answer_comes_in_tokens_and_figures(open_chat: Chat) -> None:
    seen: list[Event] = []
    values = ask(open_chat, "chat_say", seen, messages=HELLO, sampling={"max_tokens": 6, "temperature": 1.0, "seed": 4})
    assert "".join(event.text for event in seen if isinstance(event, Token)) == values["text"]
    assert len(values["pieces"]) == values["tokens"] <= 6
    assert (values["seed"], values["dropped_messages"]) == (4, 0)
    expected = {
        "prompt_tokens", "cached_tokens", "tokens", "first_token_seconds", "seconds", "tokens_per_second",
        "prompt_tokens_per_second", "ended_by", "dropped_messages", "memory_bytes", "seed", "pieces",
        "thinking_seconds",
    }  # fmt: skip
    assert expected <= set(values)


def test_the_second_question_finds_the_first_in_the_cache(open_chat: Chat) -> None:
    first = ask(open_chat, "chat_say", messages=HELLO, sampling={"max_tokens": 4})
    messages = [*HELLO, {"role": "assistant", "content": first["text"]}, *HELLO]
    assert ask(open_chat, "chat_say", messages=messages, sampling={"max_tokens": 4})["cached_tokens"] >= 22


def test_an_answer_is_continued(open_chat: Chat) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Hi"}]
    values = ask(open_chat, "chat_say", messages=messages, sampling={"max_tokens": 2}, continue_last=True)
    assert values["prompt_tokens"] == len("user: hello\nassistant: Hi")


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages": HELLO, "sampling": {"heat": 1}}, {"messages": HELLO, "sampling": {"stop": 3}},
        {"messages": HELLO, "sampling": {"stop": [""]}}, {"messages": HELLO, "sampling": 3},
        {"messages": "hello", "sampling": {}}, {"messages": ["hello"], "sampling": {}}, {"sampling": {}},
        {"messages": [], "sampling": {}}, {"messages": [{"role": "user"}], "sampling": {}},
        {"messages": HELLO, "sampling": {}, "continue_last": True},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(open_chat: Chat, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ask(open_chat, "chat_say", **arguments)


def test_a_stop_text_may_be_given_alone(open_chat: Chat) -> None:
    assert ask(open_chat, "chat_say", messages=HELLO, sampling={"max_tokens": 1, "stop": "x"})["tokens"] == 1


def test_a_conversation_is_counted(open_chat: Chat) -> None:
    values = ask(open_chat, "chat_count", messages=HELLO)
    assert values == {"tokens": len("user: hello\nassistant:"), "context": CONFIG["max_position_embeddings"]}


def test_perplexity_is_that_of_the_plain_model_on_a_runs_own_rows(
    open_chat: Chat, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "WINDOWS", 2)
    seen: list[Event] = []
    values = ask(open_chat, "chat_perplexity", seen)
    plain = load_model(str(model), "cpu", "float32")
    rows = heldout.windows(plain.tokenizer, 256)
    expected = perplexity(plain.model, rows)
    assert math.isclose(values["value"], expected.value, rel_tol=5e-3)
    assert (values["tokens"], values["text"]) == (expected.tokens, chat_calls.HELD_OUT)
    assert [event.fraction for event in seen if isinstance(event, Progress)] == [0.5, 1.0]


def test_measuring_perplexity_can_be_stopped(open_chat: Chat) -> None:
    with pytest.raises(Cancelled):
        open_chat.perplexity({}, lambda _event: None, lambda: True)


def report(folder: Path, value: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "bitwright.json").write_text(json.dumps(value))
    return folder


MEASURED = {"perplexity": {"original": 20.5, "quantized": 21.25, "text": "a text"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MEASURED, {"value": 21.25, "text": "a text"}),
        ({"error": None, "source_report": MEASURED}, {"value": 21.25, "text": "a text"}),
        ({"error": {"largest": 1}, "source_report": MEASURED}, None),
        ({"error": None, "source_report": None}, None),
        ({"perplexity": {"quantized": None}}, None),
        ({"perplexity": 3}, None),
        ([], None),
    ],
)
def test_the_report_of_a_run_tells_its_perplexity(tmp_path: Path, value: Any, expected: Any) -> None:
    folder = report(tmp_path / "out", value)
    assert reported_perplexity(folder, folder) == expected


def test_a_report_beside_the_only_gguf_file_is_its_own(tmp_path: Path) -> None:
    folder = report(tmp_path / "out", MEASURED)
    file = folder / "model.gguf"
    file.touch()
    assert reported_perplexity(file, tmp_path / "elsewhere") == {"value": 21.25, "text": "a text"}
    (folder / "other.gguf").touch()
    assert reported_perplexity(file, tmp_path / "elsewhere") is None


def test_a_model_without_a_report_has_none_to_tell(tmp_path: Path) -> None:
    assert reported_perplexity(Path("some/model"), tmp_path) is None
