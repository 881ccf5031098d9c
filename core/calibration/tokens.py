"""Calibration rows: documents drawn at random, tokenized, packed end to end, and cut into rows of equal length.

Knows tokenizers and rows; knows nothing of models or of where text is stored.
"""

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

SPREAD = 4
"""Rows are drawn from this many times the tokens they need, so that even a few rows come from many documents."""
LEAST_TOKENS = 32_768
_CHARS_A_TOKEN = 8
_CHARS_OF_A_TOKEN_IN_A_PIECE = 5
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a model is tuned on.

    Attributes:
        tokens: int64 [samples, seqlen].
        source: the calibration argument.
        documents: distinct documents (of a plain text: parts of it) that the rows come from.
        sha256: of the token ids as little-endian int64, row by row.
        available: tokens that the rows were chosen from.
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
    """Packed ids; `starts[i]` is where the piece of document `serials[i]` begins."""

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
    """`samples` rows of `seqlen` tokens from the calibration text; the same arguments give the same rows.

    Documents come in random order, short ones are packed and none is dropped; rows begin with the tokenizer's
    begin-of-text token where it has one. Memory is bounded however large the text.

    Args:
        calibration: as `core.calibration.text.parse`.
        vocab_size: rows of the model's embedding; a token beyond it is refused.

    Raises:
        BadCalibration: the text cannot be used, is too short, or the tokenizer is not this model's.
        HubUnreachable: a Hub data set that does not answer.
        Cancelled: `should_stop` said so.
    """
    source = text.parse(calibration)
    encoder = Encoder(tokenizer)
    width = seqlen - len(encoder.prefix)
    if width < 1:
        raise BadCalibration(f"Rows of {seqlen} tokens hold nothing but begin-of-text.", "Choose a longer --seqlen.")
    wanted = max(SPREAD * samples * width, LEAST_TOKENS)
    block = max(text.BLOCK_CHARS, _CHARS_OF_A_TOKEN_IN_A_PIECE * seqlen)
    budget = _CHARS_A_TOKEN * wanted
    while True:
        documents = text.records(source, emit, block, seed)
        draw = _draw(_stoppable(documents, should_stop), seed, budget, block, hub=source.kind == "hub")
        encoder.refusals, encoder.conversations = [], 0
        stream = _pack(draw.pieces, encoder, wanted, should_stop)
        if draw.complete or len(stream.ids) >= samples * width:
            break
        budget *= 8  # a text of fewer tokens than usual for its length: read more of it
    if encoder.remark:
        emit(Log("warning" if encoder.refusals else "info", encoder.remark))
    if len(stream.ids) // width < samples:
        raise _too_short(calibration, len(stream.ids), samples, seqlen, len(encoder.prefix))
    return _rows(stream, encoder.prefix, samples, seqlen, calibration, vocab_size)


def sha256_of(tokens: Tensor) -> str:
    """Hash of token ids as little-endian int64, row by row."""
    return hashlib.sha256(tokens.to(torch.int64).contiguous().numpy().astype("<i8").tobytes()).hexdigest()


def _stoppable(documents: Iterable[Document], should_stop: ShouldStop) -> Iterator[Document]:
    for document in documents:
        if should_stop():
            raise Cancelled("Stopped while the calibration text was read.")
        yield document


def _draw(documents: Iterable[Document], seed: int, budget: int, block: int, *, hub: bool) -> _Draw:
    """Pieces in weighted random order, and the first `budget` characters of them only.

    Each piece gets the key -log(u)/weight and the smallest keys win, which is weighted sampling without
    replacement in one pass (Efraimidis and Spirakis 2006). A Hub data set is shuffled already: it is read
    only as far as the budget goes.
    """
    draws = random.Random(seed)
    heap: list[tuple[float, int, _Piece]] = []  # largest key first: that piece leaves first
    held = 0
    order = 0
    complete = True
    for serial, document in enumerate(documents):
        for part in _parts(document, block):
            size = len(part.plain())
            key = -math.log(1.0 - draws.random()) / part.weight
            heapq.heappush(heap, (-key, order, _Piece(serial, part)))
            order += 1
            held += size
        while held > budget and len(heap) > 1:
            held -= len(heapq.heappop(heap)[2].document.plain())
            complete = False
        if hub and held >= budget // 2:
            complete = False
            break
    return _Draw(tuple(piece for _, _, piece in sorted(heap, key=lambda item: (-item[0], item[1]))), complete)


def _parts(document: Document, block: int) -> Iterator[Document]:
    """A long document in parts, so that one book does not fill the rows."""
    if document.messages:
        yield document
        return
    for part in cut(document.text, block):
        if part.strip():
            yield replace(document, text=part.strip("\n"))


def _pack(pieces: tuple[_Piece, ...], encoder: Encoder, wanted: int, should_stop: ShouldStop) -> _Stream:
    stream = _Stream(array("q"), [], [])
    for first in range(0, len(pieces), _BATCH):
        if should_stop():
            raise Cancelled("Stopped while the calibration text was tokenized.")
        batch = pieces[first : first + _BATCH]
        for piece, ids in zip(batch, encoder.encode([piece.document for piece in batch]), strict=True):
            if not ids:
                continue
            stream.starts.append(len(stream.ids))
            stream.serials.append(piece.serial)
            stream.ids.extend(ids)
            stream.ids.extend(encoder.separator)
        if len(stream.ids) >= wanted:
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
            f"The tokenizer makes token {largest}, but the model knows only {vocab_size} tokens.",
            "The tokenizer is not this model's: fetch the model again.",
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
