"""Determine by which calls a transformers model gives the same logits as in one pass, before it is used.

The models of transformers differ in the state that they keep between two calls, and ignore arguments that they do not
support: some lose their recurrent state if a text continues with more than one token (Mamba, Jamba), or count the
positions from 0 in every call unless they are given (Bamba). Only a comparison of the logits shows it. A model that is
wrong with every kind of call processes the whole text again for every token. The result is stored for the model, the
device and the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

import torch
import transformers
from torch import Tensor

from core.errors import BitwrightError, CorruptFile, UnsupportedModel, no_memory
from core.events import Emit, Log, ignore_event
from core.files import read_json, write_json
from core.home import home
from core.inference.runners.module import Calls, ModuleRunner, Stepping, cache_key

_PIECE: Final = 128
_SECOND: Final = (2, 22)
"""Lengths of further pieces before the single tokens, if the context allows. The effect of a lost state fades with
every token, so it is checked directly after each piece."""
_SINGLE: Final = 8
_FEW: Final = 5
"""Tokens that show whether a model counts positions from 0."""
_EXACT: Final = 2e-3
"""Largest relative difference of a token's logits in float32, where rounding causes 1e-6 to 1e-5."""
_ROUNDED: Final = 0.15
"""Largest relative difference if 16-bit products or 8-bit inputs are rounded differently for one row and for many."""
_MOST_ROUNDED: Final = 0.5
"""Upper limit for mixtures, which can choose other experts after a rounding error."""
_SMALLEST_ERROR: Final = 2.0**-15
"""Relative error of inputs that are rounded to two 8-bit planes."""
_SLOW: Final = "The whole text is processed again for every token, which is slow."
_WORSE: Final = 2.0
"""Largest ratio of the difference with pieces to that with single tokens, which is caused by rounding alone."""


def open_runner(
    model: Any,
    context: int,
    device: str,
    dtype: str,
    *,
    exact: bool,
    towers: Callable[[], AbstractContextManager[None]] = nullcontext,
    emit: Emit = ignore_event,
) -> ModuleRunner:
    """Return a runner with the fastest calls for which the logits equal those of one pass.

    Args:
        exact: no layer rounds its inputs, so that one row and many rows differ by float32 rounding only.
        towers: see `ModuleRunner`.
        emit: receives a warning if the model cannot use a cache.
    """
    path = home() / "stepping" / f"{_fingerprint(model, device, dtype)}.json"
    stepping, reason = _load_result(path), ""
    if stepping is None:
        stepping, reason = _measure(model, context, device, _EXACT if exact else _ROUNDED)
        _store_result(path, stepping)
    if stepping.calls == "whole":
        emit(Log("warning", f"{type(model).__name__} of transformers cannot use a cache{reason}. {_SLOW}"))
    return ModuleRunner(model, context, device, stepping, towers)


def _measure(model: Any, context: int, device: str, limit: float) -> tuple[Stepping, str]:
    """Return the fastest calls that differ by at most `limit` from one pass, and why not with a cache ("" if it is)."""
    if cache_key(model) is None:
        return Stepping("whole"), ""
    positions = _takes_positions(model, device)
    pieces, tokens = Stepping("pieces", positions), Stepping("tokens", positions)
    difference, _ = _difference(model, context, device, pieces)
    if difference <= _EXACT:
        return pieces, ""
    single, reason = _difference(model, context, device, tokens)
    if difference <= min(limit, _WORSE * single):
        return pieces, ""
    if limit > _EXACT and min(difference, single) > limit:
        limit = min(_MOST_ROUNDED, max(limit, _WORSE * _rounding_noise(model, context, device)))
        if difference <= min(limit, _WORSE * single):
            return pieces, ""
    if single <= limit:
        return tokens, ""
    return Stepping("whole"), f": {reason}"


def _takes_positions(model: Any, device: str) -> bool:
    """Return whether `position_ids` that count from 0 are those that the model uses if none are given."""
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return False
    ids = _text(model, _FEW)
    try:
        given = _one_pass(model, ids, device, position_ids=torch.arange(_FEW, device=device)[None])
    except Exception as error:  # of any library; only the error without positions matters
        if no_memory(error):
            raise
        return False
    # The same operations on the same numbers, so that even rounded inputs give equal results.
    return torch.allclose(given, _one_pass(model, ids, device), rtol=1e-4, atol=1e-5)


def _difference(model: Any, context: int, device: str, stepping: Stepping) -> tuple[float, str]:
    """Return the relative difference of the logits with a cache from those of one pass, and its description."""
    try:
        runner = ModuleRunner(model, context, device, stepping)
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


@torch.inference_mode()
def _rounding_noise(model: Any, context: int, device: str) -> float:
    """Return the largest relative difference of a token's logits if the embeddings have errors as from rounding."""
    ids = _text(model, sum(_parts(context)))
    expected = _one_pass(model, ids, device)
    embedding = model.get_input_embeddings()
    error = max(torch.finfo(embedding.weight.dtype).eps, _SMALLEST_ERROR)
    generator = torch.Generator().manual_seed(1)

    def disturb(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output * (1 + error * torch.randn(output.shape, generator=generator).to(output))

    hook = embedding.register_forward_hook(disturb)
    try:
        found = _one_pass(model, ids, device)
    finally:
        hook.remove()
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-30)).max())


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
def _one_pass(model: Any, ids: list[int], device: str, **more: Tensor) -> Tensor:
    """Return the logits [tokens, vocabulary] without a cache, float32 on the CPU."""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=device), use_cache=False, **more).logits[0]
    return logits.float().cpu()


def _fingerprint(model: Any, device: str, dtype: str) -> str:
    """Return a hash of everything that the result depends on: the architecture, its sizes, libraries and device."""
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    kinds = sorted({type(module).__name__ for module in model.modules()})
    facts = [type(model).__name__, config, kinds, transformers.__version__, torch.__version__, device, dtype]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _load_result(path: Path) -> Stepping | None:
    try:
        value: Any = read_json(path) if path.is_file() else {}
        calls, positions = value.get("calls"), value.get("positions")
    except (CorruptFile, AttributeError, OSError):
        return None
    return Stepping(calls, positions) if calls in get_args(Calls) and isinstance(positions, bool) else None


def _store_result(path: Path, stepping: Stepping) -> None:
    """Store the result; if the folder is not writable, the check is repeated each time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(stepping))
    except OSError:
        return
