"""Perplexity of a model on a text. Works on transformers' causal models and on runners."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from core.calibration import files
from core.calibration import text as texts
from core.calibration.documents import Document
from core.calibration.encoding import Encoder
from core.calibration.tokens import sha256_of
from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled, VerificationFailed
from core.estimation.run_bytes import CHUNK_BYTES
from core.events import Emit, Progress, ignore_event
from core.inference.figures import Perplexity
from core.recipes import RESOURCES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from core.inference.runners.runner import Runner

SEQLEN = 512
BUNDLED = "builtin"
_WHOLE_CHARS = 1 << 24
"""Characters up to which a text file is tokenized as a whole, as other programs do; larger files are split."""
_FOLDER = RESOURCES / "evaluation"


@dataclass(frozen=True, eq=False)
class Windows:
    """Token ids of a text, int64 [rows, seqlen], and the name of the text."""

    tokens: Tensor
    text: str


def make_windows(
    tokenizer: PreTrainedTokenizerBase,
    text: str | Path | None = None,
    seqlen: int = SEQLEN,
    max_windows: int | None = None,
) -> Windows:
    """Split a text into consecutive, non-overlapping rows of `seqlen` tokens; the remainder is dropped.

    Every row starts with the tokenizer's begin-of-text token if the tokenizer adds one. With `max_windows`, that many
    rows are selected, spread evenly over the text.

    Raises:
        BadInput: `seqlen` or `max_windows` is out of range, or the text is shorter than one row.
        BadCalibration: the file is not a text.
    """
    if seqlen < 2 or (max_windows is not None and max_windows < 1):
        raise BadInput("An evaluation needs at least one row of at least 2 tokens.", "Use a larger number.")
    encoder = Encoder(tokenizer)
    label, documents = _documents(text)
    ids: list[int] = []
    for document in documents:
        if ids and not document.continues:
            ids.extend(encoder.separator)
        ids.extend(encoder.encode([document])[0])
    width = seqlen - len(encoder.prefix)
    count = len(ids) // width if width > 0 else 0
    if not count:
        most = len(ids) + len(encoder.prefix)
        smaller = f" or --seqlen {most}" if ids and most >= 2 else ""
        raise BadInput(
            f"The text {label} has {len(ids)} tokens, fewer than one row of {seqlen}.", f"Use a longer text{smaller}."
        )
    kept = min(count, max_windows or count)
    chosen = [row * count // kept for row in range(kept)]
    body = torch.tensor(ids[: count * width], dtype=torch.int64).view(count, width)[chosen]
    prefix = torch.tensor(encoder.prefix, dtype=torch.int64).expand(kept, -1)
    return Windows(torch.cat([prefix, body], dim=1).contiguous(), label)


def perplexity(
    model: PreTrainedModel | Runner,
    windows: Tensor,
    text: str = "",
    emit: Emit = ignore_event,
    should_stop: ShouldStop = never,
) -> Perplexity:
    """Return the exponential of the mean negative log-likelihood of all tokens except the first of each row.

    Args:
        model: a transformers model, or a runner, which is measured with its own kernels; its cache is empty afterwards.
        windows: token ids, int64 [rows, seqlen], seqlen >= 2.
        text: name of the text, for the report.

    Raises:
        BadInput: a token id is outside the vocabulary, or the rows are longer than the context of a runner.
        VerificationFailed: the model's logits are not finite.
        Cancelled: `should_stop` returned True.
    """
    return summarize(token_losses(model, windows, emit, should_stop), windows, text)


def token_losses(
    model: PreTrainedModel | Runner,
    windows: Tensor,
    emit: Emit = ignore_event,
    should_stop: ShouldStop = never,
) -> Tensor:
    """Return the negative log-likelihood in nats of all tokens but the first of each row, float32 [rows, seqlen - 1].

    Arguments and exceptions as in `perplexity`.
    """
    losses: list[Tensor] = []
    for row, logits in logits_of_rows(model, windows, emit, should_stop):
        losses.append(finite(row_losses(logits[:-1], windows[row, 1:].to(logits.device))).cpu())
        del logits
    return torch.stack(losses)


def summarize(losses: Tensor, windows: Tensor, text: str = "") -> Perplexity:
    """Return the perplexity from token losses [rows, seqlen - 1] of the token ids `windows`, int64 [rows, seqlen].

    The value is NaN if a loss is not finite.
    """
    nll, error = mean_and_error(losses)
    value = math.exp(min(nll, 700.0)) if math.isfinite(nll) else math.nan
    return Perplexity(value, value * error, nll, losses.numel(), windows.shape[1], text, sha256_of(windows))


def loss_increase(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Return the mean increase of the loss from one model to another in nats per token, and its standard error.

    The losses are compared token by token, so that the difficulty of the text cancels: the standard error of the
    difference is many times smaller than that of either mean.

    Args:
        before, after: losses of the same tokens, [rows, tokens].
    """
    return mean_and_error(after.double() - before.double())


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of values [rows, tokens] and its standard error.

    The error is estimated from the spread of the rows' means, because neighbouring tokens are not independent but rows
    nearly are; for a single row, from the spread of its tokens.
    """
    table = values.double()
    groups = table.mean(dim=1) if len(table) > 1 else table[0]
    error = float(groups.std()) / math.sqrt(len(groups)) if len(groups) > 1 else 0.0
    return float(table.mean()), error


def _documents(text: str | Path | None) -> tuple[str, list[Document]]:
    if text is None:
        return BUNDLED, list(texts.bundled(_FOLDER))
    if isinstance(text, Path):
        return str(text), list(files.read(text, _WHOLE_CHARS, ignore_event))
    return "given", [Document(text=text)]


def check_vocabulary(model: PreTrainedModel, windows: Tensor) -> None:
    """Raise BadInput if a token id is outside the vocabulary of the model."""
    # On a GPU, a token id out of range fails a device-side assertion, which ends the process.
    known = _embedding(model).shape[0]
    largest = int(windows.max())
    if largest >= known:
        raise BadInput(
            f"The tokenizer produced token id {largest}, but the model's vocabulary has {known} tokens.",
            "The tokenizer does not belong to this model. Download the model again.",
        )


def _embedding(model: PreTrainedModel) -> Tensor:
    weight: Any = model.get_input_embeddings().weight
    return cast(Tensor, weight)


def logits_of_rows(
    model: PreTrainedModel | Runner, windows: Tensor, emit: Emit, should_stop: ShouldStop
) -> Iterator[tuple[int, Tensor]]:
    """Yield the row index and the logits [seqlen, vocabulary] of each row of token ids, int64 [rows, seqlen].

    Emits the progress. Exceptions as in `perplexity`.
    """
    started = time.monotonic()
    total = len(windows)
    with _forward(model, windows) as forward:
        for row in range(total):
            if should_stop():
                raise Cancelled("The evaluation was stopped.")
            logits = forward(windows[row])
            yield row, logits
            del logits  # the largest tensor here, freed before the next row allocates another
            emit(_progress((row + 1) / total, started))


@contextmanager
def _forward(model: PreTrainedModel | Runner, windows: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function from token ids [n] to logits [n, vocabulary], after checking the ids of `windows`."""
    if not isinstance(model, torch.nn.Module):  # a runner, which checks the token ids itself
        yield lambda ids: model.logits(ids.tolist())
        return
    check_vocabulary(model, windows)
    device = _embedding(model).device

    @torch.inference_mode()
    def forward(ids: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids[None].to(device), use_cache=False).logits[0]
        return logits

    training = model.training
    model.eval()  # a model built from its config starts in training mode, with dropout
    try:
        yield forward
    finally:
        model.train(training)


def _progress(done: float, started: float) -> Progress:
    left = (time.monotonic() - started) / done * (1 - done)
    return Progress(done, 0.8 * left, 1.3 * left)


def chunk_rows(logits: Tensor) -> int:
    """Return the number of rows of logits [n, vocabulary] that are processed at once, to bound the memory."""
    return max(1, CHUNK_BYTES // (4 * logits.shape[-1]))


@torch.inference_mode()
def row_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihoods, float32 [n], of logits [n, vocabulary] and targets, int64 [n]."""
    size = chunk_rows(logits)
    parts = [
        torch.nn.functional.cross_entropy(part.float(), target, reduction="none")
        for part, target in zip(torch.split(logits, size), torch.split(targets, size), strict=True)
    ]
    return torch.cat(parts)


def finite(values: Tensor) -> Tensor:
    """Return `values`, or raise VerificationFailed if one is not finite."""
    if not bool(torch.isfinite(values).all()):
        raise VerificationFailed(
            "The model's logits contain NaN or infinite values.", "Try another compute dtype, or quantize it again."
        )
    return values
