"""Calibration rows: documents are drawn at random, tokenized, concatenated, and cut into rows of equal length."""

from __future__ import annotations

import bisect
import hashlib
import heapq
import math
import random
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.calibration import text
from core.calibration.documents import Document, cut
from core.calibration.encoding import Encoder
from core.control import ShouldStop, never
from core.errors import BadCalibration, Cancelled
from core.events import Emit, Log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OVERSAMPLING = 4
"""Ratio of the tokens read to the tokens in the rows, so that even a few rows come from many documents."""
MIN_TOKENS = 32_768
"""Minimum number of tokens to read, however few the rows need."""
_CHARS_PER_TOKEN = 8
"""Characters read per token needed; an upper estimate, because texts differ."""
_PIECE_CHARS_PER_TOKEN = 5
"""Characters of a piece of plain text per token of a row."""
_BATCH = 32
"""Pieces tokenized in one call."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Token rows that a model is calibrated on.

    Attributes:
        tokens: Token ids, int64 [samples, seqlen].
        source: The calibration argument.
        documents: Number of distinct documents that the rows come from; a part of a plain text counts as a document.
        sha256: SHA-256 of the token ids as little-endian int64, in row-major order.
        available: Number of tokens that the rows were chosen from.
    """

    tokens: Tensor
    source: str
    documents: int
    sha256: str
    available: int


@dataclass(frozen=True)
class _Piece:
    serial: int
    document: Document


@dataclass(frozen=True)
class _Draw:
    pieces: tuple[_Piece, ...]
    complete: bool


@dataclass(frozen=True)
class _Stream:
    """Concatenated token ids; the piece of document `serials[i]` starts at index `starts[i]`."""

    ids: array[int]
    starts: list[int]
    serials: list[int]


def load(
    calibration: str,
    tokenizer: PreTrainedTokenizerBase,
    samples: int,
    seqlen: int,
    seed: int,
    emit: Emit,
    *,
    vocab_size: int | None = None,
    should_stop: ShouldStop = never,
) -> Calibration:
    """Return calibration rows; the same arguments give the same rows.

    Documents are drawn in random order and concatenated, so that short documents are not dropped. Every row starts with
    the begin-of-text token of the tokenizer, if it has one. Memory use does not depend on the size of the text.

    Args:
        calibration: A calibration argument, see `core.calibration.text.parse`.
        tokenizer: The tokenizer of the model.
        samples: Number of rows.
        seqlen: Number of tokens per row.
        seed: Random seed of the draw.
        emit: Receives messages about skipped records and about conversations used as plain text.
        vocab_size: Number of rows of the model's embedding; larger token ids are an error. None does not check.
        should_stop: Called between documents; True stops the reading.

    Raises:
        BadCalibration: The text cannot be used or is too short, or the tokenizer does not match the model.
        HubUnreachable: The Hub did not respond.
        Cancelled: `should_stop` returned True.
    """
    source = text.parse(calibration)
    encoder = Encoder(tokenizer)
    body = seqlen - len(encoder.prefix)  # tokens of text per row
    if body < 1:
        raise BadCalibration(
            f"Rows of {seqlen} tokens have no space for text after begin-of-text.", "Choose a longer --seqlen."
        )
    needed = max(OVERSAMPLING * samples * body, MIN_TOKENS)
    block = max(text.BLOCK_CHARS, _PIECE_CHARS_PER_TOKEN * seqlen)
    budget = _CHARS_PER_TOKEN * needed
    while True:
        documents = text.records(source, emit, block, seed)
        draw = _draw(_stoppable(documents, should_stop), seed, budget, block, hub=source.kind == "hub")
        encoder.refusals, encoder.conversations = [], 0
        stream = _concatenate(draw.pieces, encoder, needed, should_stop)
        if draw.complete or len(stream.ids) >= samples * body:
            break
        budget *= 8  # the text has fewer tokens than expected for its length: read more of it
    if message := encoder.template_message:
        emit(Log("warning" if encoder.refusals else "info", message))
    if len(stream.ids) // body < samples:
        raise _too_short(calibration, len(stream.ids), samples, seqlen, len(encoder.prefix))
    return _rows(stream, encoder.prefix, samples, seqlen, calibration, vocab_size)


def sha256_of(tokens: Tensor) -> str:
    """Return the SHA-256 of token ids as little-endian int64 in row-major order."""
    return hashlib.sha256(tokens.to(torch.int64).contiguous().numpy().astype("<i8").tobytes()).hexdigest()


