"""What one calibration document is, and how it is found in a record of a data set.

Knows the field names that data sets use; knows no files, no tokens and no models.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Message = tuple[str, str]
"""Role (system, user, assistant, tool) and what was said."""

TEXT_FIELDS = ("text", "content", "document", "article", "passage", "story", "body", "code", "raw_content")
CHAT_FIELDS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
PAIRS = (
    (("instruction", "input", "context"), ("output", "response", "answer")),
    (("prompt",), ("completion", "response", "chosen", "output", "answer")),
    (("question", "query"), ("answer", "response", "solution", "output")),
)
"""Fields that together are one question, and fields of which the first that is there is the answer."""
_ALONE = tuple(dict.fromkeys(name for asked, answered in PAIRS for name in (*asked, *answered)))
"""Fields that are a text by themselves where the other half of the pair is missing."""
_SYSTEM = ("system", "system_prompt")
FIELDS = (*TEXT_FIELDS, *CHAT_FIELDS, *_ALONE, *_SYSTEM, "history", "tools")
IDS_FIELDS = ("input_ids", "token_ids", "tokens", "ids")
_ROLES = {
    "human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "prompter": "user", "observation": "tool", "function": "tool",
}  # fmt: skip
_USUAL_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROLE_KEYS = ("role", "from", "speaker", "author")
_SAID_KEYS = ("content", "value", "text", "message", "utterance")
_TURN_PAIRS = (("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("input", "output"))
_TEMPLATE_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking")
"""What a turn may have besides its text that chat templates know."""
_DEPTH = 2
"""How deep a record's conversation may lie in other objects."""


@dataclass(frozen=True)
class Document:
    """One text, or one conversation.

    Attributes:
        text: plain text; empty where `messages` are given.
        messages: a conversation, to be put through the model's own chat template.
        turns: the same as the template wants it, where it is more than roles and texts (tool calls); else ().
        tools: functions that the conversation may call, for the template.
        weight: how much earlier than others it is drawn; 1 is the rule.
        continues: it goes on where the document before it was cut, so no separator belongs between them.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    turns: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()
    weight: float = 1.0
    continues: bool = False

    def plain(self) -> str:
        """The text, with a conversation as `Role: words` paragraphs."""
        return self.text or "\n\n".join(f"{role.capitalize()}: {said}" for role, said in self.messages)


def from_record(record: Any, field: str = "") -> Document | None:
    """Return the document in one record (a JSON value or a row); None where there is no text in it.

    Args:
        record: a text, a conversation (a list of turns), or a mapping with one of the known fields.
        field: read this field of a mapping and no other.
    """
    if isinstance(record, Mapping) and field:
        return _of_text(record.get(field)) or _of_messages(record.get(field))
    return _of_record(record, _DEPTH)


def _of_record(record: Any, depth: int) -> Document | None:
    if isinstance(record, str):
        return _of_text(record)
    if isinstance(record, list):
        return _of_messages(record)
    if not isinstance(record, Mapping):
        return None
    for name in CHAT_FIELDS:
        if found := _of_messages(record.get(name)):
            return _with_context(found, record)
    for name in TEXT_FIELDS[:2]:
        if found := _of_text(record.get(name)) or _of_messages(record.get(name)):
            return found
    for asked, answered in PAIRS:
        if found := _of_pair(record, asked, answered):
            return _with_context(found, record)
    for name in ("chosen", *TEXT_FIELDS[2:], *_ALONE):
        value = record.get(name)
        if found := _of_messages(value) or _of_text(value):
            return _with_context(found, record)
    if depth:
        for value in record.values():
            if isinstance(value, Mapping) and (found := _of_record(value, depth - 1)):
                return found
    return None


def cut(text: str, size: int) -> Iterator[str]:
    """Pieces of `text`, in order and with nothing lost, of at most `size` characters."""
    start = 0
    while len(text) - start > size:
        end = cut_point(text, start, size)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def cut_point(text: str, start: int, size: int) -> int:
    """Where to end a piece that starts at `start`: after a paragraph, a line, a sentence, a word, or at `size`."""
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, start + size // 2, start + size)
        if found >= 0:
            return found + len(mark)
    return start + size


def _of_text(value: Any) -> Document | None:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n\n".join(value)
    if not isinstance(value, str) or not value.strip() or _parsed(value) is not None:
        return None
    return Document(text=encodable(value))


def _parsed(value: str) -> list[Any] | None:
    """The turns of a conversation that is stored as JSON in a text."""
    if not value.lstrip().startswith("[{"):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if is_conversation(found) else None


def is_conversation(value: Any) -> bool:
    """Tell whether a JSON value is a list of turns with the usual roles, and not one of records."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(turn, Mapping) and _role(turn) in _USUAL_ROLES for turn in value)


