"""Perplexity of a model on a text, and its distance from another model. Imports no torch until the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core.calibration import text as texts
from core.control import ShouldStop, never
from core.errors import OutOfMemory
from core.estimation import preflight
from core.events import Emit, Event, Log, Result, Stage
from core.files import expanded
from core.model_id import absolute
from core.threads import stream

if TYPE_CHECKING:
    from torch import Tensor

    from core.inference.evaluate import Windows
    from core.inference.loader import LoadedModel

FLOOR_WINDOWS = 8
"""Windows on which the noise floor is measured: a few thousand positions, because 16 bits are slow on some CPUs."""
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

    Its values are `perplexity` (of `model`) and, with `against`: `against` (the perplexity of that model),
    `comparison` (`core.inference.divergence.LogitComparison`) and `noise_floor`, the same figures for the reference
    model in 16 bits against itself in float32, on at most FLOOR_WINDOWS windows, with the `dtype`. A quantized model
    cannot be told from the reference below the noise floor. It is None if memory does not suffice for it.

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
        if len(loaded) == 2:
            emit(Result(_comparison(names[1], loaded, windows, emit, stop)))
            return
        emit(Stage("evaluate"))
        losses = evaluation.token_losses(loaded[0].model, windows.tokens, emit, stop)
        emit(Result({"perplexity": _perplexity(loaded[0], losses, windows)}))

    return stream(work, should_stop)


def _perplexity(model: LoadedModel, losses: Tensor, windows: Windows) -> dict[str, Any]:
    from core.inference.evaluate import summarize

    return {"model": model.label, **asdict(summarize(losses, windows.tokens, windows.text))}


def _comparison(
    reference_name: str, loaded: list[LoadedModel], windows: Windows, emit: Emit, should_stop: ShouldStop
) -> dict[str, Any]:
    """Return the values of the result for a model and its reference; `loaded` holds both, and is emptied."""
    from core.inference.divergence import compare_tokens

    emit(Stage("compare"))
    model, reference = loaded
    tokens = compare_tokens(reference.model, model.model, windows.tokens, emit, should_stop)
    values = {
        "perplexity": _perplexity(model, tokens.losses, windows),
        "against": _perplexity(reference, tokens.reference_losses, windows),
        "comparison": asdict(tokens.summary()),
    }
    emit(Stage("noise floor"))
    loaded.clear()
    del model  # frees its memory for the reference in the other dtype
    return {**values, "noise_floor": _noise_floor(reference_name, reference, windows.tokens, emit, should_stop)}


def _noise_floor(
    name: str, reference: LoadedModel, windows: Tensor, emit: Emit, should_stop: ShouldStop
) -> dict[str, Any] | None:
    """Return the distance of a model in 16 bits from itself in float32, or None if memory does not suffice.

    Args:
        name: the model.
        reference: the same model, loaded in either dtype.
        windows: token ids, int64 [rows, seqlen].
    """
    from core.inference.divergence import compare_logits
    from core.inference.loader import load_model
    from core.inference.memory import memory_errors

    missing = "bfloat16" if reference.dtype == "float32" else "float32"
    try:
        with memory_errors("The noise floor"):
            twin = load_model(name, reference.device, missing, emit=emit, should_stop=should_stop)
            exact, rounded = (reference, twin) if missing == "bfloat16" else (twin, reference)
            rows = [row * len(windows) // FLOOR_WINDOWS for row in range(FLOOR_WINDOWS)]
            chosen = windows if len(windows) <= FLOOR_WINDOWS else windows[rows]
            found = compare_logits(exact.model, rounded.model, chosen, emit, should_stop)
    except OutOfMemory as error:
        emit(Log("warning", f"The noise floor was not measured: {error}"))
        return None
    return {"dtype": rounded.dtype, **asdict(found)}
