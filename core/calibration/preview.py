"""A look at the text that a run would tune on, before the run: how much there is, and how its first rows read.

With the model's tokenizer these are the very rows of the run; without one, the documents as they are stored. Imports
torch inside functions only, and knows nothing of models.
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
"""Of each row that is shown."""

_READ_CHARACTERS: Final = 1 << 25
_READ_DOCUMENTS: Final = 20_000
"""A larger text is counted to here: without tokens nobody needs the exact number."""


@dataclass(frozen=True)
class Preview:
    """What a calibration argument stands for.

    Attributes:
        source: the argument.
        documents: that the rows come from; without a tokenizer, that were read.
        tokens: in all rows; 0 without a tokenizer.
        available: tokens that the rows are chosen from; 0 without a tokenizer.
        rows: the first few, cut.
        sha256: of the rows' token ids, as in the report of a run; "" without a tokenizer.
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
    """The rows of a run with this text, read with the tokenizer in `folder`; its documents where there is none.

    Raises:
        BadCalibration: the text cannot be used, or is too short.
        HubUnreachable: a data set on the Hub that does not answer.
        Cancelled: `should_stop` said so.
    """
    tokenizer = _tokenizer(folder)
    if tokenizer is None:
        return _documents(calibration, seed, emit, should_stop)
    from core.calibration import tokens

    found = tokens.load(calibration, tokenizer, samples, seqlen, seed, emit, should_stop=should_stop)
    rows = tuple(_cut(tokenizer.decode(row.tolist(), skip_special_tokens=False)) for row in found.tokens[:ROWS])
    return Preview(calibration, found.documents, found.tokens.numel(), found.available, rows, found.sha256)


def _tokenizer(folder: Path | None) -> Any:
    """The tokenizer in a model's folder, or None: the text can be looked at before the model is on this machine."""
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
            raise Cancelled("Stopped while the calibration text was read.")
        plain = document.plain()
        if len(rows) < ROWS:
            rows.append(_cut(plain))
        count, size = count + 1, size + len(plain)
        if size > _READ_CHARACTERS or count >= _READ_DOCUMENTS:
            break
    return Preview(calibration, count, 0, 0, tuple(rows), "")


def _cut(row: str) -> str:
    return row if len(row) <= CHARACTERS else row[: CHARACTERS - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
