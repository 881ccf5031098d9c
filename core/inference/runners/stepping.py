"""Check whether a transformers model gives the same logits with a cache as in one pass, before it is used.

The models of transformers differ in the state that they keep between two calls, and ignore arguments that they do not
support: Mamba accepts `past_key_values` and discards its state; others lose their state if a text continues with more
than one token. Only a comparison of the logits shows it. The result is stored for the model, the device and the
versions of the libraries.
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
"""Lengths of further pieces before the single tokens, if the context allows. The effect of a lost state fades with
every token, so it is checked directly after each piece."""
_SINGLE: Final = 8
_EXACT: Final = 2e-3
"""Largest relative difference of a token's logits in float32, where rounding causes 1e-6 to 1e-5."""
_ROUNDED: Final = 0.15
"""Largest relative difference if 16-bit products or 8-bit inputs are rounded differently for one row and for many."""
_WORSE: Final = 2.0
"""Largest ratio of the difference with pieces to that with single tokens, which is caused by rounding alone."""


def open_runner(model: Any, context: int, device: str, dtype: str, *, exact: bool) -> ModuleRunner:
    """Return a runner that processes texts in pieces if the model supports it, or else token by token.

    Args:
        exact: no layer rounds its inputs, so that one row and many rows differ by float32 rounding only.

    Raises:
        UnsupportedModel: the logits with a cache differ from those of one pass in both modes.
    """
    path = home() / "stepping" / f"{_fingerprint(model, device, dtype)}.json"
    known = _load_result(path)
    if known is not None:
        return ModuleRunner(model, context, device, pieces=known)
    limit = _EXACT if exact else _ROUNDED
    pieces, (difference, reason) = True, _difference(model, context, device, pieces=True)
    if difference > _EXACT:
        single, single_reason = _difference(model, context, device, pieces=False)
        if difference > min(limit, _WORSE * single):
            pieces, difference, reason = False, single, single_reason
    if difference <= limit:
        _store_result(path, pieces)
        return ModuleRunner(model, context, device, pieces=pieces)
    name = type(model).__name__
    raise UnsupportedModel(
        f"{name} of transformers cannot generate token by token: {reason}.",
        "Its perplexity can be measured with `bitwright eval`, which processes a text in one pass.",
    )


def _difference(model: Any, context: int, device: str, *, pieces: bool) -> tuple[float, str]:
    """Return the relative difference of the logits with a cache from those of one pass, and its description."""
    try:
        runner = ModuleRunner(model, context, device, pieces=pieces)
        parts = _parts(context)
        ids = _text(model, sum(parts))
        whole = _one_pass(model, ids, device)
        difference = _largest_difference(runner, ids, parts, whole)
    except Exception as error:
        # The runner's UnsupportedModel blames config.json; here its cause is reported, the failure with a cache.
        cause = error.__cause__ if isinstance(error, UnsupportedModel) else None
        if no_memory(error) or (isinstance(error, BitwrightError) and cause is None):
            raise
        error = cause if isinstance(cause, Exception) else error
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:160]
        return float("inf"), f"it fails with a cache ({type(error).__name__}{': ' if line else ''}{line.rstrip('.')})"
    return difference, f"its predictions with a cache differ from those of one pass by {100 * difference:.2g} %"


def _largest_difference(runner: ModuleRunner, ids: list[int], parts: list[int], whole: Tensor) -> float:
    """Return the largest relative difference after any part; the last tokens are truncated and processed again."""
    worst, position = 0.0, 0

    def extend(count: int) -> None:
        nonlocal worst, position
        found = runner.extend(ids[position : position + count])
        position += count
        expected = whole[position - 1]
        worst = max(worst, float((found - expected).norm() / expected.norm().clamp_min(1e-30)))

    for count in parts:
        extend(count)
    position -= min(_SINGLE, position - 1)
    runner.truncate(position)
    for _ in range(len(ids) - position):
        extend(1)
    return worst


def _parts(context: int) -> list[int]:
    """Return the lengths of the parts in which the text is processed: pieces, then single tokens."""
    single = min(_SINGLE, max(1, context // 4))
    first = min(_PIECE, max(1, (context - single) * 3 // 4))
    more = _SECOND if context >= first + sum(_SECOND) + single else ()
    return [first, *more, *[1] * single]


def _text(model: Any, count: int) -> list[int]:
    """Return token ids spread over the vocabulary, without the padding token, which some models mask."""
    known = model.get_input_embeddings().weight.shape[0]
    padding = getattr(model.config, "pad_token_id", None)
    ids = [(7919 * position + 13) % known for position in range(count)]
    return [(token + 1) % known if token == padding else token for token in ids]


@torch.inference_mode()
def _one_pass(model: Any, ids: list[int], device: str) -> Tensor:
    """Return the logits [tokens, vocabulary] without a cache, float32 on the CPU."""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0]
    return logits.float().cpu()


def _fingerprint(model: Any, device: str, dtype: str) -> str:
    """Return a hash of everything that the result depends on: the architecture, its sizes, libraries and device."""
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    kinds = sorted({type(module).__name__ for module in model.modules()})
    facts = [type(model).__name__, config, kinds, transformers.__version__, torch.__version__, device, dtype]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _load_result(path: Path) -> bool | None:
    try:
        value = read_json(path)["pieces"] if path.is_file() else None
    except (CorruptFile, KeyError, TypeError, OSError):
        return None
    return value if isinstance(value, bool) else None


def _store_result(path: Path, pieces: bool) -> None:
    """Store the result; if the folder is not writable, the check is repeated each time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"pieces": pieces})
    except OSError:
        return
