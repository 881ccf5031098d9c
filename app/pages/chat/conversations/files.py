"""The saved conversations: one JSON file each in a folder of its own, written so that none is ever half there.

Only their owner may read them. A file that cannot be read stays where it is and is named; a deleted one is put aside
and can be brought back. Knows files and no Qt; a window calls it from a thread.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.json_format import from_json
from core.errors import BitwrightError, CorruptFile, OutputProblem
from core.files import json_bytes, read_json
from core.home import home
from core.private_files import private_folder, write_private

DELETED: Final = "deleted"
KEPT_DAYS: Final = 7
"""Deleted conversations are really gone after this many days."""
_NAME: Final = re.compile(r"[\w-]{1,80}")
_SEARCHED: Final = 200_000
"""Letters of a conversation that are searched."""


@dataclass(frozen=True)
class ConversationSummary:
    """A saved conversation in a list.

    Attributes:
        id: of the conversation; name: what people call it; model: what was talked to.
        updated: seconds since the epoch; messages: of the shown branch.
        words: all that was said, in small letters, for searching.
    """

    id: str
    name: str
    model: str
    updated: float
    messages: int
    words: str


@dataclass(frozen=True)
class ConversationListing:
    """What is saved, the newest first, and the files that cannot be read, with the reason."""

    summaries: tuple[ConversationSummary, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


class ConversationFiles:
    """The conversations in one folder, which is made when the first one is saved."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "conversations"

    def list(self) -> ConversationListing:
        """All conversations; what was deleted long ago goes for good."""
        self._forget_deleted()
        found: list[ConversationSummary] = []
        broken: list[tuple[str, str]] = []
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.glob("*.json")):
                if path.name.startswith("."):
                    continue  # half of a file whose writer was killed
                try:
                    found.append(summary_of(self.load(path.stem)))
                except BitwrightError as error:
                    broken.append((path.name, error.message))
        found.sort(key=lambda summary: -summary.updated)
        return ConversationListing(tuple(found), tuple(broken))

    def load(self, identity: str) -> Conversation:
        """One conversation.

        Raises:
            CorruptFile: it is not there, or torn.
        """
        return from_json(read_json(self._path(identity)), identity)

    def save(self, identity: str, value: Mapping[str, Any]) -> None:
        """Write a conversation (`conversation_file.to_json`) in place of what was there.

        Raises:
            OutputProblem: the folder cannot be written to.
        """
        try:
            private_folder(self.folder)
            write_private(self._path(identity), json_bytes(dict(value)))
        except OSError as error:
            raise OutputProblem(
                f"The conversation cannot be saved in {self.folder}: {error.strerror}.",
                "Make room or rights there; it stays in the window meanwhile.",
            ) from error

    def rename(self, identity: str, title: str) -> ConversationSummary:
        """Give a conversation a title.

        Raises:
            CorruptFile, OutputProblem: it cannot be read or written.
        """
        value = read_json(self._path(identity))
        conversation = from_json(value, identity)
        conversation.title = value["title"] = title
        self.save(identity, value)
        return summary_of(conversation)

    def remove(self, identity: str) -> None:
        """Put a conversation aside; `restore` brings it back within KEPT_DAYS. One that is not there is fine.

        Raises:
            OutputProblem: it cannot be moved.
        """
        aside = self.folder / DELETED
        try:
            aside.mkdir(parents=True, exist_ok=True)
            moved = self._path(identity).replace(aside / f"{identity}.json")
            moved.touch()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputProblem(
                f"The conversation cannot be deleted: {error.strerror}.", "Check its rights."
            ) from error

    def restore(self, identity: str) -> None:
        """Bring back what was deleted.

        Raises:
            OutputProblem: it is gone or cannot be moved.
        """
        try:
            (self.folder / DELETED / f"{identity}.json").replace(self._path(identity))
        except OSError as error:
            raise OutputProblem(f"The conversation cannot be brought back: {error.strerror}.", "") from error

    def _path(self, identity: str) -> Path:
        if not _NAME.fullmatch(identity):
            raise CorruptFile(f"{identity!r} is no name of a conversation.", "Choose another one.")
        return self.folder / f"{identity}.json"

    def _forget_deleted(self) -> None:
        limit = time.time() - KEPT_DAYS * 86_400
        with contextlib.suppress(OSError):
            for path in (self.folder / DELETED).glob("*.json"):
                if path.stat().st_mtime < limit:
                    path.unlink()


def summary_of(conversation: Conversation) -> ConversationSummary:
    """A conversation as it stands in a list."""
    texts = [conversation.name, conversation.model, *(message.text for message in conversation)]
    words = "\n".join(texts)[:_SEARCHED].casefold()
    return ConversationSummary(
        conversation.id, conversation.name, conversation.model, conversation.updated, len(conversation), words
    )


def matching(summaries: tuple[ConversationSummary, ...], text: str) -> list[ConversationSummary]:
    """The conversations in which every word of `text` occurs."""
    words = text.casefold().split()
    return [summary for summary in summaries if all(word in summary.words for word in words)]
