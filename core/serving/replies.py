"""JSON of answers in the format of OpenAI's chat and text completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.inference.generation.thinking import Part
from core.serving.completion_requests import CompletionRequest
from core.serving.request_queue import CompletionEnd

_FINISH: Final = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}
_FIELDS: Final = {"text": "content", "thinking": "reasoning_content"}
"""Field of each kind of part; thinking has the field that other servers of thinking models use."""


@dataclass(frozen=True)
class Reply:
    """Builder of the JSON of one answer, with the same id and time in all pieces."""

    request: CompletionRequest
    model: str
    number: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        return self.request.messages is not None

    def whole(self, parts: Sequence[Part], ended: CompletionEnd) -> dict[str, Any]:
        """Return the whole answer."""
        text = "".join(part.text for part in parts if part.kind == "text")
        thinking = "".join(part.text for part in parts if part.kind == "thinking")
        finish = _FINISH.get(ended.ended_by, "stop")
        if self.is_chat:
            message = {"role": "assistant", "content": text} | ({"reasoning_content": thinking} if thinking else {})
            choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        else:
            prompt = (self.request.prompt or "") if self.request.echo else ""
            choice = {"index": 0, "text": prompt + thinking + text, "finish_reason": finish, "logprobs": None}
        return {**self._frame(streamed=False), "choices": [choice], "usage": usage(ended)}

    def first(self) -> dict[str, Any]:
        """Return the first piece of a stream."""
        if self.is_chat:
            return self._piece({"delta": {"role": "assistant", "content": ""}}, None)
        return self._piece({"text": (self.request.prompt or "") if self.request.echo else ""}, None)

    def piece(self, part: Part) -> dict[str, Any]:
        """Return the piece for one part of the answer."""
        return self._piece({"delta": {_FIELDS[part.kind]: part.text}} if self.is_chat else {"text": part.text}, None)

    def last(self, ended: CompletionEnd) -> dict[str, Any]:
        """Return the piece with the reason for the end of the answer."""
        return self._piece({"delta": {}} if self.is_chat else {"text": ""}, _FINISH.get(ended.ended_by, "stop"))

    def figures(self, ended: CompletionEnd) -> dict[str, Any]:
        """Return the piece with the numbers of tokens, sent last if the request has `include_usage`."""
        return {**self._frame(streamed=True), "choices": [], "usage": usage(ended)}

    def _piece(self, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, **content, "finish_reason": finish, "logprobs": None}
        wanted = {"usage": None} if self.request.include_usage else {}
        return {**self._frame(streamed=True), "choices": [choice], **wanted}

    def _frame(self, *, streamed: bool) -> dict[str, Any]:
        if self.is_chat:
            name, kind = "chatcmpl", "chat.completion.chunk" if streamed else "chat.completion"
        else:
            name, kind = "cmpl", "text_completion"
        return {"id": f"{name}-{self.number}", "object": kind, "created": self.created, "model": self.model}


def usage(ended: CompletionEnd) -> dict[str, Any]:
    """Return the numbers of tokens of an answer."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.tokens,
        "total_tokens": ended.prompt_tokens + ended.tokens,
        "prompt_tokens_details": {"cached_tokens": ended.cached_tokens},
    }
