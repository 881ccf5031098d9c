"""The rows of the model list: models used before, and what a search found, under one heading each.

An item model over the plain records that the search returns; knows nothing of how they were found or are painted.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from core.hub.records import FoundModel
from core.hub.search import is_quantized
from core.model_id import DEMO, looks_like_path
from core.wording import count

ROW = Qt.ItemDataRole.UserRole
"""Role of the whole `ResultRow`."""

_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class ResultRow:
    """One line of the list.

    Attributes:
        name: what opens the model; "" for a heading.
        title: short name, or the heading's text.
        details: the second line, in short.
        said: the second line in whole words, for a screen reader; "" where `details` will do.
        badges: short words that set this model apart.
        tip: exact figures, plain text.
    """

    name: str
    title: str
    details: str = ""
    badges: tuple[str, ...] = ()
    tip: str = ""
    said: str = ""

    @property
    def spoken(self) -> str:
        """The whole row as a screen reader should say it."""
        return ", ".join(part for part in (self.title, self.said or self.details, *self.badges) if part)


class SearchResults(QAbstractListModel):
    """Rows for a list view; headings can be neither selected nor picked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[ResultRow, ...] = ()

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        return self._rows

    def set_rows(self, rows: Sequence[ResultRow]) -> None:
        """Show these instead of the present ones; does nothing where they are the same."""
        if tuple(rows) == self._rows:
            return
        self.beginResetModel()
        self._rows = tuple(rows)
        self.endResetModel()

    def first_model(self) -> QModelIndex:
        """The first row that can be picked; invalid if there is none."""
        number = next((number for number, row in enumerate(self._rows) if row.name), -1)
        return self.index(number) if number >= 0 else QModelIndex()

    def rowCount(self, parent: _Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        row = self._rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.title
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return row.spoken
        if role == Qt.ItemDataRole.ToolTipRole and row.tip:
            # Escaped inside a tag: a stranger's text must not be taken for markup that loads something.
            return f"<p style='white-space:pre-line'>{html.escape(row.tip)}</p>"
        return row if role == ROW else None

    def flags(self, index: _Index) -> Qt.ItemFlag:
        if index.isValid() and index.row() < len(self._rows) and not self._rows[index.row()].name:
            return Qt.ItemFlag.ItemNeverHasChildren
        return super().flags(index)


def heading(text: str) -> ResultRow:
    """A row that only says what follows."""
    return ResultRow("", text)


def recent_row(name: str) -> ResultRow:
    """A model that was opened before."""
    if name == DEMO:
        return ResultRow(name, "SmolLM2-135M-Instruct", "demo, no download")
    if looks_like_path(name):
        path = PurePath(name)
        return ResultRow(name, path.name or name, str(path.parent), tip=name)
    owner, _, short = name.rpartition("/")
    return ResultRow(name, short, owner)


def found_row(found: FoundModel) -> ResultRow:
    """A model that the search found."""
    details, said, tip = [found.author], [found.author], [found.id]
    if found.parameters:
        details.append(short(found.parameters))
        said.append(f"{count(found.parameters)} parameters")
        tip.append(f"{found.parameters:,} parameters")
    licence = found.license or "licence not stated"
    details.append(licence)
    said.append(licence)
    if found.downloads:
        details.append(f"{short(found.downloads)} downloads")
        said.append(f"{count(found.downloads)} downloads")
        tip.append(f"{found.downloads:,} downloads, {found.likes:,} likes")
    if found.updated:
        tip.append(f"changed {found.updated[:10]}")
    badges = (("gated", found.gated), ("quantized", is_quantized(found)), ("in cache", found.cached))
    return ResultRow(
        found.id,
        found.id.rpartition("/")[2],
        " \N{MIDDLE DOT} ".join(part for part in details if part),
        tuple(word for word, holds in badges if holds),
        "\n".join(tip),
        ", ".join(part for part in said if part),
    )


def short(number: float) -> str:
    """A number as the names of models have it: `752M`, `1.24B`, `48.8k`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
