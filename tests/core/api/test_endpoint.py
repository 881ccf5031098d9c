"""A tiny model served through the endpoint, and requests by the `openai` client and over plain HTTP."""

from __future__ import annotations

import importlib.util
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.api.endpoint import serve_until_stopped
from core.control import ShouldStop
from core.errors import BadInput, MissingDependency
from core.events import Emit, Event, Listening
from tests.core.tiny_model import save_model

openai = pytest.importorskip("openai")
HELLO = [{"role": "user", "content": "hello"}]


@dataclass
class Served:
    client: Any
    model: str


def serve(
    model: str,
    emit: Emit = lambda _event: None,
    should_stop: ShouldStop = lambda: False,
    *,
    backend: str = "auto",
    port: int = 0,
) -> None:
    serve_until_stopped(
        model, host="127.0.0.1", port=port, token="", device="cpu", backend=backend, context=None, emit=emit,
        should_stop=should_stop,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = save_model(tmp_path_factory.mktemp("serve") / "tiny")
    places: queue.Queue[Listening] = queue.Queue()
    stop = threading.Event()

    def emit(event: Event) -> None:
        if isinstance(event, Listening):
            places.put(event)

    thread = threading.Thread(target=lambda: serve(str(folder), emit, stop.is_set, backend="dense"))
    thread.start()
    place = places.get(timeout=240)
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key=place.token, max_retries=0, timeout=60) as client:
        yield Served(client, place.model)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_the_model_has_its_folders_name(served: Served) -> None:
    assert served.model == "tiny"


def test_the_same_seed_gives_the_same_answer(served: Served) -> None:
    asked = {"model": "tiny", "messages": HELLO, "seed": 5, "max_tokens": 8}
    first, second = (served.client.chat.completions.create(**asked) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content


def test_pieces_make_the_whole(served: Served) -> None:
    asked = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 8}
    whole = served.client.chat.completions.create(**asked).choices[0].message.content
    pieces = served.client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == whole


def test_a_second_question_does_not_read_the_first_again(served: Served) -> None:
    asked = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 4}
    served.client.chat.completions.create(**asked)
    usage = served.client.chat.completions.create(**asked).usage
    assert usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens - 1


def test_an_unlimited_answer_ends_with_the_context(served: Served) -> None:
    found = served.client.chat.completions.create(model="tiny", messages=HELLO, temperature=0)
    assert found.usage.total_tokens <= 256
    assert found.choices[0].finish_reason in ("length", "stop")


def test_a_text_that_is_too_long_is_refused(served: Served) -> None:
    with pytest.raises(openai.BadRequestError):
        served.client.completions.create(model="tiny", prompt="a" * 300)


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="Cannot listen on"):
            serve(str(tmp_path / "nothing"), port=taken.getsockname()[1])


def test_a_missing_library_has_an_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install starlette uvicorn"):
        serve("demo")
