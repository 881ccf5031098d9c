"""Conversion of a model from one format to another, one layer at a time: read, regrid, write, read back and compare.

A conversion that is not exact is rejected before the output folder is created, unless errors are allowed; they are then
measured and reported.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from core.control import ShouldStop
from core.conversion.added_error import AddedError, Difference, of_layers, of_tensors
from core.conversion.conversions import (
    Conversion,
    Subject,
    conversions,
    is_unpacked,
    kind_of,
    look_at,
    plan_subject,
    unpacking_error,
)
from core.conversion.regrid import regrid
from core.conversion.staging import ConversionStaging, sweep
from core.conversion.survey import ConversionSurvey, SourceSummary
from core.errors import BadInput, BitwrightError, Cancelled, CorruptFile, VerificationFailed
from core.estimation.preflight import check_free
from core.events import Done, Emit, FileWritten, Log, Progress, Stage
from core.files import read_json, write_atomic, write_json
from core.formats.dense_store import DenseStore
from core.formats.names import is_gguf
from core.formats.opened import open_source
from core.formats.plain import PlainLinear
from core.formats.side_files import carry_over, foreign_links
from core.formats.stored import FormatWriter, StoredLayer, digest, layer_labels
from core.hub.source import ModelSource
from core.model.folder import only_gguf
from core.model.parts import parts_of
from core.model.tree import TOWER, Linear
from core.model.weights import TensorStore, read_linear
from core.report.model_card import CARD, conversion_card
from core.report.verdict import VERSION
from core.staging import UNFINISHED

REPORT = "bitwright.json"
_TYPE: Final = re.compile(r"[-_.](?:I?Q\d\w*|B?F16|F32)\Z", re.IGNORECASE)
SPARE: Final = 32 << 20
"""Disk space in bytes for tokenizers and other side files."""


@dataclass
class _Work:
    """The state of a running conversion.

    Attributes:
        emit, should_stop: callbacks of the caller.
        steps: number of steps for `Progress`.
        started: time of `time.monotonic`.
        done: number of completed steps.
        error: added error of the layers so far.
        digests: layer -> digest of the data passed to the writer.
        regridded: number of layers whose integers or scales differ from the source, with equal weights or not.
    """

    emit: Emit
    should_stop: ShouldStop
    steps: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    error: AddedError = field(default_factory=AddedError)
    digests: dict[str, str] = field(default_factory=dict)
    regridded: int = 0

    def step(self) -> None:
        """Complete a step and emit `Progress`, with the remaining time extrapolated from the steps so far."""
        self.done += 1
        left = (time.monotonic() - self.started) * (self.steps - self.done) / self.done
        self.emit(Progress(min(1.0, self.done / self.steps), 0.7 * left, 1.5 * left))

    def check(self) -> None:
        """Raise Cancelled if the conversion was stopped."""
        if self.should_stop():
            raise Cancelled("The conversion was stopped.")


def convert(
    model: str,
    target: Path,
    format_name: str,
    emit: Emit,
    should_stop: ShouldStop,
    *,
    inexact: bool = False,
) -> None:
    """Write `model` to the new folder `target` as `format_name`; the last event is `Done`.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`.
        target: does not exist, or is an empty folder.
        format_name: one of `core.formats.names.FORMATS` or `PLAIN`.
        emit: receives the events of the conversion.
        should_stop: called before each layer.
        inexact: allow changes of weights, which are then reported.

    Raises:
        BadInput: the format cannot store the source, or only inexactly and `inexact` is false.
        BitwrightError: the source cannot be read, or the target cannot be written.
        VerificationFailed: the written files differ from the data passed to the writer.
        Cancelled: `should_stop` returned true.
    """
    started = time.monotonic()
    emit(Stage("prepare"))
    source, subject = _open(model, emit, should_stop)
    conversion = plan_subject(subject, format_name)
    if not conversion.exact and not inexact:
        raise BadInput(f"{format_name} cannot store {subject.label} exactly: {conversion.cost}", conversion.hint)
    check_free(target, conversion.plan.nbytes + SPARE)
    for name in foreign_links(subject.checkpoint.folder):
        emit(Log("warning", f"{name} is not copied to the output: it links to a file outside the model."))
    work = _Work(emit, should_stop, 2 * (len(conversion.plan.layers) + 1))
    emit(Stage("convert"))
    with ConversionStaging(target) as staging:
        _write(subject, conversion, staging.folder, work)
        own = _own_folder(source)
        if own is not None:
            carry_over(own, staging.folder, legal_only=True)
        emit(Stage("verify"))
        _compare(subject, conversion, staging.folder, work)
        with staging.kept_on_failure("the finished result"):
            files = _files(staging.folder)
            report = _report(subject, conversion, source, files, work, time.monotonic() - started)
            staging.drop_ballast()
            write_json(staging.folder / REPORT, report)
            card = conversion_card(report, target.name, subject.checkpoint.folder)
            write_atomic(staging.folder / CARD, card.encode("utf-8", "replace"))
        staging.publish()
    for path, size in files.items():
        emit(FileWritten(path, size))
    emit(Done(output=str(target), seconds=time.monotonic() - started, report=report))


def survey(model: str, emit: Emit, should_stop: ShouldStop) -> ConversionSurvey:
    """Describe `model` and the formats that it can be converted to, from headers alone.

    Raises:
        BitwrightError: the model cannot be read.
    """
    sweep()
    source, subject = _open(model, emit, should_stop)
    summary = SourceSummary(
        label=source.label,
        origin=source.origin,
        path=str(source.place),
        kind=kind_of(subject.checkpoint),
        layers=dict(_labels(subject)),
        linears=sum(linear.block != TOWER for linear in subject.tree.linears),
        nbytes=_stored_bytes(source),
        unpacked=is_unpacked(subject.checkpoint),
    )
    return ConversionSurvey(summary, tuple(conversions(subject)))


def _open(model: str, emit: Emit, should_stop: ShouldStop) -> tuple[ModelSource, Subject]:
    # imported here, since reading GGUF files imports transformers
    from core.formats.opened import open_checkpoint

    source = open_source(model, emit, should_stop, measured=True, imported=False)
    return source, look_at(open_checkpoint(source.place, should_stop), _title(source))


def _title(source: ModelSource) -> str:
    """Return the name of the model for the metadata of the output: a GGUF file name without suffix and type."""
    return source.label if source.file is None else _TYPE.sub("", re.sub(r"(?i)\.gguf\Z", "", source.label))


def _write(subject: Subject, conversion: Conversion, folder: Path, work: _Work) -> None:
    plan = conversion.plan
    writer: FormatWriter | None = None
    linears = {linear.name: linear for linear in subject.tree.linears}
    try:
        writer = plan.writer(folder)
        writer.begin(subject.checkpoint.folder)
        for name in plan.layers:
            work.check()
            before = read_layer(subject, linears[name])
            after = _stored(conversion, before)
            found = _difference(before, after, conversion)
            _judge(name, found, conversion)
            work.error.add(name, found)
            work.regridded += after is not before
            work.digests[name] = digest(after)
            writer.write(after)
            work.step()
        writer.finish(_store(subject, conversion), work.should_stop)
        work.step()
    except ValueError as error:
        raise BadInput(f"{plan.name} cannot store the source: {error}.", "Choose another format.") from error
    finally:
        if writer is not None:
            writer.abort()


def read_layer(subject: Subject, linear: Linear) -> StoredLayer:
    """Read a linear layer of a source: quantized, or as floating-point numbers if it is not quantized there."""
    if linear.name in subject.schemes:
        return subject.checkpoint.layer(linear.name)
    return PlainLinear(linear.name, read_linear(subject.checkpoint.store, subject.tree, linear))


def _stored(conversion: Conversion, before: StoredLayer) -> StoredLayer:
    plan = conversion.plan
    if conversion.is_plain:
        return plan.stored(before)
    planned = plan.layers[before.name].scheme
    return plan.stored(regrid(before, planned, plan.min_zero, contiguous_groups=is_gguf(plan.name)))


def _difference(before: StoredLayer, after: StoredLayer, conversion: Conversion) -> Difference:
    """Return the difference of the weights; the sums are skipped if the layer is unchanged and none are needed."""
    if after is before and conversion.exact and all(_finite(part) for part in before.parts()):
        return Difference()
    return of_layers(before, after)


def _finite(part: Tensor) -> bool:
    return not part.is_floating_point() or bool(torch.isfinite(part).all())


def _judge(name: str, found: Difference, conversion: Conversion) -> None:
    if found.largest != found.largest or found.largest == float("inf"):
        raise CorruptFile(f"{name} contains values that are not finite.", "Download the model again.")
    if conversion.exact and not found.exact:
        raise VerificationFailed(f"{name} would change by up to {found.largest:.3g}.", "Please report this.")


def _compare(subject: Subject, conversion: Conversion, folder: Path, work: _Work) -> None:
    """Read the output and compare layers with the data passed to the writer, and other tensors with the source."""
    plan, store = conversion.plan, _store(subject, conversion)
    written = plan.open(folder)
    if set(written.schemes) != set(plan.layers):
        raise VerificationFailed("The layers of the output are not those that were written.", "Please report this.")
    for name, expected in work.digests.items():
        work.check()
        if digest(written.layer(name)) != expected:
            raise VerificationFailed(f"{name} differs from the written data when read back.", "Please report this.")
        work.step()
    plan.check_rest(written, store, work.should_stop)
    if not conversion.exact:
        for name in plan.copied:
            work.check()
            if name in written.store and store.dtype(name).is_floating_point:
                work.error.add(name, of_tensors(name, store, written.store))
    work.step()


def _report(
    subject: Subject, conversion: Conversion, source: ModelSource, files: dict[str, int], work: _Work, seconds: float
) -> dict[str, Any]:
    """Return the report for `bitwright.json` and the `Done` event.

    `exact` is the measured result: an inexact conversion may leave all weights unchanged. Errors do not include the
    rounding of quantized weights that were unpacked to 16 bits, which make the result inexact.
    """
    plan = conversion.plan
    exact = work.error.total.exact and not unpacking_error(subject.checkpoint)
    return {
        "version": VERSION,
        "kind": "conversion",
        "model": source.label,
        "origin": source.origin,
        "source_kind": kind_of(subject.checkpoint),
        "source_layer_schemes": _labels(subject),
        "source_bytes": _stored_bytes(source),
        "format": plan.name,
        "exact": exact,
        "reason": "" if exact else conversion.cost,
        "error": None if exact else work.error.to_json(),
        "layers": len(plan.layers),
        "layer_schemes": {plan.name: layer_labels(plan)},
        "requantized_layers": work.regridded,
        "dense_layers": list(conversion.dense),
        "notes": list(conversion.notes),
        "verification": {
            "layers": len(work.digests),
            "other_tensors": len(plan.copied) - len(plan.rounded),
            "rounded": dict(plan.rounded),
        },
        "files": files,
        "output_bytes": sum(size for path, size in files.items() if path.endswith((".safetensors", ".gguf"))),
        "seconds": seconds,
        "source_report": _source_report(source),
    }


def _source_report(source: ModelSource) -> Any:
    """Return Bitwright's report in the source, if there is one."""
    folder = _own_folder(source)
    try:
        value = read_json(folder / REPORT) if folder is not None else None
    except BitwrightError:
        return None
    return value if isinstance(value, dict) else None


def _own_folder(source: ModelSource) -> Path | None:
    """Return the folder of the source; None for a GGUF file in a folder with other models."""
    if source.file is None or only_gguf(source.folder) == source.file:
        return source.folder
    return None


def _labels(subject: Subject) -> dict[str, int]:
    """Return the number of linear layers of the source by scheme."""
    return dict(Counter(scheme.label() for scheme in subject.schemes.values()).most_common())


def _stored_bytes(source: ModelSource) -> int:
    """Return the size of the weight files of the source in bytes."""
    if source.file is not None:
        return sum(part.stat().st_size for part in parts_of(source.file))
    return sum(path.stat().st_size for path in source.folder.glob("*.safetensors"))


def _files(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != UNFINISHED
    }


def _store(subject: Subject, conversion: Conversion) -> TensorStore:
    if conversion.joined is not None:
        return conversion.joined
    return DenseStore(subject.checkpoint, conversion.dense) if conversion.dense else subject.checkpoint.store
