"""From the JSON of a request to what the model is asked: every field checked, every refusal with the field's name.

The fields are those of OpenAI's chat and text completions, and some that other servers of open models take beside them
(`core.serving.fields`). Knows nothing of HTTP or of models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.inference.generation.settings import LARGEST_SEED, Sampling
from core.serving.fields import CHAT, TEXT, check_fields
from core.serving.request_errors import RequestError, bad_field

Message = dict[str, str]
TEXT_TOKENS: Final = 16
"""Length of a text completion that does not say how long, as OpenAI's."""
_MOST_TOKENS: Final = 1_000_000
_MOST_STOPS: Final = 16
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MOST_VARIABLES: Final = 32
_OWN_VARIABLES: Final = frozenset({
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize", "padding",
    "continue_final_message", "truncation", "max_length", "tokenizer_kwargs", "self",
})  # fmt: skip
"""Names that a template gets from elsewhere, and those that mean something else to who fills it in."""
_SWITCHES: Final = ("enable_thinking", "thinking")
_MESSAGE: Final = frozenset(
    {"role", "content", "name", "refusal", "annotations", "reasoning_content", "reasoning", "id"}
)
"""Fields of a message; all but the first two are not part of the conversation here."""


@dataclass(frozen=True)
class CompletionRequest:
    """What one request wants.

    Attributes:
        messages: a conversation, or None for a text completion.
        prompt: text to be continued; None for a conversation.
        sampling: how to choose the tokens.
        model: the name that the caller wrote, or "".
        stream: piece by piece; include_usage: with a last piece of figures.
        echo: a text completion begins with its prompt.
        continue_last: the last message is the model's own, and the answer goes on with it.
        variables: for the chat template, beside the conversation.
    """

    messages: tuple[Message, ...] | None
    prompt: str | None
    sampling: Sampling
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    continue_last: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


def chat_request(body: Mapping[str, Any], context: int) -> CompletionRequest:
    """A request to `/v1/chat/completions`; `context` is the model's, for answers whose length nobody limits.

    Raises:
        RequestError: 400, with the field's name.
    """
    check_fields(body, CHAT)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "messages has to be a list of at least one message.")
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    limit = _whole(body, name, 1, _MOST_TOKENS, min(context, _MOST_TOKENS))
    found = tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages))
    continues, variables = _continues(body, found), _variables(body)
    sampling = _sampling(body, limit)
    return CompletionRequest(found, None, sampling, continue_last=continues, variables=variables, **_common(body))


def text_request(body: Mapping[str, Any]) -> CompletionRequest:
    """A request to `/v1/completions`.

    Raises:
        RequestError: 400, with the field's name.
    """
    check_fields(body, TEXT)
    sampling = _sampling(body, _whole(body, "max_tokens", 1, _MOST_TOKENS, TEXT_TOKENS))
    return CompletionRequest(None, _prompt(body.get("prompt")), sampling, echo=_flag(body, "echo"), **_common(body))


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


def check_template(template: str) -> None:
    """Check that the model has a chat template: a base model would continue a conversation instead of answering.

    Raises:
        RequestError: 400.
    """
    if not template:
        message = "This model has no chat template, so it cannot answer a conversation. /v1/completions continues text."
        raise RequestError(400, message, code="no_chat_template")


def check_variables(request: CompletionRequest, template: str, thinks: bool) -> None:
    """Check that the model's chat template knows the variables that it would get.

    Args:
        template: the chat template; thinks: whether the model has a place for thinking.

    Raises:
        RequestError: 400, with the field's name.
    """
    for name, value in request.variables.items():
        if re.search(rf"\b{re.escape(name)}\b", template):
            continue
        if name in _SWITCHES and value is False and not thinks:
            continue  # it is what happens anyway
        path = name if name == "add_generation_prompt" else f"chat_template_kwargs.{name}"
        raise RequestError(
            400, f"The chat template of this model does not use {name}.", code="unsupported_parameter", param=path
        )


def _variables(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat template gets beside the conversation."""
    field = "chat_template_kwargs"
    given = {} if body.get(field) is None else body[field]
    if not isinstance(given, dict) or len(given) > _MOST_VARIABLES:
        raise bad_field(field, f"{field} has to be an object with {_MOST_VARIABLES} entries at most.")
    for name in given:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", name):
            raise bad_field(field, f"{field} has to have names of letters, digits and underscores.")
        if name in _OWN_VARIABLES or name.startswith("return_"):
            raise bad_field(f"{field}.{name}", f"{name} cannot be set for a template.")
    generation = {} if _flag(body, "add_generation_prompt", default=True) else {"add_generation_prompt": False}
    return {**given, **generation}


def _continues(body: Mapping[str, Any], messages: Sequence[Message]) -> bool:
    if not _flag(body, "continue_final_message"):
        return False
    if messages[-1]["role"] != "assistant":
        raise bad_field("continue_final_message", "The last message has to be the assistant's to be continued.")
    if body.get("add_generation_prompt") is True:
        raise bad_field("add_generation_prompt", "A message is either continued or a new one is begun.")
    return True


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise bad_field(place, "A message has to be an object with a role and a content.")
    role = _ROLES.get(message["role"]) if isinstance(message.get("role"), str) else None
    if role is None:
        raise bad_field(f"{place}.role", f"A role is one of {', '.join(_ROLES)}.")
    for name, value in message.items():
        if name not in _MESSAGE and value not in (None, [], ""):
            raise RequestError(
                400,
                f"A message cannot have {name[:80]} here.",
                code="unsupported_parameter",
                param=f"{place}.{name[:80]}",
            )
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
    if not isinstance(tokens := body.get("stop_token_ids") or [], list) or not all(map(_is_token, tokens)):
        raise bad_field("stop_token_ids", "stop_token_ids has to be a list of token ids.")
    if len(tokens) > _MOST_STOPS:
        raise bad_field("stop_token_ids", f"There can be {_MOST_STOPS} stop tokens at most.")
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
        stop_token_ids=tuple(tokens),
        min_tokens=_whole(body, "min_tokens", 0, max_tokens, 0),
        ignore_eos=_flag(body, "ignore_eos"),
    )


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


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


def _flag(body: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise bad_field(name, f"{name} has to be true or false.")
    return default if value is None else bool(value)
