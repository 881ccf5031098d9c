"""A conversation: its messages, the branches created by regenerating and editing, and the statistics of answers.

Plain values, stored by `app.pages.chat.conversations.json_format`. Does not depend on Qt.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.pages.chat.conversations.picture_files import display_name
from core.inference.generation.message import Message as ChatMessage
from core.inference.generation.reply import Statistics

Role = Literal["user", "assistant"]
LONGEST_TITLE: Final = 60
LEFT_OUT: Final = "[picture]"
"""Text of a message without text whose pictures are left out of a prompt."""


@dataclass
class Message:
    """A message.

    Attributes:
        id: number in the conversation; parent: id of the previous message, None for the first.
        text: the text; thinking: the reasoning before it.
        pictures: absolute paths of the attached pictures, which stand before the text.
        model: short name of the model that generated it, "" for a user's message.
        figures: statistics of an answer; None for a user's message, and while an answer is being generated.
        sampling: the sampling settings of an answer, including the seed.
    """

    id: int
    parent: int | None
    role: Role
    text: str
    thinking: str = ""
    model: str = ""
    figures: Statistics | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


class Conversation:
    """A tree of messages and the branch that is shown.

    Alternative answers and edited versions of a message are siblings. Each can be shown again, with the branch that was
    shown below it before.

    Attributes:
        id: name of its file; title: set by the user, "" to use its first message.
        created, updated: seconds since the epoch; model: the model used last; system: the system prompt.
    """

    def __init__(self, identity: str = "") -> None:
        self.id = identity or new_id()
        self.title = ""
        self.model = ""
        self.system = ""
        self.created = self.updated = time.time()
        self._messages: dict[int, Message] = {}
        self._children: dict[int | None, list[int]] = {}
        self._shown: dict[int | None, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return sum(1 for _ in self._walk())

    def __iter__(self) -> Iterator[Message]:
        """Iterate over the messages of all branches, in the order of creation."""
        return iter(list(self._messages.values()))

    def __contains__(self, identity: object) -> bool:
        """Return whether any branch has a message of this id."""
        return identity in self._messages

    @property
    def name(self) -> str:
        """The title, or the beginning of the first message; for one without text, the name of its first picture."""
        if self.title:
            return self.title
        first = next((message for message in self._walk() if message.role == "user"), None)
        words = " ".join(first.text.split()) if first is not None else ""
        if first is not None and first.pictures and not words:
            words = display_name(first.pictures[0])
        return words if len(words) <= LONGEST_TITLE else words[: LONGEST_TITLE - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"

    def path(self) -> list[Message]:
        """Return the messages of the shown branch from first to last."""
        return list(self._walk())

    @property
    def last(self) -> Message | None:
        """The last message of the shown branch."""
        found = None
        for message in self._walk():
            found = message
        return found

    def add(self, role: Role, text: str, pictures: tuple[str, ...] = ()) -> Message:
        """Add a message at the end of the shown branch."""
        last = self.last
        return self.put(Message(self._next, None if last is None else last.id, role, text, pictures=pictures))

    def put(self, message: Message) -> Message:
        """Add a message with its own id and parent, and show it. The parent must exist and the id be new."""
        self._messages[message.id] = message
        self._children.setdefault(message.parent, []).append(message.id)
        self._shown[message.parent] = message.id
        self._next = max(self._next, message.id + 1)
        self.updated = time.time()
        return message

    def branch(self, message: Message, text: str, pictures: tuple[str, ...] = ()) -> Message:
        """Add an edited version of a message as a sibling; the messages after the original stay with it."""
        return self.put(Message(self._next, message.parent, message.role, text, pictures=pictures))

    def drop_last(self) -> None:
        """Remove the last message, which must be a leaf; an earlier sibling is shown again."""
        message = self.last
        if message is None:
            return
        beside = self._children[message.parent]
        beside.remove(message.id)
        del self._messages[message.id]
        self._children.pop(message.id, None)
        self._shown.pop(message.parent, None)
        if beside:
            self._shown[message.parent] = beside[-1]

    def rewind(self) -> None:
        """Go back to the message before the last answer, so that the next one becomes its sibling."""
        last = self.last
        if last is not None and last.role == "assistant":
            self._shown.pop(last.parent, None)

    def unwind(self) -> None:
        """Show the newest answer to the last message again, if there is one."""
        last = self.last
        if last is not None and self._children.get(last.id):
            self._shown[last.id] = self._children[last.id][-1]

    def siblings(self, message: Message) -> list[Message]:
        """Return all versions of `message`, including itself, the oldest first."""
        return [self._messages[other] for other in self._children.get(message.parent, [])]

    def show(self, message: Message) -> None:
        """Show the branch with `message`, and below it the branch shown last or the newest one."""
        at: int | None = message.id
        while at is not None:
            above = self._messages[at].parent
            self._shown[above] = at
            at = above
        at = message.id
        while self._children.get(at):
            at = self._shown.setdefault(at, self._children[at][-1])

    def prompt(self, system: str = "", *, pictures: bool = True) -> list[ChatMessage]:
        """Return the messages for a chat template: the system prompt and the shown branch, without reasoning.

        Empty messages are omitted and adjacent messages of one role joined, as many templates reject repeated roles.
        Pictures are in the key `pictures` of messages that have some. If `pictures` is False, they are left out, and a
        message without text says so, as many templates require that questions and answers alternate.
        """
        found: list[ChatMessage] = [{"role": "system", "content": system}] if system.strip() else []
        for message in self._walk():
            shown = message.pictures if pictures else ()
            text = LEFT_OUT if message.pictures and not shown and not message.text.strip() else message.text
            if not text.strip() and not shown:
                continue
            if not found or found[-1]["role"] != message.role:
                found.append({"role": message.role, "content": text})
            elif text.strip():
                found[-1]["content"] = "\n\n".join(filter(None, (found[-1]["content"], text)))
            if shown:
                found[-1]["pictures"] = (*found[-1].get("pictures", ()), *shown)
        return found

    def to_markdown(self, title: str, system: str = "") -> str:
        """Return the shown branch as a Markdown document, with the name of the model above each answer."""
        parts = [f"# {title}"]
        if system.strip():
            parts.append(f"**System prompt**\n\n{system.strip()}")
        for message in self._walk():
            who = "You" if message.role == "user" else message.model or title
            names = [f"*Picture: {display_name(path)}*" for path in message.pictures]
            parts.append("\n\n".join([f"**{who}**", *names, message.text.strip()]).strip())
        return "\n\n".join(parts) + "\n"

    def _walk(self) -> Iterator[Message]:
        at = self._shown.get(None)
        while at is not None:
            yield self._messages[at]
            at = self._shown.get(at)


def new_id() -> str:
    """Return a unique id for a conversation."""
    return secrets.token_hex(8)