def _of_messages(value: Any) -> Document | None:
    """The conversation in a list of turns; None where one of them is no turn, so that none is dropped unseen."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        inner = next((value[name] for name in CHAT_FIELDS if name in value), None)
        return _of_messages(inner) if isinstance(inner, list) else None
    if not isinstance(value, list) or not value:
        return None
    if len(value) > 1 and all(isinstance(turn, str) for turn in value):
        value = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(value)]
    found = [turn for item in value for turn in _turns(item)]
    if not found or not all(found):
        return None
    said = [turn for turn in found if turn["content"].strip() or "tool_calls" in turn]
    messages = tuple((turn["role"], turn["content"] or json.dumps(turn.get("tool_calls"))) for turn in said)
    if not any(turn["content"].strip() for turn in said):
        return None
    plain = all(set(turn) == {"role", "content"} for turn in said)
    return Document(messages=messages, turns=() if plain else tuple(said))


def _turns(item: Any) -> list[dict[str, Any]]:
    """The turns of one item of a conversation: mostly one, two of a question with its answer; [{}] if it is none."""
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
        asked, answered = item
        return [{"role": "user", "content": encodable(asked)}, {"role": "assistant", "content": encodable(answered)}]
    if not isinstance(item, Mapping):
        return [{}]
    role = _role(item)
    if not role:
        for asked, answered in _TURN_PAIRS:
            if isinstance(item.get(asked), str) and isinstance(item.get(answered), str):
                return _turns([item[asked], item[answered]])
        return [{}]
    said = next((item[key] for key in _SAID_KEYS if item.get(key) is not None), "")
    extra = {key: item[key] for key in _TEMPLATE_KEYS if item.get(key)}
    if "tool_calls" in extra:
        extra["tool_calls"] = _calls(extra["tool_calls"])
    return [{"role": role, "content": _said(said), **extra}]


def _role(turn: Mapping[str, Any]) -> str:
    value = next((turn[key] for key in _ROLE_KEYS if key in turn), None)
    if isinstance(value, Mapping):
        value = value.get("role")
    return _ROLES.get(value.lower(), value.lower()) if isinstance(value, str) else ""


def _calls(value: Any) -> Any:
    """Tool calls with their arguments as objects: templates write them as JSON themselves."""
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


def _said(value: Any) -> str:
    """The text of a turn; multimodal turns are a list of parts, of which the text parts count."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        value = value.get("parts", [value])
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        return encodable("\n".join(part for part in parts if isinstance(part, str)))
    return ""


def _of_pair(record: Mapping[str, Any], asked: tuple[str, ...], answered: tuple[str, ...]) -> Document | None:
    """Question and answer, each a text or a list of turns (prompt with completion or chosen, as trainers have them)."""
    question = _of_messages(record.get(asked[0]))
    if question is None:
        text = "\n\n".join(text for name in asked if (text := _said(record.get(name))).strip())
        question = Document(messages=(("user", text),)) if text else None
    for name in answered:
        answer = _of_messages(record.get(name))
        if answer is None and (text := _said(record.get(name))).strip():
            answer = Document(messages=(("assistant", text),))
        if question and answer:
            if answer.messages[0][0] != "assistant":  # the whole conversation, prompt and all
                return answer
            return _joined(question, answer)
    return None


def _joined(first: Document, second: Document) -> Document:
    turns = (*_as_turns(first), *_as_turns(second)) if first.turns or second.turns else ()
    return replace(second, messages=(*first.messages, *second.messages), turns=turns)


def _as_turns(document: Document) -> tuple[Mapping[str, Any], ...]:
    return document.turns or tuple({"role": role, "content": said} for role, said in document.messages)


def _with_context(found: Document, record: Mapping[str, Any]) -> Document:
    """A conversation with what its record has beside it: a system prompt, earlier turns, tools."""
    if not found.messages:
        return found
    if isinstance(record.get("history"), list) and (earlier := _of_messages(record["history"])):
        found = _joined(earlier, found)
    system = next((text for name in _SYSTEM if (text := _said(record.get(name))).strip()), "")
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
    """`text` without lone surrogates: JSON may hold them, and no tokenizer takes them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
