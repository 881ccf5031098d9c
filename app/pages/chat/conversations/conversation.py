"""A conversation: its messages, the branches that asking again and editing make, and what each answer cost.

Plain values for the chat page and for what saves them (`app.pages.chat.conversations.json_format`); knows no
Qt, no child process and no file.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from core.inference.generation.reply import Statistics

Role = Literal["user", "assistant"]
LONGEST_TITLE: Final = 60


@dataclass
class Message:
    """One message.

    Attributes:
        id: its place in the conversation; parent: the message before it, None for the first.
        text: what was written, as it came; thinking: what the model thought before it.
        model: short name of the model that wrote it, "" for a question.
        figures: of an answer; None for a question, and while an answer is coming.
        sampling: the settings that an answer was drawn with, its seed too.
    """

    id: int
    parent: int | None
    role: Role
    text: str
    thinking: str = ""
    model: str = ""
    figures: Statistics | None = None
    sampling: dict[str, Any] = field(default_factory=dict)


class Conversation:
    """A tree of messages and the branch of it that is shown.

    Another answer to a question, and another wording of a question, stand beside the first; each can be shown again,
    with the branch that was shown below it before.

    Attributes:
        id: names its file; title: given by the user, "" while its first question serves as one.
        created, updated: seconds since the epoch; model: what was talked to last; system: the system prompt.
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
        """All messages of all branches, in the order in which they were written."""
        return iter(list(self._messages.values()))

    def __contains__(self, identity: object) -> bool:
        """Whether there is a message of this id, in any branch."""
        return identity in self._messages

    @property
    def name(self) -> str:
        """What people call it: its title, or the beginning of its first question."""
        if self.title:
            return self.title
        first = next((message.text for message in self._walk() if message.role == "user"), "")
        words = " ".join(first.split())
        return words if len(words) <= LONGEST_TITLE else words[: LONGEST_TITLE - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"

    def path(self) -> list[Message]:
        """The messages of the shown branch, the first one first."""
        return list(self._walk())

    @property
    def last(self) -> Message | None:
        """The last message of the shown branch."""
        found = None
        for message in self._walk():
            found = message
        return found

    def add(self, role: Role, text: str) -> Message:
        """A new message at the end of the shown branch."""
        last = self.last
        return self.put(Message(self._next, None if last is None else last.id, role, text))

    def put(self, message: Message) -> Message:
        """Add a message under its own id and parent, and show it; the parent must be there, and the id be new."""
        self._messages[message.id] = message
        self._children.setdefault(message.parent, []).append(message.id)
        self._shown[message.parent] = message.id
        self._next = max(self._next, message.id + 1)
        self.updated = time.time()
        return message

    def branch(self, message: Message, text: str) -> Message:
        """Another wording of a question, beside it; what followed the first stays with the first."""
        return self.put(Message(self._next, message.parent, message.role, text))

    def drop_last(self) -> None:
        """Remove the last message, which must have nothing after it; an earlier answer in its place comes back."""
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
        """Step back to the question of the last answer, so that the next message is another answer to it."""
        last = self.last
        if last is not None and last.role == "assistant":
            self._shown.pop(last.parent, None)

    def unwind(self) -> None:
        """Show the newest answer to the last question again, where it has one."""
        last = self.last
        if last is not None and self._children.get(last.id):
            self._shown[last.id] = self._children[last.id][-1]

    def siblings(self, message: Message) -> list[Message]:
        """All messages that stand where `message` stands, the oldest first, `message` among them."""
        return [self._messages[other] for other in self._children.get(message.parent, [])]

    def show(self, message: Message) -> None:
        """Make `message` part of the shown branch, with what was shown below it before, or the newest of it."""
        at: int | None = message.id
        while at is not None:
            above = self._messages[at].parent
            self._shown[above] = at
            at = above
        at = message.id
        while self._children.get(at):
            at = self._shown.setdefault(at, self._children[at][-1])

    def prompt(self, system: str = "") -> list[dict[str, str]]:
        """What a chat template takes: the shown branch behind the system prompt, without what was only thought.

        Empty messages are left out and neighbours of one role joined (a question whose answer was stopped before
        its first word, and the next one): many templates refuse two of a kind in a row.
        """
        found: list[dict[str, str]] = [{"role": "system", "content": system}] if system.strip() else []
        for message in self._walk():
            if not message.text.strip():
                continue
            if found and found[-1]["role"] == message.role:
                found[-1]["content"] += f"\n\n{message.text}"
            else:
                found.append({"role": message.role, "content": message.text})
        return found

    def to_markdown(self, title: str, system: str = "") -> str:
        """The shown branch as a Markdown document; answers stand under the name of the model that gave them."""
        parts = [f"# {title}"]
        if system.strip():
            parts.append(f"**System prompt**\n\n{system.strip()}")
        for message in self._walk():
            who = "You" if message.role == "user" else message.model or title
            parts.append(f"**{who}**\n\n{message.text.strip()}")
        return "\n\n".join(parts) + "\n"

    def _walk(self) -> Iterator[Message]:
        at = self._shown.get(None)
        while at is not None:
            yield self._messages[at]
            at = self._shown.get(at)


def new_id() -> str:
    """A name for a conversation that no other has."""
    return secrets.token_hex(8)
