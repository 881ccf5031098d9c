"""Conversion of the JSON of a request to a `CompletionRequest`, with a check of every field.

The fields are those of OpenAI's chat and text completions, and some that other servers of open models support
(`core.serving.fields`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import BadInput, CorruptFile
from core.inference.generation.message import Message
from core.inference.generation.settings import LARGEST_SEED, Sampling
from core.pictures.opening import open_picture
from core.pictures.sources import is_data_uri
from core.serving.fields import CHAT, TEXT, check_fields
from core.serving.request_errors import RequestError, bad_field

TEXT_TOKENS: Final = 16
"""Default length of a text completion, as in OpenAI's API."""
_MOST_TOKENS: Final = 1_000_000
_MOST_STOPS: Final = 16
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MOST_VARIABLES: Final = 32
_OWN_VARIABLES: Final = frozenset({
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize", "padding",
    "continue_final_message", "truncation", "max_length", "tokenizer_kwargs", "self",
})  # fmt: skip
"""Variables that are set by the server, and names of arguments of transformers' `apply_chat_template`."""
_SWITCHES: Final = ("enable_thinking", "thinking")
NO_PICTURES: Final = "This model reads text only, not pictures."
_MESSAGE: Final = frozenset(
    {"role", "content", "name", "refusal", "annotations", "reasoning_content", "reasoning", "id"}
)
"""Accepted fields of a message; only the first two are used."""


@dataclass(frozen=True)
class CompletionRequest:
    """A checked request for a chat or text completion.

    Attributes:
        messages: the conversation, or None for a text completion.
        prompt: the text to continue, or None for a conversation.
        sampling: sampling parameters.
        model: the requested model, or "".
        stream: stream the answer.
        include_usage: end the stream with a piece that has the numbers of tokens.
        echo: start the text completion with the prompt.
        continue_last: continue the last message, which is the model's.
        variables: variables of the chat template.
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

    @property
    def has_pictures(self) -> bool:
        """Return whether a message has a picture."""
        return any(message.get("pictures") for message in self.messages or ())


def chat_request(body: Mapping[str, Any], context: int) -> CompletionRequest:
    """Parse a request to `/v1/chat/completions`.

    Args:
        body: JSON of the request.
        context: context length of the model, the default for the maximum length of the answer.

    Raises:
        RequestError: 400, with the field's name.
    """
    check_fields(body, CHAT)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "messages must be a list of at least one message.")
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    limit = _whole(body, name, 1, _MOST_TOKENS, min(context, _MOST_TOKENS))
    found = tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages))
    continues, variables = _continues(body, found), _variables(body)
    sampling = _sampling(body, limit)
    return CompletionRequest(found, None, sampling, continue_last=continues, variables=variables, **_common(body))


def text_request(body: Mapping[str, Any]) -> CompletionRequest:
    """Parse a request to `/v1/completions`.

    Raises:
        RequestError: 400, with the field's name.
    """
    check_fields(body, TEXT)
    sampling = _sampling(body, _whole(body, "max_tokens", 1, _MOST_TOKENS, TEXT_TOKENS))
    return CompletionRequest(None, _prompt(body.get("prompt")), sampling, echo=_flag(body, "echo"), **_common(body))


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise bad_field("model", "model must be a string.")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_field("stream_options", "stream_options must be an object.")
    stream = _flag(body, "stream")
    if options is not None and not stream:
        raise bad_field("stream_options", "stream_options requires stream.")
    return {"model": model or "", "stream": stream, "include_usage": _flag(options or {}, "include_usage")}


def check_template(template: str) -> None:
    """Check that the model has a chat template; a base model would continue the conversation instead of answering.

    Raises:
        RequestError: 400.
    """
    if not template:
        message = "This model has no chat template, so it cannot answer conversations. Use /v1/completions instead."
        raise RequestError(400, message, code="no_chat_template")


def check_pictures(request: CompletionRequest) -> None:
    """Check that all pictures of a request can be opened.

    Raises:
        RequestError: 400, with the number of the message, or 500 if Pillow is not installed.
    """
    for number, message in enumerate(request.messages or ()):
        for source in message.get("pictures", ()):
            try:
                open_picture(source)
            except (BadInput, CorruptFile) as error:
                raise bad_field(f"messages[{number}].content", str(error)) from error


def check_variables(request: CompletionRequest, template: str, thinks: bool) -> None:
    """Check that the model's chat template uses the variables of a request.

    Args:
        request: the request.
        template: the chat template.
        thinks: whether the model supports thinking.

    Raises:
        RequestError: 400, with the field's name.
    """
    for name, value in request.variables.items():
        if re.search(rf"\b{re.escape(name)}\b", template):
            continue
        if name in _SWITCHES and value is False and not thinks:
            continue  # a model that does not think satisfies this anyway
        path = name if name == "add_generation_prompt" else f"chat_template_kwargs.{name}"
        raise RequestError(
            400, f"The chat template of this model does not use {name}.", code="unsupported_parameter", param=path
        )


def _variables(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the chat template."""
    field = "chat_template_kwargs"
    given = {} if body.get(field) is None else body[field]
    if not isinstance(given, dict) or len(given) > _MOST_VARIABLES:
        raise bad_field(field, f"{field} must be an object with at most {_MOST_VARIABLES} entries.")
    for name in given:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", name):
            raise bad_field(field, f"The names in {field} must consist of letters, digits and underscores.")
        if name in _OWN_VARIABLES or name.startswith("return_"):
            raise bad_field(f"{field}.{name}", f"{name} cannot be set by a request.")
    generation = {} if _flag(body, "add_generation_prompt", default=True) else {"add_generation_prompt": False}
    return {**given, **generation}


