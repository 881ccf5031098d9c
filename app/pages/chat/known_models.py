"""All models that could be talked to: what runs of this machine made, originals at hand, folders that were opened.

Knows the draft, the run and the service's list; not which model is picked, and no widget.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.shared import chat_choices
from app.shared.chat_choices import ChatChoice
from app.shared.context import Context
from app.shared.finished_models import FinishedModels


class KnownModels(QObject):
    """The models; what runs made is looked for again whenever a run ends.

    Signals:
        found: a look for what runs made is over.
    """

    found = Signal()

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._made = FinishedModels(context.calls, self)
        self._folders: list[ChatChoice] = []
        self._made.changed.connect(self.found)
        context.runs.ended.connect(lambda _job: self.look())

    @property
    def looked(self) -> bool:
        """Whether what runs made was looked for at all."""
        return self._made.looked

    @property
    def choices(self) -> list[ChatChoice]:
        """All of them as they are now, each once."""
        model, record = self._context.draft.model, self._context.runs.record
        originals = []
        if model is not None:
            originals.append(chat_choices.original(model.name, model.label, model.download_bytes))
        if record is not None and record.spec is not None:
            originals.append(chat_choices.original(record.spec.model, ""))
        return chat_choices.merged(self._made.choices, originals, self._folders)

    def look(self) -> None:
        """Look for what runs made."""
        self._made.look()

    def add_folder(self, path: str) -> bool:
        """Know a folder that the user opened from now on. Says whether it is new."""
        new = all(choice.name != path for choice in self.choices)
        if new:
            self._folders.append(chat_choices.folder(path))
        return new
