"""Preview of the calibration text of a run: its size and its first rows.

With the model's tokenizer these are exactly the rows of the run; without one, the documents as they are stored. Imports
torch inside functions only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from core.calibration import text
from core.control import ShouldStop
from core.errors import Cancelled, UnsupportedModel
from core.events import Emit

ROWS: Final = 3
CHARACTERS: Final = 600
"""Maximum number of characters of a row in the preview."""

_READ_CHARACTERS: Final = 1 << 25
_READ_DOCUMENTS: Final = 20_000
"""Limits of reading without a tokenizer; the figures of a larger text are lower bounds."""


@dataclass(frozen=True)
class Preview:
    """Size and first rows of a calibration text.

    Attributes:
        source: The calibration argument.
        documents: Number of documents that the rows come from; without a tokenizer, number of documents read.
        tokens: Number of tokens in all rows; 0 without a tokenizer.
        available: Number of tokens that the rows are chosen from; 0 without a tokenizer.
        rows: The first ROWS rows as text, each cut to CHARACTERS.
        sha256: SHA-256 of the token ids of the rows, as in the report of a run; "" without a tokenizer.
    """

    source: str
    documents: int
    tokens: int
    available: int
    rows: tuple[str, ...]
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    calibration: str,
    folder: Path | None,
    samples: int,
    seqlen: int,
    seed: int,
    emit: Emit,
    should_stop: ShouldStop,
) -> Preview:
    """Return the preview of a calibration text.

    Args:
        calibration: A calibration argument, see `core.calibration.text.parse`.
        folder: Folder with the tokenizer of the model. If it is None or has no tokenizer, documents are shown instead
            of rows.
        samples: Number of rows.
        seqlen: Number of tokens per row.
        seed: Random seed of the draw.

    Raises:
        BadCalibration: The text cannot be used, or is too short.
        HubUnreachable: The Hub did not respond.
        Cancelled: `should_stop` returned True.
    """
    tokenizer = _tokenizer(folder)
    if tokenizer is None:
        return _documents(calibration, seed, emit, should_stop)
    from core.calibration import tokens

    found = tokens.load(calibration, tokenizer, samples, seqlen, seed, emit, should_stop=should_stop)
    rows = tuple(_cut(tokenizer.decode(row.tolist(), skip_special_tokens=False)) for row in found.tokens[:ROWS])
    return Preview(calibration, found.documents, found.tokens.numel(), found.available, rows, found.sha256)


def _tokenizer(folder: Path | None) -> Any:
    """Return the tokenizer in the folder of a model, or None if there is none, as before the model is downloaded."""
    if folder is None:
        return None
    from core.model.tokenizer import load_tokenizer

    try:
        return load_tokenizer(folder)
    except UnsupportedModel:
        return None


def _documents(calibration: str, seed: int, emit: Emit, should_stop: ShouldStop) -> Preview:
    count, size = 0, 0
    rows: list[str] = []
    for document in text.records(text.parse(calibration), emit, seed=seed):
        if should_stop():
            raise Cancelled("Stopped while reading the calibration text.")
        plain = document.plain()
        if len(rows) < ROWS:
            rows.append(_cut(plain))
        count, size = count + 1, size + len(plain)
        if size > _READ_CHARACTERS or count >= _READ_DOCUMENTS:
            break
    return Preview(calibration, count, 0, 0, tuple(rows), "")


def _cut(row: str) -> str:
    return row if len(row) <= CHARACTERS else row[: CHARACTERS - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
