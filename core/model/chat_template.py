"""Chat templates, rendered in a separate process with limits on time, memory and length."""

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
"""Time limit for one rendering, for systems without a limit on processor time and for busy machines."""
_START_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.05
_LEAST_CHARS, _CHARS_PER_BYTE = 1 << 20, 8
"""Length limit of a rendered conversation: 2^20 characters, and 8 more for each byte of template and variables."""
_HINT: Final = "Use another model, or correct the template in its folder."
_TAG: Final = "\N{SYMBOL FOR UNIT SEPARATOR}continued here\N{SYMBOL FOR UNIT SEPARATOR} "
"""Marks the end of a message that is to be continued. The trailing space shows whether the template strips messages."""
_PROBE: Final = "QuestionProbe"


class TemplateRefusal(BadInput):
    """Raised when a template rejects a conversation; it may accept another one."""


class ChatTemplate:
    """The chat template of one tokenizer.

    Attributes:
        text: Jinja source; "" for a model without a template, such as a base model.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Read the template and the special tokens of a transformers tokenizer; see `template_text`."""
        self.text = template_text(tokenizer)
        self._special = dict(tokenizer.special_tokens_map)
        self._takes_parts: bool | None = None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        continue_last: bool = False,
        picture_mark: str = "",
        should_stop: ShouldStop = never,
    ) -> str:
        """Render a conversation.

        The pictures of a message stand before its text. Templates of most vision-language models write their marks for
        content that is a list of parts, some of them only if that of all messages is; others expect the marks in texts.

        Args:
            messages: with `role`, `content` and any other field of the template. `thinking` and `reasoning_content`
                are set to the same text if either is given. Of `pictures`, only the number matters.
            variables: further variables of the template, such as `enable_thinking`. `add_generation_prompt` is true
                by default.
            continue_last: end the text inside the last message, so that the model continues it.
            picture_mark: text that stands for a picture.
            should_stop: called about 20 times a second.

        Raises:
            TemplateRefusal: the template rejects the conversation, or fails on it.
            BadInput: the template cannot be parsed, exceeds the limit on time, memory or length, or has no place for
                pictures.
            Cancelled: `should_stop` returned true.
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
        if any(message.get("pictures") for message in shown):
            text = self._with_pictures(shown, values, picture_mark, should_stop)
            return _until_tag(text) if continue_last else text
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

    def _with_pictures(
        self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any], mark: str, should_stop: ShouldStop
    ) -> str:
        """Render a conversation with pictures in the form of which the template shows most texts.

        All pictures and questions must be in the result; answers may be shortened by the template.
        """
        wanted = sum(len(message.get("pictures", ())) + str(message["content"]).count(mark) for message in messages)
        refusal: TemplateRefusal | None = None
        found: list[tuple[int, str]] = []
        for form in (_in_parts_if_pictures, _in_parts, lambda message: _with_marks(message, mark)):
            shown = [{key: value for key, value in form(each).items() if key != "pictures"} for each in messages]
            try:
                text = _rendered(self.text, {**values, "messages": shown}, should_stop)
            except TemplateRefusal as error:
                refusal = refusal or error
                continue
            if text.count(mark) == wanted and "'type': 'image'" not in text and all(_said(m) in text for m in messages):
                found.append((sum(str(message["content"]).strip() in text for message in messages), text))
                if found[-1][0] == len(messages):
                    break
        if found:
            return max(found, key=lambda pair: pair[0])[1]
        if refusal is not None:
            raise refusal
        raise BadInput("The model's chat template has no place for pictures.", "Ask without pictures.")

    def _reads_parts(self, values: Mapping[str, Any], should_stop: ShouldStop) -> bool:
        """Return whether the template renders content that is a list of parts, and drops content that is a string.

        Most such templates belong to vision-language models; MiniMax-Text-01 and SmolVLM are other examples.
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
    """Return the text of a user message; "" for other roles."""
    return str(message.get("content", "")).strip() if message.get("role") == "user" else ""


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with its content as a list: a part for each picture, and one for the text."""
    pictures = [{"type": "image"} for _ in message.get("pictures", ())]
    text = message.get("content", "")
    return {**message, "content": [*pictures, *([{"type": "text", "text": text}] if text or not pictures else [])]}


def _in_parts_if_pictures(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return _in_parts(message) if message.get("pictures") else message


def _with_marks(message: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """Return the message with the marks of its pictures in its text, each in a line of its own."""
    marks = f"{mark}\n" * len(message.get("pictures", ()))
    return {**message, "content": f"{marks}{message.get('content', '')}"}


def template_text(tokenizer: Any) -> str:
    """Return the chat template of a tokenizer, `default` if there are several named ones; "" if there is none."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, Mapping):
        found = found.get("default")
    return found if isinstance(found, str) else ""


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message without its None fields and with the reasoning under both names that templates use."""
    found = {key: value for key, value in message.items() if value is not None}
    names = ("reasoning_content", "thinking", "reasoning")
    reasoning = next((found[name] for name in names if name in found), None)
    return found if reasoning is None else {"thinking": reasoning, **found, "reasoning_content": reasoning}


def _until_tag(text: str) -> str:
    """Return the text before the tag, stripped if the template stripped the space of the tag."""
    place = text.rfind(_TAG.rstrip())
    if place < 0:
        raise TemplateRefusal("The model's chat template omits the last message, so it cannot be continued.", _HINT)
    return text[:place] if text.startswith(_TAG, place) else text[:place].rstrip()


def _rendered(template: str, values: Mapping[str, Any], should_stop: ShouldStop) -> str:
    """Render in the other process and raise its failures as errors for the user."""
    request = {"template": template, "values": values}
    try:
        size = len(json.dumps(request))
        message = json.dumps({**request, "longest": _LEAST_CHARS + _CHARS_PER_BYTE * size}).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"This conversation cannot be passed to a chat template: {error}.", "Write the messages again."
        ) from error
    reply = _PROCESS.ask(message, should_stop)
    if isinstance(text := reply.get("text"), str):
        return text
    fault = str(reply.get("error"))
    kind = TemplateRefusal if fault in ("refused", "fails") else BadInput
    raise kind(*_sentence(fault, " ".join(str(reply.get("message")).split())))


def _sentence(fault: str, detail: str) -> tuple[str, str]:
    """Return the message and the hint for a failure reported by the other process."""
    detail = detail[:300].rstrip(".")
    if fault == "refused":
        return f"The model's chat template rejects this conversation: {detail}.", "Start a new conversation."
    sentences = {
        "syntax": f"The model's chat template has a syntax error: {detail}.",
        "fails": f"The model's chat template fails on this conversation: {detail}.",
        "memory": f"The model's chat template was stopped: it used more than {MEMORY_BYTES >> 20} MiB of memory.",
        "length": f"The model's chat template was stopped: it wrote {detail} for this conversation.",
        "time": "The model's chat template was stopped: it did not finish in time.",
    }
    return sentences.get(fault, "The model's chat template crashed the process that renders it."), _HINT


class _Process:
    """The rendering process, started on first use and restarted after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def ask(self, message: bytes, should_stop: ShouldStop) -> dict[str, Any]:
        """Send one request and return the reply.

        Raises:
            Cancelled: `should_stop` returned true.
        """
        with self._lock:
            for _try in range(2):  # the process may have been killed since the last request
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
        # If no process can be started, rendering without limits is better than not rendering.
        return render(**json.loads(message))

    def close(self) -> None:
        """Kill the process."""
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
        """Return the next reply of the process, or an `error`; kill a process that exceeds its limits."""
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
        raise OSError("a frozen application has no separate Python interpreter")
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
    """Put each reply into the queue, followed by None when the stream ends."""
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
    """Return the failure that the exit code of a process stands for."""
    if os.name == "posix" and -code == signal.SIGPROF:
        return "time"
    return "memory" if os.name == "posix" and -code == signal.SIGKILL else "ended"


def _resident(process: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return 0


_PROCESS: Final = _Process()
atexit.register(_PROCESS.close)
