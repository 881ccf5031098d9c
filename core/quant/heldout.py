"""Token losses of the original and of the quantized model on text that the tuning never saw, from the activations of
both.

A few windows of the bundled evaluation text pass through the blocks together with the calibration samples, and the
head of the model computes their losses at the end. So every run reports its loss increase without loading a model
again. Windows and perplexity are computed by `core.inference.evaluate`, so that reports and `bitwright eval` agree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.estimation.costs import CHUNK_BYTES
from core.inference.evaluate import make_windows, row_losses
from core.model.block_runner import logits
from core.quant.activations import Activations
from core.quant.blocks import BlockJob, precision

WINDOWS = 8
LENGTH = 512


def windows(tokenizer: Any, longest: int) -> Tensor:
    """Return token ids of windows spread over the bundled evaluation text, int64 [windows, tokens].

    Args:
        longest: the model's context length in tokens.

    Raises:
        BadInput: the text has fewer tokens than one window.
    """
    return make_windows(tokenizer, None, min(LENGTH, longest), WINDOWS).tokens


def token_losses(job: BlockJob, hidden: Activations, tokens: Tensor) -> Tensor:
    """Return the negative log-likelihood of every token after the first of its window, float32 [windows, tokens - 1].

    Args:
        hidden: output of the last block for the windows; the head must be loaded.
        tokens: int64 [windows, tokens].
    """
    # In chunks: the logits of a whole window with a large vocabulary would exceed the other memory of the run.
    step = max(1, CHUNK_BYTES // (4 * job.skeleton.tree.tensors[f"{job.skeleton.tree.embedding}.weight"].shape[0]))
    rows = []
    for row in range(len(hidden)):
        state = hidden.read(slice(row, row + 1), job.resolved.torch_device)[:, :-1]
        labels = tokens[row, 1:].to(state.device)
        parts = []
        for start in range(0, len(labels), step):
            part = slice(start, start + step)
            with precision(job.resolved):
                scores = logits(job.skeleton, state[:, part])[0]
            parts.append(row_losses(scores, labels[part]).cpu())
            del scores
        rows.append(torch.cat(parts))
    return torch.stack(rows)
