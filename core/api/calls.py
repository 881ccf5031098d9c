"""Everything that the command line does, as one Python call each. Imports no torch until a call needs it.

Long calls give an iterator of events (`core.events`) that works as it is consumed; the others return a value.
All raise `BitwrightError` (`core.errors`) with one sentence and a hint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.api.inspection import Inspection
from core.bitsmap import BitsMap
from core.calibration import text as texts
from core.control import never
from core.errors import BadInput, Cancelled
from core.estimate import costs, preflight, sizes
from core.events import Emit, Event, Failed, Result, Stage
from core.files import expanded
from core.formats.grids import plan_layers
from core.formats.names import FORMATS, PLAIN
from core.inference.native.architectures import FAMILIES
from core.jobs import store
from core.jobs.failure import error_from
from core.model.plans import nothing_quantized
from core.model_id import absolute
from core.recipes import Recipe
from core.spec import JobSpec, from_options
from core.threads import stream

if TYPE_CHECKING:
    from core.hub.source import Source
    from core.inference.backends.backend import BackendRow
    from core.inference.machine import Device

PathLike = str | os.PathLike[str]
Asked = Callable[[], bool]


def quantize(
    model: PathLike,
    output: PathLike,
    *,
    recipe: str | Recipe = "default",
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    bits_map: BitsMap | PathLike | None = None,
    iters: int | None = None,
    lr: float | None = None,
    minmax_lr: float | None = None,
    samples: int | None = None,
    seqlen: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    calibration: PathLike = "builtin",
    formats: Sequence[str] = ("auto_round",),
    device: str = "auto",
    seed: int = 42,
    low_memory: bool = False,
    compile: bool = False,
    name: str = "",
    inline: bool = False,
) -> Iterator[Event]:
    """Quantize `model` into the new folder `output`.

    Bad input is raised by the call itself; the run starts with the first `next()` and stops, leaving no output,
    when the iterator is closed.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`.
        recipe: quick, light, default, best, rtn, opt-rtn, the path of a recipe file, or a `Recipe`.
        bits, group_size, sym: of all layers that the map does not speak of; 4, 128 and symmetric by default.
        iters ... accumulate: replace the recipe's own.
        calibration: `builtin`, a Hub data set id, or a txt, jsonl or parquet file.
        formats: one goes into `output` itself, several into `output/FORMAT`.
        inline: run in this process, where torch is imported and a crash is this process's, instead of in a child.

    Yields:
        Events as they happen; `Done`, whose `report` tells everything, is the last.

    Raises:
        BitwrightError: the input is bad, or the run failed (its `Failed` event was the last).
    """
    spec = from_options(
        model, output, recipe=recipe, bits=bits, group_size=group_size, sym=sym, bits_map=bits_map, iters=iters,
        lr=lr, minmax_lr=minmax_lr, samples=samples, seqlen=seqlen, batch_size=batch_size, accumulate=accumulate,
        calibration=calibration, formats=formats, device=device, seed=seed, low_memory=low_memory, compile=compile,
        name=name,
    )  # fmt: skip
    preflight.check(spec)
    return run_job(spec, inline=inline)


def run_job(
    spec: JobSpec, *, inline: bool = False, should_stop: Asked = never, should_pause: Asked = never
) -> Iterator[Event]:
    """The events of a run of `spec`, from its start to Done; a job folder keeps its record.

    A request that turned out to be wrong before the first block leaves no job folder, a run without a result no
    output folder.

    Raises:
        BitwrightError: as the last event, `Failed`, says; `Cancelled` after a stop.
    """
    from core.jobs import child

    follow = child.follow_inline if inline else child.follow_child
    missing = missing_parents(Path(spec.output))
    job = store.create(spec)
    failed: Failed | None = None
    finished = False
    try:
        outcome = yield from follow(job, should_stop, should_pause)
        finished = outcome.state == "done"
        failed = outcome.event if isinstance(outcome.event, Failed) else None
    finally:
        if not finished:
            store.clean_up(job)
            remove_empty(missing)
    if failed is not None:
        if failed.before_tuning:
            store.discard(job)
        raise error_from(failed)


def inspect(
    model: PathLike,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    bits_map: BitsMap | PathLike | None = None,
    format: str = "auto_round",
    emit: Emit | None = None,
    should_stop: Asked = never,
) -> Inspection:
    """The layer tree of a model, from its config and headers alone, with the bits that each layer would get."""
    spec = from_options(
        model, "unused", bits=bits, group_size=group_size, sym=sym, bits_map=bits_map, formats=(format,)
    )
    preflight.check_model(spec.model)
    source = _open(spec.model, emit or _ignore, should_stop)
    tree = preflight.read_tree(source.folder)
    found = None if tree.refusal else plan_layers(tree, spec.bits_map, spec.formats)
    nothing = nothing_quantized(found) if found else None
    if nothing:
        tree, found = replace(tree, refusal=nothing[0]), None
    plans = () if found is None else tuple(found)
    size = None if tree.refusal else sizes.output_size(tree, plans, format)
    large = size.total if size else 0
    warning = sizes.larger_than_source(source.file_bytes or tree.nbytes, tree, large, format)
    unchecked = ""
    if size and tree.model_type not in FAMILIES:
        name = tree.architecture or tree.model_type or "this architecture"
        unchecked = f"Whether {name} can be run block by block is not checked here, but at the start of a run."
    return Inspection(
        source.label, source.origin, source.note, tree, plans, size, source.file_bytes, warning, unchecked
    )


def estimate(
    model: PathLike,
    *,
    throughput: float | None = None,
    emit: Emit | None = None,
    should_stop: Asked = never,
    **options: Any,
) -> costs.Costs:
    """Disk, memory and time of a run, as ranges; `options` are those of `quantize`.

    Args:
        throughput: FLOP/s of matrix products; None measures it on the device (a second, imports torch).
    """
    from core.inference import devices as machine

    spec = from_options(model, options.pop("output", "unused"), **options)
    preflight.check_model(spec.model)
    source = _open(spec.model, emit or _ignore, should_stop)
    tree = preflight.read_tree(source.folder)
    plans = plan_layers(tree, spec.bits_map, spec.formats)
    device, load = machine.choose(spec.device), 0.0
    if throughput is None:
        probe = machine.probe_dtype(device)
        throughput, load = probe.gflops[probe.dtype] * 1e9, probe.load
    found = costs.estimate(tree, plans, spec, throughput, on_device=device.kind != "cpu", load=load)
    total, first = sizes.output_size(tree, plans, spec.formats[0]).total, spec.formats[0]
    return replace(found, warning=sizes.larger_than_source(source.file_bytes or tree.nbytes, tree, total, first))


def evaluate(
    model: PathLike,
    *,
    text: PathLike | None = None,
    seqlen: int = 512,
    max_windows: int | None = None,
    against: PathLike | None = None,
    device: str = "auto",
    should_stop: Asked = never,
) -> Iterator[Event]:
    """Perplexity of a model on a text; the last event is a `Result`.

    Args:
        text: a text, jsonl or parquet file; None is a bundled text that no calibration uses.
        seqlen: tokens of a window; max_windows: use so many at most, spread over the text.
        against: the original model, for its perplexity and how far the predictions of `model` are from its own.

    Raises:
        BitwrightError: a model cannot be loaded, the text is no text or too short.
    """
    names = [absolute(name) for name in (model, against) if name is not None]
    for name in names:
        preflight.check_model(name)
    path = None if text is None else expanded(text).absolute()
    if path is not None:
        texts.check(str(path))

    def work(emit: Emit, stop: Asked) -> None:
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
            values["comparison"] = {**asdict(apart), "loss_increase": increase, "loss_increase_error": error}
        emit(Result(values))

    return stream(work, should_stop)


def convert(
    source: PathLike, target: PathLike, format: str, *, inexact: bool = False, should_stop: Asked = never
) -> Iterator[Event]:
    """Write a model in another format, a layer at a time and without a GPU; the last event is `Done`.

    Where the format holds every weight to the bit, it is written so; else the report says what error was added.

    Args:
        source: Hub id, folder, `.gguf` file, or `demo`; quantized or not.
        target: a folder to be made.
        format: one of the output formats, or bf16, f16 or f32 for floating-point numbers.
        inexact: weights may change.

    Raises:
        BitwrightError: the target is taken, the format cannot hold the source, or not exactly and `inexact` is off.
    """
    if format not in (*FORMATS, *PLAIN):
        raise BadInput(f"There is no output format {format!r}.", f"Choose from {', '.join((*FORMATS, *PLAIN))}.")
    name, goal = absolute(source), expanded(target).absolute()
    preflight.check_model(name)
    preflight.check_output(goal)

    def work(emit: Emit, stop: Asked) -> None:
        from core.conversion import convert as conversion

        conversion.convert(name, goal, format, emit, stop, inexact=inexact)

    return stream(work, should_stop)


def conversions(source: PathLike, *, emit: Emit | None = None, should_stop: Asked = never) -> dict[str, Any]:
    """What a model can become by `convert`: `source` says what it is, `rows` has a verdict for each format.

    Each row has a `format`, a `verdict` (exact, inexact or no), a `reason` ("" where there is nothing to say) and the
    `bytes` of its tensors. Decided from headers; a model on the Hub is fetched first.

    Raises:
        BitwrightError: there is no such model, or it cannot be read.
    """
    name = absolute(source)
    preflight.check_model(name)
    from core.conversion import convert as conversion

    return conversion.survey(name, emit or _ignore, should_stop)


def devices() -> tuple[Device, ...]:
    """The devices of this machine: which can be used, and why the others cannot."""
    from core.inference import devices as machine

    return machine.list_devices()


def backends(device: Device) -> tuple[BackendRow, ...]:
    """The ways to compute quantized layers on a device, the fastest first, and why some cannot be used there.

    Imports torch; compiles our kernels the first time.
    """
    from core.inference.backends import choose

    return choose.table(device)


def list_jobs() -> list[store.JobInfo]:
    """All jobs of this user, the newest first."""
    return store.list_jobs()


def missing_parents(path: Path) -> list[Path]:
    """The folders above `path` that do not exist, the deepest first."""
    missing = []
    for parent in path.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders, the deepest first, as far as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return  # somebody put something there, or it was never made


def _open(model: str, emit: Emit, should_stop: Asked) -> Source:
    from core.formats.opened import open_source

    source = open_source(model, emit, should_stop)
    if should_stop():
        raise Cancelled("Stopped.")
    return source


def _ignore(_event: Event) -> None:
    """For callers who do not want to know."""
