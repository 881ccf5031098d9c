"""Distance of a model from a reference model: KL divergence of its next-token distributions, top-1 agreement, losses.

Works on transformers' causal models. Standard errors are estimated from the spread of the windows' means, because
neighbouring tokens are not independent. All figures are paired by token, so the difficulty of the text cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput
from core.events import Emit, ignore_event
from core.inference.evaluate import (
    check_vocabulary,
    chunk_rows,
    finite,
    logits_of_rows,
    loss_increase,
    mean_and_error,
    row_losses,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LogitComparison:
    """Distance of a model's next-token distributions from those of a reference model.

    Attributes:
        kl_mean: mean of KL(reference || other) over the positions, in nats.
        kl_standard_error: standard error of `kl_mean`.
        kl_median, kl_p90, kl_p99: 50th, 90th and 99th percentile over the positions, in nats.
        top1: share of positions at which both models have the same most likely token.
        top1_standard_error: standard error of `top1`.
        loss_increase: mean increase of the negative log-likelihood of the text, in nats per token.
        loss_increase_standard_error: standard error of `loss_increase`.
        perplexity_ratio: perplexity of the other model relative to the reference, exp(loss_increase).
        perplexity_ratio_standard_error: standard error of `perplexity_ratio`, to first order.
        windows: number of windows.
        positions: number of positions in all windows.
    """

    kl_mean: float
    kl_standard_error: float
    kl_median: float
    kl_p90: float
    kl_p99: float
    top1: float
    top1_standard_error: float
    loss_increase: float
    loss_increase_standard_error: float
    perplexity_ratio: float
    perplexity_ratio_standard_error: float
    windows: int
    positions: int


@dataclass(frozen=True, eq=False)
class TokenComparison:
    """Figures of two models for every position of the same windows.

    Attributes:
        reference_losses, losses: negative log-likelihoods in nats of all tokens but the first of each window, float32
            [rows, seqlen - 1], of the reference and of the other model.
        divergences: KL(reference || other) in nats, float32 [rows, seqlen].
        agreements: whether both models have the same most likely token, bool [rows, seqlen].
    """

    reference_losses: Tensor
    losses: Tensor
    divergences: Tensor
    agreements: Tensor

    def summary(self) -> LogitComparison:
        """Return means, percentiles and standard errors."""
        kl, kl_error = mean_and_error(self.divergences)
        top1, top1_error = mean_and_error(self.agreements)
        increase, increase_error = loss_increase(self.reference_losses, self.losses)
        ratio = math.exp(min(increase, 700.0)) if math.isfinite(increase) else math.nan
        return LogitComparison(
            kl_mean=kl,
            kl_standard_error=kl_error,
            kl_median=_percentile(self.divergences, 50),
            kl_p90=_percentile(self.divergences, 90),
            kl_p99=_percentile(self.divergences, 99),
            top1=top1,
            top1_standard_error=top1_error,
            loss_increase=increase,
            loss_increase_standard_error=increase_error,
            perplexity_ratio=ratio,
            perplexity_ratio_standard_error=ratio * increase_error,
            windows=len(self.divergences),
            positions=self.divergences.numel(),
        )


def compare_logits(
    reference: PreTrainedModel,
    other: PreTrainedModel,
    windows: Tensor,
    emit: Emit = ignore_event,
    should_stop: ShouldStop = never,
) -> LogitComparison:
    """Return the summary of `compare_tokens`."""
    return compare_tokens(reference, other, windows, emit, should_stop).summary()


def compare_tokens(
    reference: PreTrainedModel,
    other: PreTrainedModel,
    windows: Tensor,
    emit: Emit = ignore_event,
    should_stop: ShouldStop = never,
) -> TokenComparison:
    """Compute the logits of both models for each window, and compare them at all positions.

    Args:
        windows: token ids, int64 [rows, seqlen], seqlen >= 2.

    Raises:
        BadInput: the vocabularies of the models differ, or a token id is outside of one.
        VerificationFailed: the logits are not finite.
        Cancelled: `should_stop` returned True.
    """
    check_vocabulary(reference, windows)
    check_vocabulary(other, windows)
    tables: tuple[list[Tensor], ...] = ([], [], [], [])
    pairs = zip(
        logits_of_rows(reference, windows, emit, should_stop),
        logits_of_rows(other, windows, ignore_event, never),
        strict=True,
    )
    for (row, expected), (_, found) in pairs:
        if expected.shape != found.shape:
            raise BadInput("The two models have different vocabularies.", "Compare a model with its own quantization.")
        targets = windows[row, 1:]
        before = row_losses(expected[:-1], targets.to(expected.device))
        after = row_losses(found[:-1], targets.to(found.device))
        divergence, agreement = _row_divergence(expected, found.to(expected.device))
        for table, values in zip(tables, (finite(before), finite(after), divergence, agreement), strict=True):
            table.append(values.cpu())
        del expected, found
    return TokenComparison(*(torch.stack(table) for table in tables))


def _percentile(values: Tensor, percent: int) -> float:
    """Return the smallest value that at least `percent` percent of the values do not exceed."""
    rank = max(1, math.ceil(percent / 100 * values.numel()))
    return float(values.flatten().kthvalue(rank).values)


@torch.inference_mode()
def _row_divergence(expected: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(expected || found) [n] and the agreement of the largest logits, bool [n], of logits [n, vocabulary]."""
    size = chunk_rows(expected)
    divergences, agreements = [], []
    for first, second in zip(torch.split(expected, size), torch.split(found, size), strict=True):
        log_p = torch.log_softmax(first.float(), dim=-1)
        log_q = torch.log_softmax(second.float(), dim=-1)
        # A term of probability 0 is 0 by definition, not NaN. Rounding can make the sum slightly negative.
        terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
        divergences.append(terms.sum(dim=-1).clamp_min(0.0))
        agreements.append(first.argmax(dim=-1) == second.argmax(dim=-1))
    return finite(torch.cat(divergences)), torch.cat(agreements)
