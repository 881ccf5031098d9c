"""The files of saved conversations: one JSON file each, written atomically and readable by the owner only.

An unreadable file is kept and reported; a deleted one is moved aside and can be restored. Does not depend on Qt; called
in a background thread.
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
from app.pages.chat.conversations.picture_files import PICTURES, PictureFiles, display_name
from core.errors import BitwrightError, CorruptFile, OutputProblem
from core.files import json_bytes, read_json
from core.home import home
from core.private_files import private_folder, write_private

DELETED: Final = "deleted"
KEPT_DAYS: Final = 7
"""Days after which deleted conversations are removed permanently."""
_NAME: Final = re.compile(r"[\w-]{1,80}")
_SEARCHED: Final = 200_000
"""Maximum number of characters of a conversation that are searched."""


@dataclass(frozen=True)
class ConversationSummary:
    """A saved conversation in a list.

    Attributes:
        id, name, model: id, display name, and the model used last.
        updated: seconds since the epoch; messages: number of messages in the shown branch.
        words: the whole text in lower case, for searching.
    """

    id: str
    name: str
    model: str
    updated: float
    messages: int
    words: str


@dataclass(frozen=True)
class ConversationListing:
    """The saved conversations, the newest first, and the unreadable files with the reason."""

    summaries: tuple[ConversationSummary, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


class ConversationFiles:
    """The conversations in a folder, which is created when the first one is saved."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "conversations"
        self.pictures = PictureFiles(self.folder / PICTURES)

    def list(self) -> ConversationListing:
        """Return all conversations; remove those that were deleted long ago, and pictures that none uses."""
        self._forget_deleted()
        found: list[ConversationSummary] = []
        broken: list[tuple[str, str]] = []
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.glob("*.json")):
                if path.name.startswith("."):
                    continue  # a partial file of a killed process
                try:
                    found.append(summary_of(self.load(path.stem)))
                except BitwrightError as error:
                    broken.append((path.name, error.message))
        found.sort(key=lambda summary: -summary.updated)
        return ConversationListing(tuple(found), tuple(broken))

    def load(self, identity: str) -> Conversation:
        """Return a conversation.

        Raises:
            CorruptFile: it is missing or incomplete.
        """
        return from_json(read_json(self._path(identity)), identity, self.pictures)

    def save(self, identity: str, value: Mapping[str, Any]) -> None:
        """Write a conversation (`json_format.to_json`) and replace an older version.

        Raises:
            OutputProblem: the folder is not writable.
        """
        try:
            private_folder(self.folder)
            write_private(self._path(identity), json_bytes(dict(value)))
        except OSError as error:
            raise OutputProblem(
                f"The conversation cannot be saved in {self.folder}: {error.strerror}.",
                "Free disk space or check the permissions. The conversation stays open.",
            ) from error

    def rename(self, identity: str, title: str) -> ConversationSummary:
        """Set the title of a conversation.

        Raises:
            CorruptFile, OutputProblem: it cannot be read or written.
        """
        value = read_json(self._path(identity))
        conversation = from_json(value, identity, self.pictures)
        conversation.title = value["title"] = title
        self.save(identity, value)
        return summary_of(conversation)

    def remove(self, identity: str) -> None:
        """Move a conversation aside; `restore` undoes it within KEPT_DAYS. A missing one is ignored.

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
                f"The conversation cannot be deleted: {error.strerror}.", "Check the permissions of its file."
            ) from error

    def restore(self, identity: str) -> None:
        """Restore a deleted conversation.

        Raises:
            OutputProblem: it is missing or cannot be moved.
        """
        try:
            (self.folder / DELETED / f"{identity}.json").replace(self._path(identity))
        except OSError as error:
            raise OutputProblem(f"The conversation cannot be restored: {error.strerror}.", "") from error

    def _path(self, identity: str) -> Path:
        if not _NAME.fullmatch(identity):
            raise CorruptFile(f"{identity!r} is not a valid conversation id.", "Select another conversation.")
        return self.folder / f"{identity}.json"

    def _forget_deleted(self) -> None:
        limit = time.time() - KEPT_DAYS * 86_400
        with contextlib.suppress(OSError):
            for path in (self.folder / DELETED).glob("*.json"):
                if path.stat().st_mtime < limit:
                    path.unlink()
            used = [*self.folder.glob("*.json"), *(self.folder / DELETED).glob("*.json")]
            self.pictures.sweep(used, KEPT_DAYS)


def summary_of(conversation: Conversation) -> ConversationSummary:
    """Return the summary of a conversation."""
    texts = [conversation.name, conversation.model]
    for message in conversation:
        texts += [message.text, *map(display_name, message.pictures)]
    words = "\n".join(texts)[:_SEARCHED].casefold()
    return ConversationSummary(
        conversation.id, conversation.name, conversation.model, conversation.updated, len(conversation), words
    )


def matching(summaries: tuple[ConversationSummary, ...], text: str) -> list[ConversationSummary]:
    """Return the conversations that contain every word of `text`."""
    words = text.casefold().split()
    return [summary for summary in summaries if all(word in summary.words for word in words)]
