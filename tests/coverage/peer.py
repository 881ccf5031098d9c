"""The result of auto-round on the same tiny model, rounded to 8 bits in groups of 32 without tuning."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.core.tiny_architectures import make_model
from tests.coverage.measure import CLOSE, divergence, rows

TEXT = "The quick brown fox jumps over the lazy dog. " * 20
_OPTION = "AR_DISABLE_META_LOAD"


@dataclass
class PeerRow:
    """The result of auto-round for one model.

    Attributes:
        verdict: `right`, `wrong` (its own output gives other logits), `crash`, or `not read` (its output cannot be
            read by transformers with auto-round).
        reason: of another verdict than `right`, or a condition.
        layers: number of quantized layers in the output.
        divergence: of the logits of the output from those of the source, in nats.
    """

    verdict: str = "crash"
    reason: str = ""
    layers: int = 0
    divergence: float | None = None


def quantize_by_peer(name: str, folder: Path, make: Callable[[str, Path], None] = make_model) -> PeerRow:
    """Build the model `name` in `folder`, which must be empty, and quantize it with auto-round.

    auto-round replaces classes of transformers for the rest of the process, so another one must read the output.
    """
    source, output = folder / "source", folder / "output"
    make(name, source)
    row = PeerRow()
    try:
        try:
            _quantize(source, output)
        except RuntimeError as error:
            if _OPTION not in str(error):
                raise
            # its error names this option
            os.environ[_OPTION] = "1"
            shutil.rmtree(output, ignore_errors=True)
            _quantize(source, output)
            row.reason = f"with {_OPTION}=1 only"
    except BaseException as error:  # noqa: BLE001 - it also calls sys.exit
        row.reason = _one_line(error)
        return row
    row.layers = _count(output)
    row.verdict = "written" if row.layers else "refuses"
    if not row.layers:
        row.reason = "quantizes no layer"
    return row


def read_by_peer(row: PeerRow, folder: Path, factory: Any = transformers.AutoModelForCausalLM) -> PeerRow:
    """Return the result for the output that `quantize_by_peer` wrote: its logits, read by transformers."""
    if row.verdict != "written":
        return row
    source = folder / "source"
    tokens = rows(source)
    written = next(path.parent for path in sorted((folder / "output").rglob("config.json")))
    # before its output is read, which replaces classes as well
    expected = _logits(source, tokens, factory)
    try:
        row.divergence = divergence(expected, _logits(written, tokens, factory))
    except Exception as error:  # noqa: BLE001 - as above
        row.verdict, row.reason = "not read", _one_line(error)
        return row
    if row.divergence <= CLOSE:
        row.verdict = "right"
    else:
        row.verdict, row.reason = "wrong", f"logits differ by {row.divergence:.2g} nats"
    return row


def _quantize(source: Path, output: Path) -> None:
    from auto_round import AutoRound

    texts = source.parent / "texts.json"
    texts.write_text(json.dumps([{"text": TEXT}] * 4), encoding="utf-8")
    rounder = AutoRound(
        str(source),
        iters=0,
        bits=8,
        group_size=32,
        sym=True,
        nsamples=4,
        seqlen=64,
        dataset=str(texts),
        disable_opt_rtn=True,
        disable_model_free=True,
        device_map="cpu",
    )
    rounder.quantize_and_save(str(output), format="auto_round")


def _logits(folder: Path, tokens: torch.Tensor, factory: Any) -> torch.Tensor:
    load = factory.from_pretrained
    with torch.no_grad():
        found: torch.Tensor = load(folder, dtype=torch.float32, device_map="cpu").eval()(tokens, use_cache=False).logits
    return found.float()


def _count(folder: Path) -> int:
    from safetensors import safe_open

    total = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(key.endswith(".qweight") for key in file.keys())  # noqa: SIM118 - not a dict
    return total


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
