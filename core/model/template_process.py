"""The child process that renders chat templates: requests on standard input, replies on standard output.

A chat template is a program by the publisher of the model. It runs here with limits on memory and time, so that a
template that does not terminate or allocates gigabytes does not block or crash the application
(ggml-org/llama.cpp#24140, ollama/ollama#17035). Run as a script in isolated mode; imports only the standard library
and Jinja. `core.model.chat_template` starts it.

A message is its length as 8 bytes in big-endian order, followed by JSON. A request has `template`, `values` and
`longest`; the reply has `text`, or `error` and `message`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final

SECONDS: Final = 3.0
"""Limit on the processor time of one rendering. Templates of real models take milliseconds."""
MEMORY_BYTES: Final = 1 << 30
"""Limit on the address space of the process."""
LENGTH: Final = struct.Struct(">Q")
_MESSAGE_CHARS: Final = 1000


def render(template: str, values: Mapping[str, Any], longest: int) -> dict[str, str]:
    """Render a template as transformers does.

    Args:
        template: Jinja source.
        values: variables of the template.
        longest: length limit of the result in characters.

    Returns:
        `text`; or `message` and `error`, which is `refused` (by the template itself), `syntax`, `fails`, `memory` or
        `length`.
    """
    from jinja2 import TemplateSyntaxError

    try:
        pieces, size = [], 0
        for piece in _compiled(template).generate(**values):
            size += len(piece)
            if size > longest:
                return _failed("length", f"more than {longest} characters")
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except TemplateSyntaxError as error:
        return _failed("syntax", f"{error.message} (line {error.lineno})")
    except MemoryError:
        return _failed("memory", "")
    except _refusal() as error:
        return _failed("refused", str(error))
    except RecursionError:
        return _failed("fails", "infinite recursion")
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        detail = str(error) if type(error).__module__.startswith("jinja2") else f"{type(error).__name__}: {error}"
        return _failed("fails", detail)


def _failed(error: str, message: str) -> dict[str, str]:
    return {"error": error, "message": message[:_MESSAGE_CHARS]}


@lru_cache(maxsize=1)
def _refusal() -> type[Exception]:
    """Return the exception class of `raise_exception`, with which a template rejects a conversation."""
    from jinja2 import TemplateError

    class RefusalError(TemplateError):
        pass

    return RefusalError


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Return a Jinja environment with the settings, filters and functions of chat templates in transformers."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `{% generation %}`, which marks answers for training and does not change the text."""

        tags = {"generation"}  # noqa: RUF012 - as the base class declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

        def _render(self, caller: Any) -> Any:
            return caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),  # noqa: DTZ005 - local time, as in transformers
        "dict": _Dictionary(),
        "namespace": _namespace(),
    }
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> None:
    raise _refusal()(str(message))


class _Dictionary:
    """The function `dict()` of templates, without the attributes of the class `dict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def _namespace() -> type[Any]:
    """Return the class `namespace()` of templates, which rejects names that give access to Python internals."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class PlainNamespace(Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            self, rest = args[0], args[1:]
            attributes = dict(*rest, **kwargs)
            for name in attributes:
                PlainNamespace._check(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            PlainNamespace._check(name)
            super().__setitem__(name, value)

        @staticmethod
        def _check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"a namespace cannot hold {name!r}")

    return PlainNamespace


def _messages(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the messages in a stream until its end."""
    while len(head := stream.read(LENGTH.size)) == LENGTH.size:
        (size,) = LENGTH.unpack(head)
        if len(body := stream.read(size)) < size:
            return
        yield body


def _bound_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits, macOS not all of them
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        least = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (least, hard))


def _bound_time(seconds: float) -> None:
    """Let the system kill the process after `seconds` more of processor time; 0 removes the limit."""
    if hasattr(signal, "setitimer"):  # not on Windows; the parent process has a time limit as well
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer requests until standard input ends, which it also does when the parent process ends."""
    sys.path[:0] = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is handled by the parent process
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _environment()
    _bound_memory()
    replies.write(LENGTH.pack(0))  # ready
    replies.flush()
    for message in _messages(sys.stdin.buffer):
        _bound_time(SECONDS)
        request = json.loads(message)
        reply = json.dumps(render(request["template"], request["values"], request["longest"])).encode("ascii")
        _bound_time(0)
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


if __name__ == "__main__":
    main()
