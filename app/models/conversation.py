"""A conversation with one model: its messages, the branches that regenerating makes, and the figures of each answer.

Plain values for the chat page and for whatever saves them later; knows no Qt, no child process and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Figures:
    """What one answer cost.

    Attributes:
        prompt_tokens: of all that the model read; tokens: of the answer.
        first_token_seconds: until the first token; seconds: until the last.
        tokens_per_second: of the tokens after the first.
        ended_by: `end`, `length`, `context`, `stopped`, `failed`, or "" while it goes on.
    """

    prompt_tokens: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    ended_by: str = ""

    @property
    def used(self) -> int:
        """Tokens of the model's context that the conversation fills."""
        return self.prompt_tokens + self.tokens


def figures_from(values: Mapping[str, Any]) -> Figures:
    """The figures in the result of an answer; what is missing or of another kind counts as none."""
    found: dict[str, Any] = {}
    for name in (each.name for each in fields(Figures)):
        default = getattr(Figures, name)
        value = values.get(name, default)
        fits = isinstance(value, str) if isinstance(default, str) else _is_number(value)
        found[name] = type(default)(value) if fits else default
    return Figures(**found)


@dataclass
class Meter:
    """Figures of an answer that is still coming, from the pieces of text and when they came.

    Pieces may hold several tokens, so tokens are worked out from the letters until the end tells the real number.

    Attributes:
        began: when it was asked for; first, last: when pieces came (seconds since the epoch, 0 for none).
        letters: of all pieces, and of the first.
        per_token: letters that a token holds on average, best known from an answer of the same model.
    """

    began: float
    per_token: float = 4.0
    first: float = 0.0
    last: float = 0.0
    letters: int = 0
    first_letters: int = 0

    def piece(self, text: str, at: float) -> None:
        """Note a piece of text that came at `at`."""
        if not self.first:
            self.first, self.first_letters = at, len(text)
        self.last = at
        self.letters += len(text)

    @property
    def figures(self) -> Figures:
        """As known by now; the tokens of the prompt are told at the end."""
        if not self.letters:
            return Figures()
        spent = self.last - self.first
        speed = (self.letters - self.first_letters) / self.per_token / spent if spent > 0 else 0.0
        tokens = max(1, round(self.letters / self.per_token))
        return Figures(0, tokens, max(0.0, self.first - self.began), max(0.0, self.last - self.began), speed)


@dataclass
class Message:
    """One message.

    Attributes:
        id: its place in the conversation; parent: the message before it, None for the first.
        text: what was written, as it came.
        figures: of an answer; None for a question, and while an answer is coming.
        sampling: the settings that an answer was drawn with, its seed too.
    """

    id: int
    parent: int | None
    role: Role
    text: str
    figures: Figures | None = None
    sampling: dict[str, Any] = field(default_factory=dict)


class Conversation:
    """A tree of messages and the branch of it that is shown.

    Regenerating an answer makes a second child of its question; the first stays and can be shown again.
    """

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        self._leaf: int | None = None
        self._next = 0

    def __len__(self) -> int:
        return len(self.path())

    def path(self) -> list[Message]:
        """The messages of the shown branch, the first one first."""
        found: list[Message] = []
        at = self._leaf
        while at is not None:
            found.append(self._messages[at])
            at = self._messages[at].parent
        return found[::-1]

    @property
    def last(self) -> Message | None:
        """The last message of the shown branch."""
        return None if self._leaf is None else self._messages[self._leaf]

    def add(self, role: Role, text: str) -> Message:
        """A new message at the end of the shown branch."""
        message = Message(self._next, self._leaf, role, text)
        self._messages[message.id] = message
        self._leaf = message.id
        self._next += 1
        return message

    def drop_last(self) -> None:
        """Remove the last message, which must have nothing after it; an earlier answer in its place comes back."""
        message = self.last
        if message is None:
            return
        others = [other for other in self.siblings(message) if other is not message]
        del self._messages[message.id]
        self._leaf = message.parent
        if others:
            self.show(others[-1])

    def rewind(self) -> None:
        """Step back to the question of the last answer, so that the next message is another answer to it."""
        if self.last is not None and self.last.role == "assistant":
            self._leaf = self.last.parent

    def siblings(self, message: Message) -> list[Message]:
        """All messages that stand where `message` stands, the oldest first, `message` among them."""
        return [other for other in self._messages.values() if other.parent == message.parent]

    def show(self, message: Message) -> None:
        """Make `message` part of the shown branch, with the newest of what follows it."""
        at: int | None = message.id
        while at is not None:
            self._leaf = at
            at = max((other.id for other in self._messages.values() if other.parent == at), default=None)

    def prompt(self, system: str = "") -> list[dict[str, str]]:
        """What a chat template takes: the shown branch behind the system prompt.

        Empty messages are left out and neighbours of one role joined (a question whose answer was stopped before
        its first word, and the next one): many templates refuse two of a kind in a row.
        """
        found: list[dict[str, str]] = [{"role": "system", "content": system}] if system.strip() else []
        for message in self.path():
            if not message.text.strip():
                continue
            if found and found[-1]["role"] == message.role:
                found[-1]["content"] += f"\n\n{message.text}"
            else:
                found.append({"role": message.role, "content": message.text})
        return found

    def to_markdown(self, title: str, system: str = "") -> str:
        """The shown branch as a Markdown document."""
        parts = [f"# {title}"]
        if system.strip():
            parts.append(f"**System prompt**\n\n{system.strip()}")
        names = {"user": "You", "assistant": title}
        parts += [f"**{names[message.role]}**\n\n{message.text.strip()}" for message in self.path()]
        return "\n\n".join(parts) + "\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
