"""The JSON format of conversations with all branches, and the import of message lists of other programs.

Input is validated; anything that is not a conversation raises an error. Does not depend on Qt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.pages.chat.conversations.conversation import Conversation, Message
from app.pages.chat.conversations.picture_files import PictureFiles
from core.codec import decode, encode
from core.errors import CorruptFile
from core.inference.generation.reply import Statistics

VERSION: Final = 2
"""Version 2 has pictures. A conversation without pictures is written as version 1, which older programs read."""
_KIND: Final = "bitwright-conversation"


def to_json(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation as JSON values. A picture is represented by the name of its copy (`PictureFiles`)."""
    shown = {message.id for message in conversation.path()}
    return {
        "kind": _KIND,
        "version": VERSION if any(message.pictures for message in conversation) else 1,
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created,
        "updated": conversation.updated,
        "model": conversation.model,
        "system": conversation.system,
        "messages": [_message(message, message.id in shown) for message in conversation],
    }


def from_json(value: Any, identity: str = "", pictures: PictureFiles | None = None) -> Conversation:
    """Return the conversation of a JSON value: from `to_json`, or a list of messages with `role` and `content`.

    Args:
        value: the JSON value.
        identity: the new id; "" keeps the stored one or generates one.
        pictures: the folder with the copies of its pictures; None for the default one.

    Raises:
        CorruptFile: it is not a conversation.
    """
    if isinstance(value, Mapping) and value.get("kind") == _KIND:
        return _own(value, identity, pictures or PictureFiles())
    messages = value.get("messages") if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not messages:
        raise CorruptFile("This file contains no conversation.", "Choose a conversation that was exported as JSON.")
    return _foreign(messages, identity, pictures or PictureFiles())


def _own(value: Mapping[str, Any], identity: str, pictures: PictureFiles) -> Conversation:
    if value.get("version") not in (1, VERSION):
        raise CorruptFile(
            f"This conversation has version {value.get('version')!r}, which this version of Bitwright cannot read.",
            "Update Bitwright, or export the conversation again.",
        )
    conversation = Conversation(identity or _word(value, "id"))
    conversation.title, conversation.model, conversation.system = (
        _word(value, name) for name in ("title", "model", "system")
    )
    shown: Message | None = None
    try:
        for entry in value["messages"]:
            message = _read(entry, pictures)
            if not _fits(conversation, message):
                raise ValueError("a message has no valid parent")
            conversation.put(message)
            if entry.get("shown"):
                shown = message
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile("The conversation in this file is incomplete.", "Choose another file.") from error
    if shown is not None:
        conversation.show(shown)
    now = time.time()
    conversation.created, conversation.updated = (_number(value, name, now) for name in ("created", "updated"))
    return conversation


def _foreign(messages: list[Any], identity: str, pictures: PictureFiles) -> Conversation:
    conversation = Conversation(identity)
    for entry in messages:
        role, text = (entry.get("role"), entry.get("content")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(text, str) or role not in ("system", "user", "assistant"):
            raise CorruptFile("A message in this file has no valid role or text.", "Choose another file.")
        if role == "system":
            conversation.system = f"{conversation.system}\n\n{text}".strip()
        else:
            conversation.add(role, text, _pictures(entry, pictures))
    return conversation


def _pictures(entry: Mapping[str, Any], pictures: PictureFiles) -> tuple[str, ...]:
    """Return the paths of the pictures of a message of another program, as `picture_files.extract` left them."""
    attached = entry.get("pictures", [])
    try:
        return tuple(pictures.path(stored) for stored in attached)
    except (TypeError, ValueError) as error:
        raise CorruptFile("A picture in this file has an unknown form.", "Choose another file.") from error


def _message(message: Message, shown: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": message.id, "parent": message.parent, "role": message.role, "text": message.text}
    if shown:
        found["shown"] = True
    for name in ("thinking", "model", "sampling"):
        if getattr(message, name):
            found[name] = getattr(message, name)
    if message.pictures:
        found["pictures"] = [Path(path).name for path in message.pictures]
    if message.figures is not None:
        found["figures"] = encode(message.figures)
    return found


def _read(entry: Any, pictures: PictureFiles) -> Message:
    role, figures, sampling = entry["role"], entry.get("figures"), entry.get("sampling", {})
    attached = entry.get("pictures", [])
    if role not in ("user", "assistant") or not isinstance(sampling, dict) or not isinstance(attached, list):
        raise ValueError("a message has an unknown form")
    parent = entry["parent"]
    return Message(
        id=_whole(entry["id"]),
        parent=None if parent is None else _whole(parent),
        role=role,
        text=str(entry["text"]),
        thinking=_word(entry, "thinking"),
        model=_word(entry, "model"),
        figures=None if figures is None else _statistics(figures),
        sampling=sampling,
        pictures=tuple(pictures.path(stored) for stored in attached),
    )


def _statistics(value: Any) -> Statistics:
    try:
        return decode(Statistics, value)
    except TypeError:
        return Statistics()  # statistics of an unknown form are ignored


def _fits(conversation: Conversation, message: Message) -> bool:
    """Return whether the id is new and the parent exists. Parents come first, so there are no cycles."""
    return message.id not in conversation and (message.parent is None or message.parent in conversation)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("a message has no number")
    return value


def _word(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _number(value: Mapping[str, Any], name: str, default: float) -> float:
    found = value.get(name)
    fits = isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < 1e11
    return float(found) if fits and found is not None else default
