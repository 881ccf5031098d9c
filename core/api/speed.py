"""Measurement of a model's speed, saved in the report of the run that made the model. Imports torch inside calls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.api.chats import open_chat
from core.codec import encode
from core.control import ShouldStop, never
from core.errors import BadInput, BitwrightError
from core.events import Emit, Event, Log, Result, Stage
from core.files import read_json, write_json
from core.inference.figures import SpeedReport
from core.model.folder import only_gguf
from core.model.fused_experts import EXPERT
from core.model_id import absolute
from core.threads import stream

if TYPE_CHECKING:
    from core.formats.stored import Checkpoint
    from core.model.tree import ModelTree

PathLike = str | os.PathLike[str]
REPORT: Final = "bitwright.json"
KEPT: Final = 20
"""Measurements that a report keeps, the newest."""
_EMBEDDING: Final = ("embed_tokens.weight", "wte.weight", "token_embd.weight")
_MOST_LENGTHS: Final = 16


def bench(
    model: PathLike,
    *,
    lengths: Sequence[int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Measure prefill and decode speed at several prompt lengths; the last event is a `Result` (`SpeedReport`).

    The figures are saved in the report of the run that made the model, if it has one.

    Args:
        lengths: Prompt lengths, in tokens; None uses the defaults.

    Raises:
        BitwrightError: The model cannot be loaded, or no length fits its context.
    """
    name = absolute(model)

    def work(emit: Emit, stop: ShouldStop) -> None:
        emit(Stage("load"))
        loaded: Any = open_chat(name, device, backend=backend, emit=emit, should_stop=stop).loaded
        emit(Stage("bench"))
        try:
            emit(Result(encode(measure_speed(loaded, lengths, emit, stop, name))))
        finally:
            loaded.runner.close()

    return stream(work, should_stop)


def measure_speed(
    loaded: Any, lengths: Sequence[int] | None, emit: Emit, should_stop: ShouldStop, model: str = ""
) -> SpeedReport:
    """Measure a loaded model, with `Progress`, and save the figures in its report.

    Args:
        loaded: `core.inference.loader.Loaded`.
        lengths: tokens of the prompts; None takes the defaults.
        model: path or name that was opened; its report is looked for there.

    Raises:
        BadInput: `lengths` is empty, or none fits the context.
        Cancelled: after a stop.
    """
    from core.inference.bandwidth import read_bandwidth
    from core.inference.bench import LENGTHS
    from core.inference.bench import bench as measure

    chosen = LENGTHS if lengths is None else _checked(lengths)
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
    found = SpeedReport(
        rows=rows,
        memory_bandwidth=memory.bytes_per_second,
        bandwidth_method=memory.method,
        device=loaded.device,
        device_name=loaded.device_name,
        runner=loaded.runner.name,
        backend=max(counts, key=lambda name: counts[name], default=loaded.runner.name),
        dtype=loaded.dtype,
    )
    path = report_of(model, loaded.folder)
    return replace(found, report_path=_save(path, found, emit)) if path else found


def step_bytes(loaded: Any) -> int:
    """Return the bytes of weights that one token reads.

    These are all but an embedding that is not the head as well, and the experts that a token does not use.
    """
    from core.formats.opened import open_checkpoint
    from core.model.tree import build_tree

    known = getattr(loaded.runner, "step_bytes", 0)
    if known:
        return int(known)
    try:
        checkpoint = open_checkpoint(loaded.folder)
        tree = build_tree(dict(checkpoint.config), checkpoint.dense_table())
        tensors = checkpoint.store.table.values()
    except BitwrightError:  # a GGUF file has its tensors elsewhere
        return int(loaded.weight_bytes)
    read = int(loaded.weight_bytes) - _unused_experts(checkpoint, tree)
    return read if tree.tied else read - sum(info.nbytes for info in tensors if info.name.endswith(_EMBEDDING))


def _unused_experts(checkpoint: Checkpoint, tree: ModelTree) -> int:
    """Return the bytes of the experts that a token does not use."""
    experts = max(tree.experts, default=0)
    if not experts or not tree.experts_per_token:
        return 0
    total = sum(
        checkpoint.schemes[linear.name].weight_bytes(linear.in_features, linear.out_features)
        if linear.name in checkpoint.schemes
        else tree.stored_bytes(linear)
        for linear in tree.linears
        if EXPERT.search(linear.name)
    )
    return int(total * (1 - min(1.0, tree.experts_per_token / experts)))


def report_of(model: str, folder: Path) -> Path | None:
    """Return the path of the report of the run that made a model; None if there is none beside it."""
    given = Path(model)
    places = [folder]
    if model and given.is_dir():
        places = [given]
    elif model and given.is_file():
        # beside a file among others, a report may be of one of those
        places = [given.parent] if only_gguf(given.parent) == given else []
    return next((place / REPORT for place in places if (place / REPORT).is_file()), None)


def _save(path: Path, found: SpeedReport, emit: Emit) -> str:
    """Append figures to a report; return its path, or "" where it cannot be written."""
    values = encode(found)
    del values["report_path"]
    try:
        report = read_json(path)
        if not isinstance(report, dict):
            return ""
        before = report.get("bench")
        benches = before if isinstance(before, list) else []
        report["bench"] = [*benches, {"time": time.time(), **values}][-KEPT:]
        write_json(path, report)
    except (BitwrightError, OSError) as error:
        emit(Log("warning", f"The figures are not kept in {path.name}: {error}"))
        return ""
    return str(path)


def _checked(lengths: Sequence[int]) -> tuple[int, ...]:
    if not 0 < len(lengths) <= _MOST_LENGTHS or not all(type(length) is int and length > 0 for length in lengths):
        raise BadInput(
            f"{str(list(lengths))[:60]} is not a list of prompt lengths.",
            f"Give up to {_MOST_LENGTHS} whole numbers, for example 32,512.",
        )
    return tuple(lengths)
