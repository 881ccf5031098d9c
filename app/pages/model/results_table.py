"""The rows of the model list: recent models and search results, each under a heading.

An item model of plain records.
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
"""Item role of the `ResultRow`."""

_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class ResultRow:
    """A row of the list.

    Attributes:
        name: name to open the model with; "" for a heading.
        title: short name, or the text of the heading.
        details: the second line, abbreviated.
        said: the second line in full, for a screen reader; "" if `details` is sufficient.
        badges: short labels.
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
        """Return the text of the row for a screen reader."""
        return ", ".join(part for part in (self.title, self.said or self.details, *self.badges) if part)


class SearchResults(QAbstractListModel):
    """Rows of a list view; headings cannot be selected."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[ResultRow, ...] = ()

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        return self._rows

    def set_rows(self, rows: Sequence[ResultRow]) -> None:
        """Replace the rows; does nothing if they are equal."""
        if tuple(rows) == self._rows:
            return
        self.beginResetModel()
        self._rows = tuple(rows)
        self.endResetModel()

    def first_model(self) -> QModelIndex:
        """Return the first selectable row; invalid if there is none."""
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
            # Escaped inside a tag: untrusted text must not be interpreted as markup.
            return f"<p style='white-space:pre-line'>{html.escape(row.tip)}</p>"
        return row if role == ROW else None

    def flags(self, index: _Index) -> Qt.ItemFlag:
        if index.isValid() and index.row() < len(self._rows) and not self._rows[index.row()].name:
            return Qt.ItemFlag.ItemNeverHasChildren
        return super().flags(index)


def heading(text: str) -> ResultRow:
    """Return a heading row."""
    return ResultRow("", text)


def recent_row(name: str) -> ResultRow:
    """Return the row of a recent model."""
    if name == DEMO:
        return ResultRow(name, "SmolLM2-135M-Instruct", "Demo, no download")
    if looks_like_path(name):
        path = PurePath(name)
        return ResultRow(name, path.name or name, str(path.parent), tip=name)
    owner, _, short = name.rpartition("/")
    return ResultRow(name, short, owner)


def found_row(found: FoundModel) -> ResultRow:
    """Return the row of a search result."""
    details, said, tip = [found.author], [found.author], [found.id]
    if found.parameters:
        details.append(short(found.parameters))
        said.append(f"{count(found.parameters)} parameters")
        tip.append(f"{found.parameters:,} parameters")
    license = found.license or "unknown license"
    details.append(license)
    said.append(license)
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
    """Return a number as in model names: `752M`, `1.24B`, `48.8k`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