def _continues(body: Mapping[str, Any], messages: Sequence[Message]) -> bool:
    if not _flag(body, "continue_final_message"):
        return False
    if messages[-1]["role"] != "assistant":
        raise bad_field("continue_final_message", "The last message must have the role assistant to be continued.")
    if body.get("add_generation_prompt") is True:
        raise bad_field(
            "add_generation_prompt", "add_generation_prompt cannot be combined with continue_final_message."
        )
    return True


def _message(message: Any, path: str) -> Message:
    if not isinstance(message, dict):
        raise bad_field(path, "A message must be an object with a role and a content.")
    role = _ROLES.get(message["role"]) if isinstance(message.get("role"), str) else None
    if role is None:
        raise bad_field(f"{path}.role", f"The role must be one of {', '.join(_ROLES)}.")
    for name, value in message.items():
        if name not in _MESSAGE and value not in (None, [], ""):
            raise RequestError(
                400,
                f"{name[:80]} is not supported in a message.",
                code="unsupported_parameter",
                param=f"{path}.{name[:80]}",
            )
    content = message.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        raise bad_field(f"{path}.content", "content must be a string or a list of parts.")
    texts, pictures = [], []
    for number, part in enumerate(content):
        place = f"{path}.content[{number}]"
        if isinstance(part, dict) and part.get("type") == "image_url":
            pictures.append(_picture(part.get("image_url"), role, f"{place}.image_url"))
        elif isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise bad_field(place, "This server supports parts of the types text and image_url.")
    found: Message = {"role": role, "content": "".join(texts)}
    return {**found, "pictures": tuple(pictures)} if pictures else found


def _picture(value: Any, role: str, path: str) -> str:
    """Return the data URI of a picture. Paths are refused, because the files of the server are not the client's."""
    url = value.get("url") if isinstance(value, dict) else value
    if role != "user":
        raise bad_field(path, "Only messages with the role user can have pictures.")
    if not isinstance(url, str):
        raise bad_field(path, "image_url must have a url.")
    if not is_data_uri(url):
        raise bad_field(path, "Pictures are not downloaded: url must be a data URI (data:image/png;base64,...).")
    return url


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # a batch of one
    if isinstance(value, str) and value:
        return value
    raise bad_field("prompt", "prompt must be one non-empty string.")


def _sampling(body: Mapping[str, Any], max_tokens: int) -> Sampling:
    seed = None if body.get("seed") is None else _whole(body, "seed", -LARGEST_SEED, LARGEST_SEED, 0)
    if not isinstance(tokens := body.get("stop_token_ids") or [], list) or not all(map(_is_token, tokens)):
        raise bad_field("stop_token_ids", "stop_token_ids must be a list of token ids.")
    if len(tokens) > _MOST_STOPS:
        raise bad_field("stop_token_ids", f"stop_token_ids must have at most {_MOST_STOPS} entries.")
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
        raise bad_field("stop", "stop must be a non-empty string or a list of non-empty strings.")
    if len(texts) > _MOST_STOPS:
        raise bad_field("stop", f"stop must have at most {_MOST_STOPS} entries.")
    return tuple(texts)


def _number(body: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high:
        raise bad_field(name, f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise bad_field(name, f"{name} must be an integer from {low} to {high}.")
    return value


def _flag(body: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise bad_field(name, f"{name} must be true or false.")
    return default if value is None else bool(value)
