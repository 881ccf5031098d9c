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

from core.estimation.run_bytes import CHUNK_BYTES
from core.inference.evaluate import make_windows, row_losses
from core.model.block_runner import logits
from core.quant.blocks import BlockJob, precision
from core.quant.sample_activations import SampleActivations, Side

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


def token_losses(job: BlockJob, activations: SampleActivations, side: Side) -> Tensor:
    """Return the negative log-likelihood of every token after the first of its window, float32 [windows, tokens - 1].

    Args:
        activations: after the last block, for the windows; the head must be loaded.
        side: the model whose losses are computed.
    """
    # In chunks: the logits of a whole window with a large vocabulary would exceed the other memory of the run.
    chain, device = job.chain, job.resolved.torch_device
    tree = job.skeleton.tree
    step = max(1, CHUNK_BYTES // (4 * tree.tensors[f"{tree.embedding}.weight"].shape[0]))
    rows = []
    for row, tokens in enumerate(activations.tokens):
        index = slice(row, row + 1)
        hidden = chain.rows_back(activations.side(side).hidden.read(index, device))
        carried = activations.carried(chain, len(chain.layouts), index, side, device)
        labels = tokens[1:].to(device)
        parts = []
        for start in range(0, len(labels), step):
            part = slice(start, min(len(labels), start + step))
            with precision(job.resolved):
                some = {key: value[:, part] for key, value in carried.items()}
                scores = logits(chain, chain.some_tokens(hidden, part), tokens[None, part], some)[0]
            parts.append(row_losses(scores, labels[part]).cpu())
            del scores
        rows.append(torch.cat(parts))
    return torch.stack(rows)
