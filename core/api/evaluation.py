"""Perplexity of a model on a text. Imports no torch until the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from core.calibration import text as texts
from core.control import ShouldStop, never
from core.estimation import preflight
from core.events import Emit, Event, Result, Stage
from core.files import expanded
from core.model_id import absolute
from core.threads import stream

PathLike = str | os.PathLike[str]


def evaluate(
    model: PathLike,
    *,
    text: PathLike | None = None,
    seqlen: int = 512,
    max_windows: int | None = None,
    against: PathLike | None = None,
    device: str = "auto",
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Measure the perplexity of a model on a text; the last event is a `Result`.

    Args:
        text: A text, jsonl or parquet file; None is a bundled text that no calibration uses.
        seqlen: Tokens per window.
        max_windows: Maximum number of windows, spread over the text.
        against: The original model; its perplexity and the distance of the two models' predictions are added.

    Raises:
        BitwrightError: A model cannot be loaded, or the text cannot be read or is too short.
    """
    names = [absolute(name) for name in (model, against) if name is not None]
    for name in names:
        preflight.check_model(name)
    path = None if text is None else expanded(text).absolute()
    if path is not None:
        texts.check(str(path))

    def work(emit: Emit, stop: ShouldStop) -> None:
        from core.inference import evaluate as evaluation
        from core.inference.devices import choose
        from core.inference.loader import load_model

        emit(Stage("load"))
        # Where memory is not a card's, measure without the rounding of 16-bit products.
        dtype = "float32" if choose(device).kind == "cpu" else None
        loaded = [load_model(name, device, dtype, emit=emit, should_stop=stop) for name in names]
        windows = evaluation.make_windows(loaded[0].tokenizer, path, seqlen, max_windows)
        values: dict[str, Any] = {}
        emit(Stage("evaluate"))
        losses = []
        for key, one in zip(("perplexity", "against"), loaded, strict=False):
            losses.append(evaluation.token_losses(one.model, windows.tokens, emit, stop))
            found = evaluation.summarize(losses[-1], windows.tokens, windows.text)
            values[key] = {"model": one.label, **asdict(found)}
        if len(loaded) == 2:
            emit(Stage("compare"))
            apart = evaluation.compare_logits(loaded[1].model, loaded[0].model, windows.tokens, emit, stop)
            increase, error = evaluation.loss_increase(losses[1], losses[0])
            values["comparison"] = {**asdict(apart), "loss_increase": increase, "loss_increase_standard_error": error}
        emit(Result(values))

    return stream(work, should_stop)
