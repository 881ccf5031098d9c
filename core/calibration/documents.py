"""Calibration documents, and the extraction of a document from a record of a data set.

Holds the table of field names that data sets use. Does not read files, tokenize or load models.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Message = tuple[str, str]
"""Role (system, user, assistant, tool) and the text of a turn."""

TEXT_FIELDS = ("text", "content", "document", "article", "passage", "story", "body", "code", "raw_content")
CHAT_FIELDS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
PAIRS = (
    (("instruction", "input", "context"), ("output", "response", "answer")),
    (("prompt",), ("completion", "response", "chosen", "output", "answer")),
    (("question", "query"), ("answer", "response", "solution", "output")),
)
"""Pairs of question fields, which are joined, and answer fields, of which the first one present is used."""
_SINGLE_FIELDS = tuple(dict.fromkeys(name for pair in PAIRS for fields in pair for name in fields))
"""Fields of PAIRS, used as plain text where the other half of the pair is missing."""
_SYSTEM = ("system", "system_prompt")
FIELDS = (*TEXT_FIELDS, *CHAT_FIELDS, *_SINGLE_FIELDS, *_SYSTEM, "history", "tools")
IDS_FIELDS = ("input_ids", "token_ids", "tokens", "ids")
_ROLES = {
    "human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "prompter": "user", "observation": "tool", "function": "tool",
}  # fmt: skip
_USUAL_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROLE_KEYS = ("role", "from", "speaker", "author")
_CONTENT_KEYS = ("content", "value", "text", "message", "utterance")
_TURN_PAIRS = (("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("input", "output"))
_TEMPLATE_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking")
"""Keys of a turn, besides its role and text, that chat templates use."""
_DEPTH = 2
"""Maximum number of objects that may enclose the document of a record."""


@dataclass(frozen=True)
class Document:
    """One text, or one conversation.

    Attributes:
        text: Plain text; empty if `messages` is set.
        messages: A conversation, to be rendered with the model's chat template.
        turns: The conversation as input of the chat template, if it has more than roles and texts (such as tool
            calls); otherwise ().
        tools: Functions that the conversation may call, as input of the chat template.
        weight: Relative weight in the random draw; 1 by default.
        continues: True if the document continues the previous one, so that no separator belongs between them.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    turns: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()
    weight: float = 1.0
    continues: bool = False

    def plain(self) -> str:
        """Return the plain text, with a conversation as paragraphs of the form `Role: text`."""
        return self.text or "\n\n".join(f"{role.capitalize()}: {content}" for role, content in self.messages)


def from_record(record: Any, field: str = "") -> Document | None:
    """Return the document in one record (a JSON value or a row of a table), or None if the record has no text.

    Args:
        record: A text, a conversation (a list of turns), or a mapping with one of the known fields.
        field: The only field of a mapping to read; "" reads all known fields.
    """
    if isinstance(record, Mapping) and field:
        return _from_text(record.get(field)) or _from_turns(record.get(field))
    return _from_record(record, _DEPTH)


def _from_record(record: Any, depth: int) -> Document | None:
    if isinstance(record, str):
        return _from_text(record)
    if isinstance(record, list):
        return _from_turns(record)
    if not isinstance(record, Mapping):
        return None
    for name in CHAT_FIELDS:
        if found := _from_turns(record.get(name)):
            return _with_context(found, record)
    for name in TEXT_FIELDS[:2]:
        if found := _from_text(record.get(name)) or _from_turns(record.get(name)):
            return found
    for question_fields, answer_fields in PAIRS:
        if found := _from_pair(record, question_fields, answer_fields):
            return _with_context(found, record)
    for name in ("chosen", *TEXT_FIELDS[2:], *_SINGLE_FIELDS):
        value = record.get(name)
        if found := _from_turns(value) or _from_text(value):
            return _with_context(found, record)
    if depth:
        for value in record.values():
            if isinstance(value, Mapping) and (found := _from_record(value, depth - 1)):
                return found
    return None


def cut(text: str, size: int) -> Iterator[str]:
    """Split `text` into consecutive pieces of at most `size` characters; the pieces joined are `text` again."""
    start = 0
    while len(text) - start > size:
        end = cut_point(text, start, size)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def cut_point(text: str, start: int, size: int) -> int:
    """Return the end of a piece of at most `size` characters that starts at `start`.

    The piece ends after a paragraph, a line, a sentence or a word of its second half, in this order of preference, or
    else after `size` characters.
    """
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, start + size // 2, start + size)
        if found >= 0:
            return found + len(mark)
    return start + size


def _from_text(value: Any) -> Document | None:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n\n".join(value)
    if not isinstance(value, str) or not value.strip() or _parsed(value) is not None:
        return None
    return Document(text=encodable(value))


def _parsed(value: str) -> list[Any] | None:
    """Return the turns of a conversation that is stored as JSON in a text, or None if it is not one."""
    if not value.lstrip().startswith("[{"):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if is_conversation(found) else None


