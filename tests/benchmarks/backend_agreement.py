"""Effect of each CPU backend on the predictions of a model, against exact weights in float32. Run manually:

    python3 packaging/bootstrap.py exec env PYTHONPATH=. python tests/benchmarks/backend_agreement.py MODEL ...

A MODEL is a folder or a GGUF file. For each available backend: perplexity on held-out rows of 512 tokens, its
difference from `dense` in float32, and the maximum and RMS error of the logits over all positions.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from core.inference.evaluate import make_windows
from core.inference.loader import load_runner

BACKENDS = (
    ("dense", "float32"), ("portable", "float32"), ("native", None), ("int4pack", "float32"), ("int4pack", "bfloat16"),
    ("ark", "float32"), ("dense", "bfloat16"),
)  # fmt: skip
SEQLEN = 512
HEAD = "| backend | perplexity | off by | largest error | rms error | what ran |"


def read(model: str, backend: str, dtype: str | None, rows: int) -> tuple[Tensor, Tensor, str]:
    """Return the logits [rows, seqlen, vocabulary], the tokens, and the number of layers by backend."""
    loaded = load_runner(model, "cpu", backend, dtype, SEQLEN)
    windows = make_windows(loaded.tokenizer, None, SEQLEN, rows).tokens
    logits = torch.stack([loaded.runner.logits(row.tolist()) for row in windows])
    what = f"{loaded.runner.name}: " + ", ".join(f"{count} {name}" for name, count in loaded.counts.items())
    loaded.runner.close()
    return logits, windows, what


def perplexity(logits: Tensor, windows: Tensor) -> float:
    """Return the exponential of the mean negative log-likelihood of all tokens except the first of each row."""
    losses = [
        torch.nn.functional.cross_entropy(row[:-1].float(), ids[1:], reduction="none")
        for row, ids in zip(logits, windows, strict=True)
    ]
    return math.exp(float(torch.cat(losses).double().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rows", type=int, default=8)
    options = parser.parse_args()
    for model in options.models:
        print(f"\n{model}\n\n{HEAD}\n{'|---' * 6}|")
        exact, base = torch.empty(0), 0.0
        for backend, dtype in BACKENDS:
            logits, windows, what = read(model, backend, dtype, options.rows)
            value = perplexity(logits, windows)
            if not len(exact):
                exact, base = logits, value
            error = logits - exact
            print(
                f"| {backend} {dtype or ''} | {value:.4f} | {value / base - 1:+.3%} | {float(error.abs().max()):.3g} "
                f"| {float(error.square().mean().sqrt()):.2g} | {what} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
