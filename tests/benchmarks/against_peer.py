"""Comparison of Bitwright and auto-round on the same weights and texts: perplexity, time, peak memory and size.

Run manually on an otherwise idle machine:

    python3 packaging/bootstrap.py exec --extra test python tests/benchmarks/against_peer.py MODEL TEXTS WORK

MODEL is a folder, TEXTS a jsonl file with a `text` of at least 256 tokens per line, WORK a folder for the outputs.
Both use 50 iterations on 32 samples of 256 tokens, batches of 8 and a learning rate of 1/50. Both outputs are evaluated
by the same evaluator on the bundled evaluation text, which neither used for calibration.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from core import evaluate
from core.events import Result

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Figures:
    """Figures of a run: exit code, seconds, and the peak of the resident memory of all its processes, in bytes."""

    code: int
    seconds: float
    peak: int


def measured(command: list[str], log: Path) -> Figures:
    """Run a command and sample its process tree every 0.1 s."""
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        peak = 0

        def watch() -> None:
            nonlocal peak
            root = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    tree = [root, *root.children(recursive=True)]
                    peak = max(peak, sum(member.memory_info().rss for member in tree))
                except psutil.Error:
                    pass
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        watcher.join()
    return Figures(code, time.monotonic() - began, peak)


def commands(model: str, texts: str, work: Path, bits: int) -> dict[str, tuple[list[str], Path]]:
    """Return the two command lines and their output folders."""
    ours, theirs = work / f"bitwright-{bits}", work / f"auto-round-{bits}"
    return {
        "bitwright": (
            [str(BIN / "bitwright"), "quantize", model, "--bits", str(bits), "--group-size", "64", "--iters", "50",
             "--lr", "0.02", "--samples", "32", "--seqlen", "256", "--batch-size", "8", "--calibration", texts,
             "--output", str(ours)],
            ours,
        ),
        "auto-round": (
            [str(BIN / "auto-round"), "--model", model, "--bits", str(bits), "--group_size", "64", "--iters", "50",
             "--lr", "0.02", "--nsamples", "32", "--seqlen", "256", "--batch_size", "8", "--dataset", texts,
             "--format", "auto_round", "--output_dir", str(theirs)],
            theirs,
        ),
    }  # fmt: skip


def checkpoint_in(folder: Path) -> Path:
    """Return the folder with config.json, whose name auto-round chooses."""
    found = sorted(folder.rglob("config.json"))
    if not found:
        raise SystemExit(f"no checkpoint in {folder}")
    return found[0].parent


def perplexity_of(folder: Path | str) -> tuple[float, float]:
    """Return the perplexity on the bundled text in float32 and its standard error."""
    result = None
    for event in evaluate(str(folder), device="cpu", seqlen=512):
        if isinstance(event, Result):
            result = event.values["perplexity"]
    assert result is not None
    return result["value"], result["standard_error"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("work", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 2])
    parser.add_argument("--only", choices=("bitwright", "auto-round"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for bits in options.bits:
        for name, (command, output) in commands(options.model, options.texts, options.work, bits).items():
            if options.only not in (None, name):
                continue
            figures = measured(command, options.work / f"{name}-{bits}.log")
            row: dict[str, object] = {"program": name, "bits": bits, "exit": figures.code}
            row |= {"seconds": round(figures.seconds, 1), "peak_mb": round(figures.peak / 1e6)}
            if figures.code == 0:
                folder = checkpoint_in(output)
                row["output_mb"] = round(
                    sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1
                )
                value, error = perplexity_of(folder)
                row |= {"perplexity": round(value, 3), "standard_error": round(error, 3)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
