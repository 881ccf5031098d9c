"""The OpenAI-compatible server. Torch and the server libraries are imported when a call needs them."""

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
    """Serve a model through an OpenAI-compatible API until the iterator is closed. `Listening` has the address.

    The events are those of `serve_until_stopped`, then a `Result` with the totals.

    Args:
        host: Host name or address to listen on; `localhost` listens on `127.0.0.1` and `::1`.
        port: Port number; 0 selects a free port, None the default.
        token: API key that every request has to contain; "" creates a random one.
        device, backend, context: As for `chat`.

    Raises:
        BitwrightError: The model cannot be loaded, or the server cannot listen on the address.
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
