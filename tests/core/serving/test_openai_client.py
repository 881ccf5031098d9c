"""Tests of the endpoint with the `openai` client from PyPI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.errors import OutOfMemory
from core.inference.generation.thinking import Part
from tests.core.serving.conftest import TOKEN, Running
from tests.core.serving.speaker import Speaker

openai = pytest.importorskip("openai")
CLIENTS = 50


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with client_of(server) as found:
        yield found


def client_of(server: Running, token: str = TOKEN) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=30)


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_one_model_is_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_the_one_model_is_found_by_its_name(start: Callable[..., Running]) -> None:
    with client_of(start(Speaker(), "maker/Tiny (demo)")) as client:
        assert client.models.retrieve("maker/Tiny-demo").owned_by == "bitwright"


def test_a_whole_answer_is_returned(client: Any) -> None:
    found = client.chat.completions.create(model="tiny", messages=question("one two three"))
    assert found.choices[0].message.content == "one two three "
    assert found.choices[0].finish_reason == "stop"


def test_the_usage_of_an_answer_is_returned(client: Any) -> None:
    found = client.chat.completions.create(model="tiny", messages=question("one two three")).usage
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (3, 3, 6)


def test_an_answer_is_streamed(client: Any) -> None:
    stream = client.chat.completions.create(model="tiny", messages=question("one two"), stream=True)
    deltas = [chunk.choices[0].delta.content for chunk in stream]
    assert deltas == ["", "one ", "two ", None]


def test_the_last_piece_has_the_finish_reason(client: Any) -> None:
    stream = client.chat.completions.create(model="tiny", messages=question("a b c"), stream=True, max_tokens=2)
    assert [chunk.choices[0].finish_reason for chunk in stream] == [None, None, None, "length"]


def test_the_usage_is_the_last_piece_if_requested(client: Any) -> None:
    *others, last = client.chat.completions.create(
        model="tiny", messages=question("a b"), stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == []
    assert last.usage.total_tokens == 4
    assert all(chunk.usage is None for chunk in others)


def test_a_stop_text_ends_an_answer(client: Any) -> None:
    found = client.chat.completions.create(model="tiny", messages=question("one two three"), stop=["two"])
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.completion_tokens == 2


def test_sampling_parameters_are_passed_on(client: Any, server: Running) -> None:
    client.chat.completions.create(
        model="tiny", messages=question("hi"), temperature=0.25, top_p=0.5, seed=7, presence_penalty=1,
        frequency_penalty=-1, max_completion_tokens=9, stop="x", extra_body={"top_k": 3, "min_p": 0.1},
    )  # fmt: skip
    (found,) = server.speaker.samplings
    assert (found.temperature, found.top_p, found.seed, found.top_k, found.min_p) == (0.25, 0.5, 7, 3, 0.1)
    assert (found.presence_penalty, found.frequency_penalty, found.max_tokens, found.stop) == (1, -1, 9, ("x",))


def test_thinking_has_its_own_field(start: Callable[..., Running]) -> None:
    words = [Part("hm", "thinking"), Part("yes")]
    with client_of(start(Speaker(words))) as client:
        message = client.chat.completions.create(model="tiny", messages=question("hi")).choices[0].message
    assert message.content == "yes"
    assert message.reasoning_content == "hm"


def test_a_text_is_continued(client: Any, server: Running) -> None:
    found = client.completions.create(model="tiny", prompt="one two", max_tokens=1)
    assert server.speaker.asked == ["one two"]
    assert found.choices[0].text == "one "
    assert found.choices[0].finish_reason == "length"


def test_a_text_completion_is_streamed(client: Any) -> None:
    stream = client.completions.create(model="tiny", prompt="one two", stream=True, echo=True)
    assert [chunk.choices[0].text for chunk in stream] == ["one two", "one ", "two ", ""]


def test_a_wrong_token_is_refused(server: Running) -> None:
    with (
        client_of(server, "wrong-token") as client,
        pytest.raises(openai.AuthenticationError, match="token is invalid"),
    ):
        client.models.list()


def test_another_model_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt", messages=question("hi"))
    assert caught.value.code == "model_not_found"


def test_log_probabilities_are_refused_by_name(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=question("hi"), logprobs=True)
    assert caught.value.param == "logprobs"


def test_a_conversation_that_is_too_long_is_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=question("word " * 101))
    assert caught.value.code == "context_length_exceeded"


def test_a_failure_of_the_model_is_a_server_error(start: Callable[..., Running]) -> None:
    server = start(Speaker(error=OutOfMemory("There is no room.", "Take a smaller model.")))
    with client_of(server) as client, pytest.raises(openai.InternalServerError, match="There is no room"):
        client.chat.completions.create(model="tiny", messages=question("hi"), stream=True)


def test_a_client_that_disconnects_ends_its_answer(start: Callable[..., Running]) -> None:
    server = start(Speaker())
    server.speaker.pause_after = 1
    with client_of(server) as client:
        stream = client.chat.completions.create(model="tiny", messages=question("a b c"), stream=True)
        next(stream)
        stream.close()
        wait_for(lambda: server.speaker.stops == 1)


def test_a_waiting_client_that_disconnects_leaves_the_queue(start: Callable[..., Running]) -> None:
    speaker = Speaker()
    server = start(speaker)
    speaker.going.clear()
    with client_of(server) as first, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(first.chat.completions.create, model="tiny", messages=question("first"))
        wait_for(lambda: len(speaker.asked) == 1)
        impatient = openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0, timeout=0.3)
        with impatient, pytest.raises(openai.APITimeoutError):
            impatient.chat.completions.create(model="tiny", messages=question("second"))
        wait_for(lambda: any("499" in line for line in server.logs))
        speaker.going.set()
        answer.result(20)
        first.chat.completions.create(model="tiny", messages=question("third"))
    assert [messages[0]["content"] for messages in speaker.asked] == ["first", "third"]


def test_fifty_concurrent_requests_are_answered_by_one_thread(client: Any, server: Running) -> None:
    server.speaker.going.clear()

    def ask(number: int) -> str:
        stream = number % 2 == 0
        found = client.chat.completions.create(model="tiny", messages=question(f"number {number}"), stream=stream)
        if stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in found)
        return found.choices[0].message.content or ""

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [pool.submit(ask, number) for number in range(CLIENTS)]
        server.speaker.going.set()
        assert [answer.result(60) for answer in answers] == [f"number {number} " for number in range(CLIENTS)]
    assert server.speaker.threads == {"answers"}


def test_requests_are_answered_in_order(client: Any, server: Running) -> None:
    speaker = server.speaker
    speaker.going.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = []
        for number in range(3):
            before = server.waiting() if number else -1
            ask = client.chat.completions.create
            answers.append(pool.submit(ask, model="tiny", messages=question(f"number {number}")))
            wait_for(lambda: len(speaker.asked) == 1 if number == 0 else server.waiting() == before + 1)  # noqa: B023
        speaker.going.set()
        for answer in answers:
            answer.result(20)
    assert [messages[0]["content"] for messages in speaker.asked] == [f"number {number}" for number in range(3)]


def test_a_request_to_a_full_queue_is_refused(start: Callable[..., Running]) -> None:
    server = start(Speaker(), max_waiting=1)
    server.speaker.going.clear()
    with client_of(server) as client, ThreadPoolExecutor(2) as pool:
        ask = client.chat.completions.create
        first = pool.submit(ask, model="tiny", messages=question("one"))
        wait_for(lambda: len(server.speaker.asked) == 1)
        second = pool.submit(ask, model="tiny", messages=question("two"))
        wait_for(lambda: server.waiting() == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(model="tiny", messages=question("three"))
        server.speaker.going.set()
        assert caught.value.response.headers["retry-after"]
        assert first.result(20)
        assert second.result(20)


def test_waiting_requests_are_refused_at_shutdown(start: Callable[..., Running]) -> None:
    server = start(Speaker())
    server.speaker.going.clear()
    with client_of(server) as client, ThreadPoolExecutor(2) as pool:
        ask = client.chat.completions.create
        answers = [pool.submit(ask, model="tiny", messages=question("one")) for _ in range(2)]
        wait_for(lambda: server.waiting() == 1)
        server.stop.set()
        for answer in answers:
            with pytest.raises(openai.InternalServerError, match="shutting down"):
                answer.result(20)


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most 20 seconds."""
    for _ in range(2000):
        if what():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come")
