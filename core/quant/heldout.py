"""Perplexity of the original and of the quantized model on text that the tuning never saw, along the two chains.

A few windows of the bundled evaluation text travel through the blocks beside the calibration samples. At the end
both are scored by the model's own head. So every run knows what it cost, without loading a model a second time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.errors import BadInput
from core.model.chain import logits
from core.quant.activations import Activations
from core.quant.blocks import BlockJob, precision
from core.recipes import RESOURCES

WINDOWS = 8
LENGTH = 512
_CHUNK = 128


def windows(tokenizer: Any, longest: int) -> Tensor:
    """Token ids int64 [windows, tokens], spread over the bundled evaluation text.

    Args:
        longest: the model's context length in tokens.

    Raises:
        BadInput: the tokenizer makes nothing of plain English.
    """
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in evaluation_files())
    ids = tokenizer(text, add_special_tokens=False, verbose=False)[
        "input_ids"
    ]  # longer than the model reads: cut below
    length = min(LENGTH, longest)
    count = min(WINDOWS, len(ids) // length)
    if not count:
        raise BadInput(
            "The tokenizer of this model makes no tokens of the evaluation text.", "Check the tokenizer files."
        )
    starts = [index * (len(ids) - length) // max(1, count - 1) for index in range(count)] if count > 1 else [0]
    return torch.tensor([ids[start : start + length] for start in starts], dtype=torch.int64)


def evaluation_files() -> list[Path]:
    """The bundled texts, in a fixed order."""
    return sorted((RESOURCES / "evaluation").glob("*.txt"))


def perplexity(job: BlockJob, hidden: Activations, tokens: Tensor) -> float:
    """exp of the mean negative log-likelihood of every token after the first of its window.

    Args:
        hidden: last block's output for the windows.
        tokens: int64 [windows, tokens].
    """
    total, count = 0.0, 0
    for row in range(len(hidden)):
        state = hidden.read(slice(row, row + 1), job.resolved.torch_device)[:, :-1]
        labels = tokens[row, 1:].to(state.device)
        # In pieces: the logits of a whole window over a large vocabulary would be the peak of the run's memory.
        for start in range(0, len(labels), _CHUNK):
            part = slice(start, start + _CHUNK)
            with precision(job.resolved):
                scores = logits(job.skeleton, state[:, part])[0]
            total += functional.cross_entropy(scores.float(), labels[part], reduction="sum").item()
        count += len(labels)
    mean = total / count
    return math.exp(mean) if mean < 700 else math.inf
