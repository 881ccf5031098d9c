"""A model's chat template, rendered by another process within bounds of time, memory and length.

Knows a transformers tokenizer's template and special tokens; what is rendered, and what of, is the caller's.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled
from core.model.template_process import LENGTH, MEMORY_BYTES, render

WALL_SECONDS: Final = 8.0
"""Longest wait for one rendering, where the system bounds no processor time or the machine is busy."""
_START_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.05
_LEAST_CHARS, _CHARS_PER_BYTE = 1 << 20, 8
"""A rendered conversation has at most 8 characters for each byte of what it is made of, and a million more."""
_HINT: Final = "Use another model, or correct the template in its folder."
_TAG: Final = "\N{SYMBOL FOR UNIT SEPARATOR}continued here\N{SYMBOL FOR UNIT SEPARATOR} "
"""Put behind a message that is to be continued. The space at its end tells whether the template strips messages."""
_PROBE: Final = "QuestionProbe"


class TemplateRefusal(BadInput):
    """A template that does not take this conversation, and may take another."""


class ChatTemplate:
    """The template of one tokenizer.

    Attributes:
        text: Jinja text; "" for a model without a template, such as a base model.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take the template (`default`, where there are several by name) and the special tokens of a tokenizer."""
        self.text = template_text(tokenizer)
        self._special = dict(tokenizer.special_tokens_map)
        self._takes_parts: bool | None = None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        continue_last: bool = False,
        should_stop: ShouldStop = never,
    ) -> str:
        """Return a conversation as the template writes it.

        Args:
            messages: `role`, `content` and what else the template reads; `thinking` is `reasoning_content` as well.
            variables: more of the template's variables, such as `enable_thinking`; `add_generation_prompt` is true
                where they do not say otherwise.
            continue_last: end within the last message, which is to go on.
            should_stop: asked many times a second.

        Raises:
            TemplateRefusal: the template refuses the conversation, or fails on it.
            BadInput: it cannot be read, does not end, takes too much memory or writes too much.
            Cancelled: `should_stop` said so.
        """
        shown = [_with_reasoning(message) for message in messages]
        if continue_last:
            shown[-1] = {**shown[-1], "content": str(shown[-1]["content"]) + _TAG}
        values = {
            **self._special,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            **(variables or {}),
        }
        if continue_last:
            values["add_generation_prompt"] = False
        try:
            text = _rendered(self.text, {**values, "messages": shown}, should_stop)
            whole = all(_said(message) in text for message in shown)
        except TemplateRefusal:
            if not self._reads_parts(values, should_stop):
                raise
            whole = False
        if not whole and self._reads_parts(values, should_stop):
            text = _rendered(self.text, {**values, "messages": [_in_parts(message) for message in shown]}, should_stop)
        return _until_tag(text) if continue_last else text

    def _reads_parts(self, values: Mapping[str, Any], should_stop: ShouldStop) -> bool:
        """Whether the template reads a message as a list of parts and loses one that is text.

        Templates of models that read pictures as well do, and some of others (MiniMax-Text-01, SmolVLM).
        """
        if self._takes_parts is None:
            question = {"role": "user", "content": _PROBE}

            def shows(message: Mapping[str, Any]) -> bool:
                with contextlib.suppress(TemplateRefusal):
                    return _PROBE in _rendered(self.text, {**values, "messages": [message]}, should_stop)
                return False

            self._takes_parts = not shows(question) and shows(_in_parts(question))
        return self._takes_parts


def _said(message: Mapping[str, Any]) -> str:
    """What the user says in a message."""
    return str(message.get("content", "")).strip() if message.get("role") == "user" else ""


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its text as a list of one part."""
    return {**message, "content": [{"type": "text", "text": message.get("content", "")}]}


def template_text(tokenizer: Any) -> str:
    """Return the chat template of a tokenizer, the one named `default` where it has several; "" for none."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, Mapping):
        found = found.get("default")
    return found if isinstance(found, str) else ""


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without empty fields, and with its reasoning under both names that templates read."""
    found = {key: value for key, value in message.items() if value is not None}
    names = ("reasoning_content", "thinking", "reasoning")
    reasoning = next((found[name] for name in names if name in found), None)
    return found if reasoning is None else {"thinking": reasoning, **found, "reasoning_content": reasoning}


def _until_tag(text: str) -> str:
    """What stands before the tag; a template that strips the tag's space strips the message's, too."""
    place = text.rfind(_TAG.rstrip())
    if place < 0:
        raise TemplateRefusal(
            "The model's chat template does not write the last message, so it cannot be continued.", _HINT
        )
    return text[:place] if text.startswith(_TAG, place) else text[:place].rstrip()


