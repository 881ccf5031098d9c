"""The saved conversations of the window, accessed in a background thread.

Changes are written after a short delay, the newest state only. Depends on QtCore and `ConversationFiles`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from PySide6.QtCore import QObject, QTimer, Signal

from app.pages.chat.background import BackgroundWork
from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.files import ConversationFiles, ConversationListing, ConversationSummary, summary_of
from app.pages.chat.conversations.json_format import to_json
from app.pages.chat.conversations.picture_files import PictureFiles
from core.errors import BitwrightError

SAVE_MS: Final = 800
"""Minimum interval between writes of a streamed answer."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class ConversationStore(QObject):
    """The list of saved conversations, as known so far.

    Signals:
        changed: the list changed.
        opened(object): the `Conversation` requested with `open`.
        renamed(str, str): the conversation of this id has this title.
        failed(object): a `BitwrightError`; the conversation is unchanged.
    """

    changed = Signal()
    opened = Signal(object)
    renamed = Signal(str, str)
    failed = Signal(object)

    def __init__(self, store: ConversationFiles | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._store = store or ConversationFiles()
        self._background = BackgroundWork(1, "conversations", self)
        self._listing = ConversationListing()
        self._conversation: Conversation | None = None
        self._deleted: ConversationSummary | None = None
        self._gone: set[str] = set()
        self._said = self._wanted = ""
        self._later = QTimer(self, singleShot=True, interval=SAVE_MS)
        self._later.timeout.connect(self.flush)

    @property
    def listing(self) -> ConversationListing:
        """The conversations, the newest first, and the unreadable files."""
        return self._listing

    @property
    def deleted(self) -> ConversationSummary | None:
        """The conversation that was deleted last and can be restored."""
        return self._deleted

    @property
    def folder(self) -> str:
        """The folder of the files."""
        return str(self._store.folder)

    @property
    def pictures(self) -> PictureFiles:
        """The pictures of the conversations."""
        return self._store.pictures

    def run(
        self, work: Callable[[], T], then: Callable[[T], object], failed: Callable[[BitwrightError], object]
    ) -> None:
        """Call `work` in the background thread, and `then` or `failed` with its result or its `BitwrightError`."""
        self._do(work, then, failed)

    def reload(self) -> None:
        """Read the list again."""
        self._do(self._store.list, self._listed)

    def save_later(self, conversation: Conversation) -> None:
        """Save a conversation after a delay, unless it is empty or was deleted."""
        if not len(conversation) or conversation.id in self._gone:
            return
        if self._conversation is not None and self._conversation is not conversation:
            self.flush()
        self._conversation = conversation
        if not self._later.isActive():
            self._later.start()

    def flush(self) -> None:
        """Save pending changes now."""
        self._later.stop()
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._put(summary_of(conversation))
            identity, value = conversation.id, to_json(conversation)
            self._do(lambda: self._store.save(identity, value), self._saved)

    def open(self, identity: str) -> None:
        """Read a conversation and emit `opened`, unless another one is requested meanwhile."""
        self.flush()
        self._wanted = identity
        self._do(lambda: self._store.load(identity), lambda conversation: self._opened(identity, conversation))

    def stay(self) -> None:
        """Keep the current conversation: `opened` is not emitted for a pending request."""
        self._wanted = ""

    def _opened(self, identity: str, conversation: Conversation) -> None:
        if identity == self._wanted:
            self.opened.emit(conversation)

    def rename(self, identity: str, title: str) -> None:
        """Set the title of a saved conversation; "" to use its first message."""
        self.flush()

        def done(summary: ConversationSummary) -> None:
            self._put(summary)
            self.renamed.emit(identity, title)

        self._do(lambda: self._store.rename(identity, title), done)

    def delete(self, identity: str) -> None:
        """Delete a conversation; `undo` restores it."""
        self.flush()  # so that `undo` restores the latest state
        self._gone.add(identity)
        self._deleted = next((summary for summary in self._listing.summaries if summary.id == identity), None)
        left = tuple(summary for summary in self._listing.summaries if summary.id != identity)
        self._listing = replace(self._listing, summaries=left)
        self._do(lambda: self._store.remove(identity), lambda _none: None)
        self.changed.emit()

    def undo(self) -> None:
        """Restore the conversation that was deleted last."""
        summary, self._deleted = self._deleted, None
        if summary is not None:
            self._gone.discard(summary.id)
            self._do(lambda: self._store.restore(summary.id), lambda _none: self._put(summary))

    def clear_undo(self) -> None:
        """Discard the possibility to undo."""
        if self._deleted is not None:
            self._deleted = None
            self.changed.emit()

    def wait(self) -> None:
        """Wait until everything is written."""
        self.flush()
        self._background.wait()

    def _listed(self, listing: ConversationListing) -> None:
        # changes made since the listing began are newer
        mine = {summary.id: summary for summary in self._listing.summaries}
        found = {summary.id: summary for summary in listing.summaries}
        for identity, summary in mine.items():
            if identity not in found or found[identity].updated < summary.updated:
                found[identity] = summary
        if self._deleted is not None:
            found.pop(self._deleted.id, None)
        self._listing = replace(listing, summaries=_newest_first(found.values()))
        self.changed.emit()

    def _put(self, summary: ConversationSummary) -> None:
        others = [other for other in self._listing.summaries if other.id != summary.id]
        self._listing = replace(self._listing, summaries=_newest_first([summary, *others]))
        self.changed.emit()

    def _saved(self, _none: object) -> None:
        self._said = ""

    def _do(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], object],
        failed: Callable[[BitwrightError], object] | None = None,
    ) -> None:
        self._background.start(work, then, failed or self._tell)

    def _tell(self, error: BitwrightError) -> None:
        if error.message != self._said:  # a full disk is reported once, not with every write
            self._said = error.message
            _log.warning("%s", error)
            self.failed.emit(error)


def _newest_first(summaries: Any) -> tuple[ConversationSummary, ...]:
    return tuple(sorted(summaries, key=lambda summary: -summary.updated))
