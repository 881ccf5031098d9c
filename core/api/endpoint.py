"""A model for other programs, and how fast it is, as Python calls. Imports no torch until a call needs it.

Knows `core.api.serve_call` and `core.api.bench_call`; nothing of how anything is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from core.api.chats import open_chat
from core.control import never
from core.events import Emit, Event, Result, Stage
from core.model_id import absolute
from core.threads import stream

Asked = Callable[[], bool]
PathLike = str | os.PathLike[str]


def serve(
    model: PathLike,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str = "",
    device: str = "auto",
    backend: str = "auto",
    context: int | None = None,
    should_stop: Asked = never,
) -> Iterator[Event]:
    """Answer other programs over OpenAI's interface until the iterator is closed; a `Listening` says where.

    Args:
        host: `127.0.0.1`, `::1`, `localhost` for both; another interface only if it is named.
        port: 0 takes a free one, None the usual one; token: that callers have to know, "" makes a new one.
        device, backend, context: as `chat`.

    Raises:
        BitwrightError: the model cannot be loaded, or the address cannot be listened on.
    """
    arguments = {
        "model": absolute(model), "host": host, "port": port, "token": token, "device": device, "backend": backend,
        "context": context,
    }  # fmt: skip

    def work(emit: Emit, stop: Asked) -> None:
        from core.api import serve_call

        emit(Result(serve_call.serve(arguments, emit, stop)))

    return stream(work, should_stop)


def bench(
    model: PathLike,
    *,
    lengths: Sequence[int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    should_stop: Asked = never,
) -> Iterator[Event]:
    """Measure how fast a model reads and writes at several lengths; the last event is a `Result`.

    The figures go to the report of the run that made the model, if it has one.

    Args:
        lengths: tokens of the prompts; None takes the usual ones.

    Raises:
        BitwrightError: the model cannot be loaded, or no length fits its context.
    """
    name = absolute(model)
    arguments = {} if lengths is None else {"lengths": list(lengths)}

    def work(emit: Emit, stop: Asked) -> None:
        from core.api import bench_call

        emit(Stage("load"))
        loaded: Any = open_chat(name, device, backend=backend, emit=emit, should_stop=stop).loaded
        emit(Stage("bench"))
        try:
            emit(Result(bench_call.bench(loaded, arguments, emit, stop, name)))
        finally:
            loaded.runner.close()

    return stream(work, should_stop)