def _rendered(template: str, values: Mapping[str, Any], should_stop: ShouldStop) -> str:
    """Have the other process render, and put what went wrong into a sentence."""
    request = {"template": template, "values": values}
    try:
        size = len(json.dumps(request))
        message = json.dumps({**request, "longest": _LEAST_CHARS + _CHARS_PER_BYTE * size}).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"This conversation cannot be given to a chat template: {error}.", "Write it anew.") from error
    reply = _PROCESS.ask(message, should_stop)
    if isinstance(text := reply.get("text"), str):
        return text
    fault = str(reply.get("error"))
    kind = TemplateRefusal if fault in ("refused", "fails") else BadInput
    raise kind(*_sentence(fault, " ".join(str(reply.get("message")).split())))


def _sentence(fault: str, said: str) -> tuple[str, str]:
    said = said[:300].rstrip(".")
    if fault == "refused":
        return f"The model's chat format refuses this conversation: {said}.", "Start a new one."
    sentences = {
        "syntax": f"The model's chat template has a mistake: {said}.",
        "fails": f"The model's chat template fails on this conversation: {said}.",
        "memory": f"The model's chat template takes more than {MEMORY_BYTES >> 20} MiB of memory, so it was stopped.",
        "length": f"The model's chat template writes {said} for this conversation, so it was stopped.",
        "time": "The model's chat template did not end in time, so it was stopped.",
    }
    return sentences.get(fault, "The model's chat template made the process that renders it fail."), _HINT


class _Process:
    """The process that renders, started when it is first needed and again after one that had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def ask(self, message: bytes, should_stop: ShouldStop) -> dict[str, Any]:
        """Have one request answered.

        Raises:
            Cancelled: `should_stop` said so.
        """
        with self._lock:
            for _try in range(2):  # the process may have been ended from outside since the last request
                try:
                    child = self._running(should_stop)
                except OSError:
                    break
                try:
                    assert child.stdin is not None
                    child.stdin.write(LENGTH.pack(len(message)) + message)
                    child.stdin.flush()
                except OSError:
                    self._end()
                    continue
                return self._answer(child, WALL_SECONDS, should_stop)
        # Where no process can be started, an answer without bounds is better than none.
        return render(**json.loads(message))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self, should_stop: ShouldStop) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        self._child = _start()
        self._replies = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._child, self._replies), name="chat-template", daemon=True).start()
        if self._answer(self._child, _START_SECONDS, should_stop):
            raise OSError("the process did not start")
        return self._child

    def _answer(self, child: subprocess.Popen[bytes], seconds: float, should_stop: ShouldStop) -> dict[str, Any]:
        """The next reply of the process, or `error`; a process that gives none within its bounds is ended."""
        last = time.monotonic() + seconds
        while True:
            with contextlib.suppress(queue.Empty):
                reply = self._replies.get(timeout=_TICK_SECONDS)
                if reply is not None:
                    return dict(json.loads(reply)) if reply else {}
                code = child.wait()
                self._end()
                return {"error": _cause(code), "message": ""}
            if should_stop():
                self._end()
                raise Cancelled("Stopped.")
            if time.monotonic() > last:
                self._end()
                return {"error": "time", "message": ""}
            if _resident(child.pid) > MEMORY_BYTES:
                self._end()
                return {"error": "memory", "message": ""}

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _start() -> subprocess.Popen[bytes]:
    import jinja2
    import markupsafe

    if getattr(sys, "frozen", False):
        raise OSError("there is no interpreter of its own")
    script = str(Path(__file__).with_name("template_process.py"))
    folders = [str(Path(str(module.__file__)).parent.parent) for module in (jinja2, markupsafe)]
    return subprocess.Popen(
        [sys.executable, "-I", script, *dict.fromkeys(folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _read(child: subprocess.Popen[bytes], replies: queue.SimpleQueue[bytes | None]) -> None:
    """Put each reply into the queue, and None behind the last."""
    assert child.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        while len(head := child.stdout.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            body = child.stdout.read(size)
            if len(body) < size:
                break
            replies.put(body)
    replies.put(None)


def _cause(code: int) -> str:
    """What ended a process, from its exit code."""
    if os.name == "posix" and -code == signal.SIGPROF:
        return "time"
    return "memory" if os.name == "posix" and -code == signal.SIGKILL else "ended"


def _resident(process: int) -> int:
    """Bytes of a process that are in memory; 0 where it is gone."""
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return 0


_PROCESS: Final = _Process()
atexit.register(_PROCESS.close)
