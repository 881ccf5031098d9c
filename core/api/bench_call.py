"""The call that measures a loaded model's speed, and keeps the figures in the report of the run that made the model.

Turns JSON values into calls of the rest of `core`. Imports torch only when it is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from core.errors import BadInput, BitwrightError
from core.events import Emit, Log
from core.files import read_json, write_json
from core.model.folder import only_gguf

Values = dict[str, Any]
REPORT: Final = "bitwright.json"
KEPT: Final = 20
"""Benches that a report keeps, the newest."""
_EMBEDDING: Final = ("embed_tokens.weight", "wte.weight", "token_embd.weight")
_MOST_LENGTHS: Final = 16


def bench(
    loaded: Any, arguments: Mapping[str, Any], emit: Emit, should_stop: Callable[[], bool], model: str = ""
) -> Values:
    """Measure a model at `lengths`, with `Progress`: `rows`, the `bandwidth` in bytes a second, and what ran it where.

    `written` is the report that got the figures; "" where the model has none that can be written.

    Args:
        loaded: `core.inference.loader.LoadedRunner`; model: what the user opened, where its report is looked for.

    Raises:
        BadInput: `lengths` are none, or none fits the context.
        Cancelled: `should_stop` said so.
    """
    from core.inference.bandwidth import read_bandwidth
    from core.inference.bench import LENGTHS
    from core.inference.bench import bench as measure

    lengths = arguments.get("lengths")
    chosen = LENGTHS if lengths is None else _lengths(lengths)
    memory = read_bandwidth(loaded.device)
    rows = measure(
        loaded.runner,
        chosen,
        step_bytes=step_bytes(loaded),
        bandwidth=memory.bytes_per_second,
        emit=emit,
        should_stop=should_stop,
    )
    counts: Mapping[str, int] = loaded.counts
    found = {
        "rows": [asdict(row) for row in rows],
        "bandwidth": memory.bytes_per_second,
        "bandwidth_method": memory.method,
        "device": loaded.device,
        "device_name": loaded.device_name,
        "runner": loaded.runner.name,
        "backend": max(counts, key=lambda name: counts[name], default=loaded.runner.name),
        "dtype": loaded.dtype,
    }
    path = report_of(model, loaded.folder)
    return {**found, "written": _keep(path, found, emit) if path else ""}


def step_bytes(loaded: Any) -> int:
    """Bytes of weights that one token needs, as they are stored: all, but for an embedding that is no head as well."""
    from core.formats.opened import open_checkpoint
    from core.model.tree import build_tree

    known = getattr(loaded.runner, "step_bytes", 0)
    if known:
        return int(known)
    try:
        checkpoint = open_checkpoint(loaded.folder)
        if build_tree(dict(checkpoint.config), checkpoint.dense_table()).tied:
            return int(loaded.weight_bytes)
        tensors = checkpoint.store.table.values()
    except BitwrightError:  # a GGUF file has its tensors elsewhere
        return int(loaded.weight_bytes)
    return int(loaded.weight_bytes) - sum(info.nbytes for info in tensors if info.name.endswith(_EMBEDDING))


def report_of(model: str, folder: Path) -> Path | None:
    """The report of the run that made a model, if there is one beside it."""
    given = Path(model)
    places = [folder]
    if model and given.is_dir():
        places = [given]
    elif model and given.is_file():
        # beside a file among others, a report may be of one of those
        places = [given.parent] if only_gguf(given.parent) == given else []
    return next((place / REPORT for place in places if (place / REPORT).is_file()), None)


def _keep(path: Path, found: Values, emit: Emit) -> str:
    """Add figures to a report, as the last of its benches; its path, or "" where that is not possible."""
    try:
        report = read_json(path)
        if not isinstance(report, dict):
            return ""
        before = report.get("bench")
        benches = before if isinstance(before, list) else []
        report["bench"] = [*benches, {"time": time.time(), **found}][-KEPT:]
        write_json(path, report)
    except (BitwrightError, OSError) as error:
        emit(Log("warning", f"The figures are not kept in {path.name}: {error}"))
        return ""
    return str(path)


def _lengths(value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, list | tuple)
        or not 0 < len(value) <= _MOST_LENGTHS
        or not all(type(length) is int and length > 0 for length in value)
    ):
        raise BadInput(
            f"{str(value)[:60]} are no lengths of prompts.",
            f"Give up to {_MOST_LENGTHS} whole numbers, such as 32,512.",
        )
    return tuple(value)