def _stoppable(documents: Iterable[Document], should_stop: ShouldStop) -> Iterator[Document]:
    for document in documents:
        if should_stop():
            raise Cancelled("Stopped while reading the calibration text.")
        yield document


def _draw(documents: Iterable[Document], seed: int, budget: int, block: int, *, hub: bool) -> _Draw:
    """Draw pieces in weighted random order, limited to about `budget` characters.

    Each piece gets the key -log(u) / weight, with u uniform in (0, 1], and the pieces with the smallest keys are kept:
    weighted sampling without replacement in one pass (Efraimidis and Spirakis 2006). A Hub data set is already
    shuffled, so it is read only until half of the budget is used.
    """
    draws = random.Random(seed)
    heap: list[tuple[float, int, _Piece]] = []  # the piece with the largest key is the first to be dropped
    characters = 0
    order = 0
    complete = True
    for serial, document in enumerate(documents):
        for part in _parts(document, block):
            size = len(part.plain())
            key = -math.log(1.0 - draws.random()) / part.weight
            heapq.heappush(heap, (-key, order, _Piece(serial, part)))
            order += 1
            characters += size
        while characters > budget and len(heap) > 1:
            characters -= len(heapq.heappop(heap)[2].document.plain())
            complete = False
        if hub and characters >= budget // 2:
            complete = False
            break
    return _Draw(tuple(piece for _, _, piece in sorted(heap, key=lambda item: (-item[0], item[1]))), complete)


def _parts(document: Document, block: int) -> Iterator[Document]:
    """Yield the parts of a document; a long text is cut, so that one book does not fill the rows."""
    if document.messages:
        yield document
        return
    for part in cut(document.text, block):
        if part.strip():
            yield replace(document, text=part.strip("\n"))


def _concatenate(pieces: tuple[_Piece, ...], encoder: Encoder, needed: int, should_stop: ShouldStop) -> _Stream:
    stream = _Stream(array("q"), [], [])
    for first in range(0, len(pieces), _BATCH):
        if should_stop():
            raise Cancelled("Stopped while tokenizing the calibration text.")
        batch = pieces[first : first + _BATCH]
        for piece, ids in zip(batch, encoder.encode([piece.document for piece in batch]), strict=True):
            if not ids:
                continue
            stream.starts.append(len(stream.ids))
            stream.serials.append(piece.serial)
            stream.ids.extend(ids)
            stream.ids.extend(encoder.separator)
        if len(stream.ids) >= needed:
            break
    return stream


def _rows(
    stream: _Stream, prefix: tuple[int, ...], samples: int, seqlen: int, label: str, vocab_size: int | None
) -> Calibration:
    width = seqlen - len(prefix)
    packed = torch.frombuffer(stream.ids, dtype=torch.int64).clone()
    count = len(packed) // width
    chosen = [row * count // samples for row in range(samples)]
    body = packed[: count * width].view(count, width)[chosen]
    tokens = torch.cat([torch.tensor(prefix, dtype=torch.int64).expand(samples, -1), body], dim=1).contiguous()
    largest = int(tokens.max())
    if vocab_size is not None and largest >= vocab_size:
        raise BadCalibration(
            f"The tokenizer produces token id {largest}, but the model has only {vocab_size} tokens.",
            "The tokenizer does not belong to this model: download the model again.",
        )
    used: set[int] = set()
    for row in chosen:
        first = bisect.bisect_right(stream.starts, row * width) - 1
        last = bisect.bisect_left(stream.starts, (row + 1) * width)
        used.update(stream.serials[first:last])
    return Calibration(tokens, label, len(used), sha256_of(tokens), len(packed))


def _too_short(label: str, tokens: int, samples: int, seqlen: int, prefix: int) -> BadCalibration:
    fewer = tokens // (seqlen - prefix)
    shorter = tokens // samples + prefix
    choices = [f"--samples {fewer}"] if fewer else []
    choices += [f"--seqlen {shorter}"] if shorter >= 8 else []
    if not choices and tokens >= 8:
        choices = [f"--samples 1 --seqlen {tokens + prefix}"]
    return BadCalibration(
        f"The calibration text {label} has {tokens} tokens; {samples} samples of {seqlen} need {samples * seqlen}.",
        f"Use {' or '.join([*choices, 'a longer text, or `builtin`'])}.",
    )
