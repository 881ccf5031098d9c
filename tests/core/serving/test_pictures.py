"""Pictures in chat completions: accepted as data URIs, refused in every other form with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.serving import application
from tests.core.pictures.made_pictures import data_uri, encoded, halves, png_bomb
from tests.core.serving.conftest import Running
from tests.core.serving.speaker import Speaker

PNG = data_uri(encoded(halves()))
SMALL = data_uri(encoded(halves(3, 2)))


def picture(url: Any = PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def ask(server: Running, *parts: Any, role: str = "user") -> tuple[int, Any]:
    body = {"messages": [{"role": role, "content": list(parts)}, {"role": "user", "content": "Why?"}]}
    status, reply, _ = server.ask("POST", "/v1/chat/completions", body)
    return status, reply


@pytest.fixture
def seeing(start: Callable[..., Running]) -> Running:
    return start(Speaker(reads=("text", "pictures")))


@pytest.mark.parametrize(
    ("parts", "content", "pictures"),
    [
        ([text("What is "), picture(), text("it?")], "What is it?", (PNG,)),
        ([picture(SMALL), picture(), text("Compare.")], "Compare.", (SMALL, PNG)),
        ([picture()], "", (PNG,)),
        ([text("a"), {"type": "image_url", "image_url": PNG}], "a", (PNG,)),
    ],
)
def test_pictures_reach_the_model_in_their_order(
    seeing: Running, parts: list[Any], content: str, pictures: tuple[str, ...]
) -> None:
    assert ask(seeing, *parts)[0] == 200
    assert seeing.speaker.asked[0][0] == {"role": "user", "content": content, "pictures": pictures}


def test_messages_of_text_have_no_pictures(seeing: Running) -> None:
    assert ask(seeing, text("a"))[0] == 200
    assert seeing.speaker.asked[0][0] == {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    "url",
    ["http://host/cat.png", "https://host/cat.png", "file:///etc/passwd", "/etc/passwd", str(Path(__file__)), ""],
)
def test_addresses_and_paths_are_refused(seeing: Running, url: str) -> None:
    status, reply = ask(seeing, picture(url))
    assert status == 400
    assert reply["error"]["param"] == "messages[0].content[0].image_url"
    assert "Pictures are not downloaded" in reply["error"]["message"]
    assert seeing.speaker.asked == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (data_uri(b"text"), "not a picture"),
        (data_uri(encoded(halves(40, 40))[:-30]), "damaged"),
        (data_uri(png_bomb(60_000, 60_000)), "too many pixels"),
        ("data:image/png;base64,%%%", "damaged"),
        ("data:text/plain;base64,aGk=", "not a picture"),
    ],
)
def test_bad_pictures_are_refused(seeing: Running, url: str, words: str) -> None:
    status, reply = ask(seeing, picture(url))
    assert (status, reply["error"]["param"]) == (400, "messages[0].content")
    assert words in reply["error"]["message"]


@pytest.mark.parametrize("value", [None, {}, {"url": 3}, 7, [PNG]])
def test_missing_url_is_refused(seeing: Running, value: Any) -> None:
    status, reply = ask(seeing, {"type": "image_url", "image_url": value})
    assert (status, reply["error"]["message"]) == (400, "image_url must have a url.")


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_questions_can_have_pictures(seeing: Running, role: str) -> None:
    status, reply = ask(seeing, picture(), role=role)
    assert (status, reply["error"]["message"]) == (400, "Only messages with the role user can have pictures.")


def test_a_model_of_text_refuses_pictures(server: Running) -> None:
    status, reply = ask(server, picture(), text("What?"))
    assert (status, reply["error"]["message"]) == (400, application.NO_PICTURES)
    assert server.speaker.asked == []


def test_the_reason_why_pictures_cannot_be_read_is_given(start: Callable[..., Running]) -> None:
    status, reply = ask(start(Speaker(pictures_note="The processor needs torchvision.")), picture())
    assert (status, reply["error"]["message"]) == (400, "The processor needs torchvision.")


@pytest.mark.parametrize("kind", ["input_audio", "video_url", "file", "image"])
def test_other_parts_are_refused(seeing: Running, kind: str) -> None:
    status, reply = ask(seeing, {"type": kind, kind: {"data": "aGk="}})
    assert (status, reply["error"]["param"]) == (400, "messages[0].content[0]")


def test_requests_with_pictures_may_be_longer(
    seeing: Running, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "BODY_BYTES", 400)
    long = [text("x" * 500)]
    assert ask(seeing, *long)[0] == 200
    assert ask(server, *long)[0] == 413
