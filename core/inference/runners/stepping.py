"""Which way of reading a text in parts gives what one pass over it gives: proven on the model itself before it answers.

transformers' models differ in what they keep between two calls, and take no offence at a cache that they do not know:
Mamba swallows `past_key_values` and forgets what it read; others lose their states where a text goes on with more than
one token. Only the comparison tells. What was found is kept for this model, device and version of the libraries.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor

from core.errors import BitwrightError, CorruptFile, UnsupportedModel, no_memory
from core.files import read_json, write_json
from core.home import home
from core.inference.runners.module import ModuleRunner

_PIECE: Final = 128
_SECOND: Final = (2, 22)
"""Tokens of the pieces that are read before the single ones, as far as the context allows. What is lost between two of
them fades with every token, so that it is looked for at once."""
_SINGLE: Final = 8
_EXACT: Final = 2e-3
"""Largest difference of a token's logits, as a share of their size, that fp32 makes: it is 1e-6 to 1e-5."""
_ROUNDED: Final = 0.15
"""The same where 16-bit products or 8-bit inputs are rounded differently for one row and for many."""
_WORSE: Final = 2.0
"""Pieces may be so many times further off than single tokens, whose difference shows how much is rounding."""


def open_runner(model: Any, context: int, device: str, dtype: str, *, exact: bool) -> ModuleRunner:
    """Return a runner that reads in pieces where the model can, or else one that is slower and right.

    Args:
        exact: no layer rounds its inputs, so that one row and many differ by fp32's rounding only.

    Raises:
        UnsupportedModel: no way of reading token by token gives the logits of one pass.
    """
    place = home() / "stepping" / f"{_fingerprint(model, device, dtype)}.json"
    known = _known(place)
    if known is not None:
        return ModuleRunner(model, context, device, pieces=known)
    limit = _EXACT if exact else _ROUNDED
    pieces, (apart, reason) = True, _difference(model, context, device, pieces=True)
    if apart > _EXACT:
        single, why = _difference(model, context, device, pieces=False)
        if apart > min(limit, _WORSE * single):
            pieces, apart, reason = False, single, why
    if apart <= limit:
        _keep(place, pieces)
        return ModuleRunner(model, context, device, pieces=pieces)
    name = type(model).__name__
    raise UnsupportedModel(
        f"{name} of transformers cannot answer token by token: {reason}.",
        "Its predictions can be measured (bitwright eval), which reads a text in one pass.",
    )


def _difference(model: Any, context: int, device: str, *, pieces: bool) -> tuple[float, str]:
    """Return how far the logits of a text in parts are from those of one pass, and what to say of it."""
    try:
        runner = ModuleRunner(model, context, device, pieces=pieces)
        parts = _parts(context)
        ids = _text(model, sum(parts))
        whole = _one_pass(model, ids, device)
        apart = _apart(runner, ids, parts, whole)
    except Exception as error:
        # What the runner translated is told here by its cause: the model fails with a cache, whatever its config says.
        cause = error.__cause__ if isinstance(error, UnsupportedModel) else None
        if no_memory(error) or (isinstance(error, BitwrightError) and cause is None):
            raise
        error = cause if isinstance(cause, Exception) else error
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:160]
        return float("inf"), f"it fails with a cache ({type(error).__name__}{': ' if line else ''}{line.rstrip('.')})"
    return apart, f"it gives other predictions than in one pass (off by {100 * apart:.2g} %)"


def _apart(runner: ModuleRunner, ids: list[int], parts: list[int], whole: Tensor) -> float:
    """Return the largest difference behind any part; the last tokens are read twice, as after an edit of a question."""
    worst, place = 0.0, 0

    def read(count: int) -> None:
        nonlocal worst, place
        found = runner.extend(ids[place : place + count])
        place += count
        expected = whole[place - 1]
        worst = max(worst, float((found - expected).norm() / expected.norm().clamp_min(1e-30)))

    for count in parts:
        read(count)
    place -= min(_SINGLE, place - 1)
    runner.truncate(place)
    for _ in range(len(ids) - place):
        read(1)
    return worst


def _parts(context: int) -> list[int]:
    """Return the lengths of the parts that a text is read in: pieces, and single tokens."""
    single = min(_SINGLE, max(1, context // 4))
    first = min(_PIECE, max(1, (context - single) * 3 // 4))
    more = _SECOND if context >= first + sum(_SECOND) + single else ()
    return [first, *more, *[1] * single]


def _text(model: Any, count: int) -> list[int]:
    """Return token ids spread over the vocabulary, without the one for padding, which some models mask."""
    known = model.get_input_embeddings().weight.shape[0]
    padding = getattr(model.config, "pad_token_id", None)
    ids = [(7919 * place + 13) % known for place in range(count)]
    return [(token + 1) % known if token == padding else token for token in ids]


@torch.inference_mode()
def _one_pass(model: Any, ids: list[int], device: str) -> Tensor:
    """Return the logits [tokens, vocabulary] without a cache, float32 on the CPU."""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0]
    return logits.float().cpu()


def _fingerprint(model: Any, device: str, dtype: str) -> str:
    """Return a name for all that the answer depends on: the architecture with its sizes, libraries and device."""
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    kinds = sorted({type(module).__name__ for module in model.modules()})
    facts = [type(model).__name__, config, kinds, transformers.__version__, torch.__version__, device, dtype]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _known(place: Path) -> bool | None:
    try:
        value = read_json(place)["pieces"] if place.is_file() else None
    except (CorruptFile, KeyError, TypeError, OSError):
        return None
    return value if isinstance(value, bool) else None


def _keep(place: Path, pieces: bool) -> None:
    """Remember what was found; a home that cannot be written means that it is found anew each time."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"pieces": pieces})
    except OSError:
        return
