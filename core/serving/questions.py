"""From the JSON of a request to what the model is asked: every field checked, every refusal with the field's name.

The fields are those of OpenAI's chat and text completions, and `top_k`, `min_p` and `repetition_penalty`, which other
servers of open models take beside them. What cannot be done is refused rather than left out, and what has no bearing
on an answer (`user`, `metadata`, `store`) is passed over. Knows nothing of HTTP or of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.inference.generation.sampling import LARGEST_SEED, Sampling
from core.serving.refusals import Refused, bad_field

Message = dict[str, str]
TEXT_TOKENS: Final = 16
"""Length of a text completion that does not say how long, as OpenAI's."""
_MOST_TOKENS: Final = 1_000_000
_MOST_STOPS: Final = 16
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_CANNOT: Final = {
    "logprobs": "Log probabilities are not given by this server.",
    "top_logprobs": "Log probabilities are not given by this server.",
    "tools": "Tools are not called by this server.",
    "functions": "Functions are not called by this server.",
    "logit_bias": "Biases of tokens are not taken by this server.",
    "audio": "This server answers in text only.",
    "suffix": "Text is only continued, not filled in, by this server.",
}
"""Fields that would change the answer in a way that is not done here."""


@dataclass(frozen=True)
class Question:
    """What one request wants.

    Attributes:
        messages: a conversation, or None for a text completion.
        prompt: text to be continued; None for a conversation.
        sampling: how to choose the tokens.
        model: the name that the caller wrote, or "".
        stream: piece by piece; include_usage: with a last piece of figures.
        echo: a text completion begins with its prompt.
    """

    messages: tuple[Message, ...] | None
    prompt: str | None
    sampling: Sampling
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    echo: bool = False


def chat_question(body: Mapping[str, Any], context: int) -> Question:
    """A request to `/v1/chat/completions`; `context` is the model's, for answers whose length nobody limits.

    Raises:
        Refused: 400, with the field's name.
    """
    _refuse_what_cannot_be(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "messages has to be a list of at least one message.")
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    limit = _whole(body, name, 1, _MOST_TOKENS, min(context, _MOST_TOKENS))
    found = tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages))
    return Question(found, None, _sampling(body, limit), **_common(body))


def text_question(body: Mapping[str, Any]) -> Question:
    """A request to `/v1/completions`.

    Raises:
        Refused: 400, with the field's name.
    """
    _refuse_what_cannot_be(body)
    if body.get("best_of") not in (None, 1):
        raise bad_field("best_of", "Only one answer is made: best_of has to be 1.")
    sampling = _sampling(body, _whole(body, "max_tokens", 1, _MOST_TOKENS, TEXT_TOKENS))
    return Question(None, _prompt(body.get("prompt")), sampling, echo=_flag(body, "echo"), **_common(body))


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise bad_field("model", "model has to be a name.")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_field("stream_options", "stream_options has to be an object.")
    stream = _flag(body, "stream")
    if options is not None and not stream:
        raise bad_field("stream_options", "stream_options is only possible with stream.")
    return {"model": model or "", "stream": stream, "include_usage": _flag(options or {}, "include_usage")}


def _refuse_what_cannot_be(body: Mapping[str, Any]) -> None:
    for name, why in _CANNOT.items():
        value = body.get(name)
        # 0 is a number of log probabilities in text completions; false and empty lists ask for nothing
        if value or (name == "logprobs" and value is not None and value is not False):
            raise Refused(400, why, code="unsupported_parameter", param=name)
    if body.get("n") not in (None, 1):
        raise bad_field("n", "Only one answer is made: n has to be 1.")
    shape = body.get("response_format")
    if shape is not None and (not isinstance(shape, dict) or shape.get("type") != "text"):
        raise Refused(
            400, "Answers are plain text on this server.", code="unsupported_parameter", param="response_format"
        )


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise bad_field(place, "A message has to be an object with a role and a content.")
    role = _ROLES.get(message["role"]) if isinstance(message.get("role"), str) else None
    if role is None:
        raise bad_field(f"{place}.role", f"A role is one of {', '.join(_ROLES)}.")
    content = message.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        raise bad_field(f"{place}.content", "content has to be text, or a list of parts that are text.")
    texts = []
    for number, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise bad_field(f"{place}.content[{number}]", "This server reads text only.")
        texts.append(part["text"])
    return {"role": role, "content": "".join(texts)}


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # a batch of one
    if isinstance(value, str) and value:
        return value
    raise bad_field("prompt", "prompt has to be one text, and not empty.")


def _sampling(body: Mapping[str, Any], max_tokens: int) -> Sampling:
    seed = None if body.get("seed") is None else _whole(body, "seed", -LARGEST_SEED, LARGEST_SEED, 0)
    return Sampling(
        max_tokens=max_tokens,
        temperature=_number(body, "temperature", 0, 2, 1.0),
        top_p=max(1e-4, _number(body, "top_p", 0, 1, 1.0)),
        top_k=max(0, _whole(body, "top_k", -1, 1_000_000, 0)),
        min_p=_number(body, "min_p", 0, 1, 0.0),
        repetition_penalty=_number(body, "repetition_penalty", 0.1, 10, 1.0),
        presence_penalty=_number(body, "presence_penalty", -2, 2, 0.0),
        frequency_penalty=_number(body, "frequency_penalty", -2, 2, 0.0),
        seed=seed,
        stop=_stops(body.get("stop")),
    )


def _stops(value: Any) -> tuple[str, ...]:
    texts: Sequence[Any] = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise bad_field("stop", "stop has to be a text or a list of texts, none of them empty.")
    if len(texts) > _MOST_STOPS:
        raise bad_field("stop", f"There can be {_MOST_STOPS} stop texts at most.")
    return tuple(texts)


def _number(body: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high:
        raise bad_field(name, f"{name} has to be a number from {low:g} to {high:g}.")
    return float(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise bad_field(name, f"{name} has to be a whole number from {low} to {high}.")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise bad_field(name, f"{name} has to be true or false.")
    return bool(value)
