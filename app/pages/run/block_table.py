"""Table model of the blocks of a run: the loss of each with plain rounding and as quantized.

Depends on Qt's item models and the run's record. The bars of all rows share a logarithmic scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.shared.run.record import BlockFigures, RunRecord
from core.wording import duration, figure, short_figure

Index = QModelIndex | QPersistentModelIndex
_ARROW: Final = "\N{RIGHTWARDS ARROW}"
_LONGEST: Final = 6
"""Maximum number of characters of a loss."""


@dataclass(frozen=True)
class BlockRow:
    """A row for painting.

    Attributes:
        block: number from 0, as in the model; displayed from 1.
        figures: None until it is finished.
        share: progress of its tuning, 0 to 1; None if it is not being tuned.
        text: the figures, or its state.
        before, after: lengths of its bars, 0 to 1.
    """

    block: int
    figures: BlockFigures | None
    share: float | None
    text: str
    before: float = 0.0
    after: float = 0.0


ROW: Final = int(Qt.ItemDataRole.UserRole)


class BlockTable(QAbstractListModel):
    """A table with one row per block."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._record: RunRecord | None = None
        self._rows: list[BlockRow] = []
        self._scale = (0.0, 1.0)

    @property
    def current(self) -> int:
        """Number of the block being tuned; -1 for none."""
        return next((row.block for row in self._rows if row.share is not None), -1)

    def show(self, record: RunRecord | None) -> None:
        """Update the rows from a record; only changed rows are reported."""
        self._record = record
        rows = self._made()
        if len(rows) != len(self._rows):
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()
            return
        changed = [number for number, (old, new) in enumerate(zip(self._rows, rows, strict=True)) if old != new]
        self._rows = rows
        if changed:
            self.dataChanged.emit(self.index(changed[0]), self.index(changed[-1]))

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or not 0 <= index.row() < len(self._rows):
            return None
        row = self._rows[index.row()]
        if role == ROW:
            return row
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{row.block + 1}  {row.text}"
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self._spoken(row)
        if role == Qt.ItemDataRole.ToolTipRole and row.figures is not None:
            return self._tip(row.block, row.figures)
        return None

    def _made(self) -> list[BlockRow]:
        record = self._record
        if record is None:
            return []
        self._scale = scale_of(record.blocks.values())
        return [self._row(record, block) for block in range(record.total)]

    def _row(self, record: RunRecord, block: int) -> BlockRow:
        figures = record.blocks.get(block)
        if figures is not None:
            text = f"{_fitted(figures.before)} {_ARROW} {_fitted(figures.after)}"
            return BlockRow(block, figures, None, text, self._length(figures.before), self._length(figures.after))
        if block != record.block or not record.active:
            return BlockRow(block, None, None, "")
        curve = record.curves.get(block)
        done = curve.iterations[-1] if curve is not None and curve.iterations else 0
        share = min(1.0, done / record.iterations) if record.iterations else 0.0
        text = self.tr("tuning") if record.iterations else self.tr("rounding")
        if record.has_start:
            found, kinds = len(record.starts.get(block, {})), len(record.kinds)
            layers = min(1.0, found / kinds) if kinds else 0.0
            share = (layers + share) / 2 if record.iterations else layers
            if not done:
                text = self.tr("start {found} of {all}").format(found=found, all=kinds)
        return BlockRow(block, None, share, text)

    def _length(self, loss: float) -> float:
        low, high = self._scale
        if not (loss > 0 and math.isfinite(loss)):
            return 0.0 if loss == 0 else 1.0
        return min(1.0, max(0.0, (math.log10(loss) - low) / (high - low)))

    def _spoken(self, row: BlockRow) -> str:
        if row.figures is None:
            return self.tr("Block {block}, {state}").format(block=row.block + 1, state=row.text or self.tr("waiting"))
        before, after = figure(row.figures.before), figure(row.figures.after)
        text = self.tr("Block {block}, loss {before} with plain rounding, {after} as quantized")
        return text.format(block=row.block + 1, before=before, after=after)

    def _tip(self, block: int, figures: BlockFigures) -> str:
        name = self._record.names.get(block, "") if self._record is not None else ""
        text = self.tr("Loss {before:.6g} with plain rounding, {after:.6g} as quantized{chosen}, {time}")
        time = duration(figures.seconds)
        chosen = self.tr(" (iteration {best})").format(best=figures.best) if figures.best else ""
        told = text.format(before=figures.before, after=figures.after, chosen=chosen, time=time)
        return f"{name}\n{told}" if name else told


def _fitted(loss: float) -> str:
    """Return a loss with three digits, or with two where that is too long for the list."""
    text = figure(loss)
    return text if len(text) <= _LONGEST else short_figure(loss)


def scale_of(blocks: Any) -> tuple[float, float]:
    """Return the ends of the common scale as powers of ten: whole decades around all losses."""
    losses = [loss for block in blocks for loss in (block.before, block.after) if loss > 0 and math.isfinite(loss)]
    if not losses:
        return 0.0, 1.0
    # half a decade below the smallest, so that its bar is visible
    low, high = math.floor(2 * (math.log10(min(losses)) - 0.5)) / 2, math.ceil(2 * math.log10(max(losses))) / 2
    return low, max(high, low + 0.5)