def is_conversation(value: Any) -> bool:
    """Return whether a JSON value is a list of turns with known roles, in contrast to a list of records."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(turn, Mapping) and _role(turn) in _USUAL_ROLES for turn in value)


def _from_turns(value: Any) -> Document | None:
    """Return the conversation in a list of turns, or None if an item is not a turn: no item is dropped silently."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        inner = next((value[name] for name in CHAT_FIELDS if name in value), None)
        return _from_turns(inner) if isinstance(inner, list) else None
    if not isinstance(value, list) or not value:
        return None
    if len(value) > 1 and all(isinstance(turn, str) for turn in value):
        value = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(value)]
    found = [turn for item in value for turn in _turns(item)]
    if not found or not all(found):
        return None
    turns = [turn for turn in found if turn["content"].strip() or "tool_calls" in turn]
    messages = tuple((turn["role"], turn["content"] or json.dumps(turn.get("tool_calls"))) for turn in turns)
    if not any(turn["content"].strip() for turn in turns):
        return None
    plain = all(set(turn) == {"role", "content"} for turn in turns)
    return Document(messages=messages, turns=() if plain else tuple(turns))


def _turns(item: Any) -> list[dict[str, Any]]:
    """Return the turns in one item of a conversation, or [{}] if the item is not a turn.

    An item is usually one turn; a question with its answer is two.
    """
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
        question, answer = map(encodable, item)
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if not isinstance(item, Mapping):
        return [{}]
    role = _role(item)
    if not role:
        for question_key, answer_key in _TURN_PAIRS:
            if isinstance(item.get(question_key), str) and isinstance(item.get(answer_key), str):
                return _turns([item[question_key], item[answer_key]])
        return [{}]
    content = next((item[key] for key in _CONTENT_KEYS if item.get(key) is not None), "")
    extra = {key: item[key] for key in _TEMPLATE_KEYS if item.get(key)}
    if "tool_calls" in extra:
        extra["tool_calls"] = _calls(extra["tool_calls"])
    return [{"role": role, "content": _content_text(content), **extra}]


def _role(turn: Mapping[str, Any]) -> str:
    value = next((turn[key] for key in _ROLE_KEYS if key in turn), None)
    if isinstance(value, Mapping):
        value = value.get("role")
    return _ROLES.get(value.lower(), value.lower()) if isinstance(value, str) else ""


def _calls(value: Any) -> Any:
    """Return tool calls with their arguments as objects, because chat templates serialize them to JSON themselves."""
    if not isinstance(value, list):
        return value
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
            with contextlib.suppress(ValueError, RecursionError):
                call = {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
        calls.append(call)
    return calls


def _content_text(value: Any) -> str:
    """Return the text of a turn; of a multimodal turn, which is a list of parts, the text parts only."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        value = value.get("parts", [value])
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        return encodable("\n".join(part for part in parts if isinstance(part, str)))
    return ""


def _from_pair(
    record: Mapping[str, Any], question_fields: tuple[str, ...], answer_fields: tuple[str, ...]
) -> Document | None:
    """Return the conversation of a question and its answer, each a text or a list of turns; None if one is missing.

    Preference data sets have lists of turns under `prompt` and `chosen`.
    """
    question = _from_turns(record.get(question_fields[0]))
    if question is None:
        text = "\n\n".join(text for name in question_fields if (text := _content_text(record.get(name))).strip())
        question = Document(messages=(("user", text),)) if text else None
    for name in answer_fields:
        answer = _from_turns(record.get(name))
        if answer is None and (text := _content_text(record.get(name))).strip():
            answer = Document(messages=(("assistant", text),))
        if question and answer:
            if answer.messages[0][0] != "assistant":  # the answer field has the whole conversation, with the prompt
                return answer
            return _joined(question, answer)
    return None


def _joined(first: Document, second: Document) -> Document:
    turns = (*_as_turns(first), *_as_turns(second)) if first.turns or second.turns else ()
    return replace(second, messages=(*first.messages, *second.messages), turns=turns)


def _as_turns(document: Document) -> tuple[Mapping[str, Any], ...]:
    return document.turns or tuple({"role": role, "content": content} for role, content in document.messages)


def _with_context(found: Document, record: Mapping[str, Any]) -> Document:
    """Return a conversation with the system prompt, the earlier turns and the tools of its record added."""
    if not found.messages:
        return found
    if isinstance(record.get("history"), list) and (earlier := _from_turns(record["history"])):
        found = _joined(earlier, found)
    system = next((text for name in _SYSTEM if (text := _content_text(record.get(name))).strip()), "")
    if system and found.messages[0][0] != "system":
        found = _joined(Document(messages=(("system", system),)), found)
    tools = record.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            tools = None
    return replace(found, tools=tuple(tools)) if isinstance(tools, list) and tools else found


def encodable(text: str) -> str:
    """Return `text` with lone surrogates replaced by "?": JSON may contain them, tokenizers reject them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
