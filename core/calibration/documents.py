"""What one calibration document is, and how it is found in a record of a data set.

Knows the field names that data sets use; knows no files, no tokens and no models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Message = tuple[str, str]
"""Role (system, user, assistant, tool) and what was said."""

TEXT_FIELDS = ("text", "content", "document", "article", "passage", "story", "body", "code", "raw_content")
CHAT_FIELDS = ("messages", "conversations", "conversation", "dialog", "dialogue")
PAIRS = (
    (("instruction", "input", "context"), ("output", "response", "answer")),
    (("prompt",), ("completion", "response", "chosen", "output", "answer")),
    (("question", "query"), ("answer", "response", "solution", "output")),
)
"""Fields that together are one question, and fields of which the first that is there is the answer."""
FIELDS = (*TEXT_FIELDS, *CHAT_FIELDS, *(name for asked, answered in PAIRS for name in (*asked, *answered)))
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}


@dataclass(frozen=True)
class Document:
    """One text, or one conversation.

    Attributes:
        text: plain text; empty where `messages` are given.
        messages: a conversation, to be put through the model's own chat template.
        weight: how much earlier than others it is drawn; 1 is the rule.
        continues: it goes on where the document before it was cut, so no separator belongs between them.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    weight: float = 1.0
    continues: bool = False

    def plain(self) -> str:
        """The text, with a conversation as `Role: words` paragraphs."""
        return self.text or "\n\n".join(f"{role.capitalize()}: {said}" for role, said in self.messages)


def from_record(record: Any, field: str = "") -> Document | None:
    """The document in one record (a JSON value or a row); None where there is no text in it.

    Args:
        record: a text, or a mapping with one of the known fields.
        field: read this field of a mapping and no other.
    """
    if isinstance(record, str):
        return _of_text(record)
    if not isinstance(record, Mapping):
        return None
    if field:
        value = record.get(field)
        return _of_messages(value) if isinstance(value, list) else _of_text(value)
    for name in TEXT_FIELDS[:2]:
        if found := _of_text(record.get(name)):
            return found
    for name in CHAT_FIELDS:
        if found := _of_messages(record.get(name)):
            return found
    for asked, answered in PAIRS:
        if found := _of_pair(record, asked, answered):
            return found
    for name in TEXT_FIELDS[2:]:
        if found := _of_text(record.get(name)):
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
    if not isinstance(value, str) or not value.strip():
        return None
    return Document(text=encodable(value))


def _of_messages(value: Any) -> Document | None:
    if not isinstance(value, list):
        return None
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, Mapping):
            continue
        role = turn.get("role") or turn.get("from")
        said = _said(turn.get("content", turn.get("value")))
        if isinstance(role, str) and said.strip():
            messages.append((_ROLES.get(role.lower(), role.lower()), said))
    return Document(messages=tuple(messages)) if messages else None


def _said(value: Any) -> str:
    """The text of a turn; multimodal turns are a list of parts, of which the text parts count."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, Mapping)]
        return encodable("\n".join(part for part in parts if isinstance(part, str)))
    return ""


def _of_pair(record: Mapping[str, Any], asked: tuple[str, ...], answered: tuple[str, ...]) -> Document | None:
    question = "\n\n".join(text for name in asked if (text := _said(record.get(name))).strip())
    answer = next((text for name in answered if (text := _said(record.get(name))).strip()), "")
    if not question or not answer:
        return None
    return Document(messages=(("user", question), ("assistant", answer)))


def encodable(text: str) -> str:
    """`text` without lone surrogates: JSON may hold them, and no tokenizer takes them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
