"""Serving of a model to other programs. Imports torch and the server when a call needs them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any, Final

from core.api.chats import open_chat
from core.codec import encode
from core.control import ShouldStop, never
from core.errors import MissingDependency
from core.events import Emit, Event, Result, Stage
from core.model_id import absolute
from core.serving.summary import ServerSummary
from core.threads import stream

PathLike = str | os.PathLike[str]
_LIBRARIES: Final = ("starlette", "uvicorn")


def serve(
    model: PathLike,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str = "",
    device: str = "auto",
    backend: str = "auto",
    context: int | None = None,
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Answer requests of OpenAI's interface until the iterator is closed; `Listening` has the address.

    The events are those of `serve_until_stopped`, then a `Result` with the totals.

    Args:
        host: `127.0.0.1`, `::1` or `localhost` for both; no other interface unless it is given here.
        port: 0 takes a free one, None the default.
        token: required of every request; "" makes a new one.
        device, backend, context: as in `chat`.

    Raises:
        BitwrightError: the model cannot be loaded, or the address cannot be listened on.
    """
    name = absolute(model)

    def work(emit: Emit, stop: ShouldStop) -> None:
        summary = serve_until_stopped(
            name, host=host, port=port, token=token, device=device, backend=backend, context=context, emit=emit,
            should_stop=stop,
        )  # fmt: skip
        emit(Result(encode(summary)))

    return stream(work, should_stop)


def serve_until_stopped(
    model: str,
    *,
    host: str,
    port: int | None,
    token: str,
    device: str,
    backend: str,
    context: int | None,
    emit: Emit,
    should_stop: ShouldStop,
) -> ServerSummary:
    """Serve `model` in this thread until `should_stop`; arguments and exceptions as in `serve`.

    Emits `Stage("load")`, then `Listening`, then a `Log` for each request.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(f"The endpoint needs {' and '.join(missing)}.", f"pip install {' '.join(missing)}")
    from core.serving import server

    place = server.Place(host=host, port=server.PORT if port is None else port, token=token)
    for probe in server.listen(place.host, place.port):
        probe.close()  # report a port in use before a large model is loaded
    emit(Stage("load"))
    chat = open_chat(model, device, backend=backend, context=context, emit=emit, should_stop=should_stop)
    loaded: Any = chat.loaded
    try:
        return server.serve(chat, loaded.label, place, emit, should_stop)
    finally:
        loaded.runner.close()
