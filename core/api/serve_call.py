"""The call that loads a model and answers other programs until it is stopped (`core.serving`).

Turns JSON values into calls of the rest of `core`. Imports torch and the server only when it is called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final

from core.api import chats
from core.errors import BadInput, MissingDependency
from core.events import Emit, Stage

Values = dict[str, Any]
_LIBRARIES: Final = ("starlette", "uvicorn")


def serve(arguments: Mapping[str, Any], emit: Emit, should_stop: Callable[[], bool]) -> Values:
    """Serve `model` on `host` and `port`: `requests` that came to it, and `seconds`, once it is stopped.

    `Stage("load")`, then a `Listening`, then a `Log` for each request. `port` 0 takes a free one; without a `token` a
    new one is made, which `Listening` tells.

    Raises:
        BitwrightError: the model cannot be loaded, or the address cannot be listened on.
    """
    lacking = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if lacking:
        raise MissingDependency(f"The endpoint needs {' and '.join(lacking)}.", f"pip install {' '.join(lacking)}")
    from core.serving import server

    place = server.Place(
        host=str(arguments.get("host") or server.HOST),
        port=_whole(arguments, "port", server.PORT),
        token=str(arguments.get("token") or ""),
    )
    for early in server.listen(place.host, place.port):
        early.close()  # a port that is taken is told before a large model is loaded
    emit(Stage("load"))
    context = _whole(arguments, "context", 0) or None
    device, backend = (str(arguments.get(key) or "auto") for key in ("device", "backend"))
    opened = chats.open_chat(
        str(arguments["model"]), device, backend=backend, context=context, emit=emit, should_stop=should_stop
    )
    loaded: Any = opened.loaded
    try:
        return server.serve(opened, loaded.label, place, emit, should_stop)
    finally:
        loaded.runner.close()


def _whole(arguments: Mapping[str, Any], name: str, default: int) -> int:
    value = arguments.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise BadInput(f"{name} {value!r} is no whole number.", "Leave it out.")
    return value
