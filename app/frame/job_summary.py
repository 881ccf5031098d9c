"""The job in one line, and what the one coloured button does: from choices and run to what the job bar shows.

Pure functions; knows no widget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from core.wording import human, time_range

if TYPE_CHECKING:
    from app.shared.draft import Draft
    from app.shared.run.record import RunRecord
    from core.inference.machine import Machine
    from core.spec import JobSpec

ARROW = "\N{RIGHTWARDS ARROW}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Fact:
    """One figure of the job bar: what it says, and the longer story in the tooltip."""

    text: str = NOTHING
    more: str = ""


@dataclass(frozen=True)
class Facts:
    """The job in one line."""

    model: Fact = Fact()
    size: Fact = Fact()
    bits: Fact = Fact()
    device: Fact = Fact()


@dataclass(frozen=True)
class Primary:
    """The one coloured button.

    Attributes:
        text: what it says.
        action: `start`, `pause`, `resume` or `chat`; "" while it can do nothing.
        reason: why it can do nothing, as text beside it.
        can_cancel: whether Cancel stands beside it.
        fraction: share of the run that is done, None where no run is on.
        remaining: how long the run will take still, in words.
    """

    text: str = "Quantize"
    action: str = ""
    reason: str = ""
    can_cancel: bool = False
    fraction: float | None = None
    remaining: str = ""


def facts_of(draft: Draft) -> Facts:
    """What the choices so far amount to."""
    model, size = draft.model, draft.size
    device = _device(draft.machine, draft.device_id)
    if model is None:
        return Facts(device=device)
    name = Fact(model.label, model.name)
    if size is None:
        source = sum(tensor.nbytes for tensor in model.tree.tensors.values())
        return Facts(name, Fact(human(source), f"{source:,} bytes"), device=device)
    return Facts(
        name,
        Fact(
            f"{human(size.source)} {ARROW} {human(size.total)}",
            f"{size.source:,} bytes now, {size.total:,} bytes after, in the first format",
        ),
        Fact(
            f"{size.effective_bits:.2f}" if size.weights else NOTHING,
            "Bits that each quantized weight costs on disk, with its share of the scales",
        ),
        device,
    )


def facts_of_run(record: RunRecord, machine: Machine) -> Facts:
    """What is known of a run that was not made of this window's choices: its spec, and what it told at its start."""
    spec, started = record.spec, record.started
    if spec is None:
        return Facts(Fact(started.model if started is not None else NOTHING))
    scheme = spec.bits_map.default
    bits = f"{scheme.bits}, mixed" if spec.bits_map.rules or spec.bits_map.layers else str(scheme.bits)
    name = "SmolLM2-135M-Instruct (demo)" if spec.model == "demo" else PurePath(spec.model).name
    return Facts(
        Fact(name, spec.model),
        _size_of_run(record, spec),
        Fact(bits, "Bits of each quantized weight, without the scales"),
        _device(machine, started.device) if started is not None else _device_to_come(machine, spec),
    )


def primary_of(record: RunRecord | None, active: bool, problem: str, finished: bool) -> Primary:
    """What the coloured button does now.

    Args:
        record: the run that is shown, if any.
        active: whether it is still on.
        problem: the first reason why the choices cannot run, or "".
        finished: a run has just succeeded and no choice was changed since.
    """
    if record is not None and active:
        return _of_run(record)
    if finished:
        return Primary("Chat with it", "chat")
    return Primary(action="" if problem else "start", reason=problem)


def stage_of(record: RunRecord | None, active: bool) -> str:
    """What a run does at this moment, as the status line says it; "" where none is on."""
    if record is None or not active:
        return ""
    if record.state == "paused":
        return "Paused; resume it when you like"
    stage = _STAGES.get(record.stage, "Starting")
    if record.stage == "tune" and record.total:
        stage = f"Tuning block {min(record.block + 1, record.total)} of {record.total}"
    left = _remaining(record)
    return f"{stage}, {left}" if left else stage


_STAGES = {
    "prepare": "Preparing",
    "calibrate": "Reading the calibration text",
    "tune": "Tuning",
    "write": "Writing the files",
    "verify": "Checking what was written",
}


def _of_run(record: RunRecord) -> Primary:
    fraction = min(1.0, max(0.0, record.fraction))
    remaining = _remaining(record)
    if record.state == "stopping":
        return Primary("Pause", fraction=fraction, remaining="stopping")
    if record.state == "paused":
        return Primary("Resume", "resume", can_cancel=True, fraction=fraction, remaining="paused")
    if record.state == "pausing":
        text = "The run pauses when the block that it works on is done."
        return Primary("Resume", "resume", text, can_cancel=True, fraction=fraction, remaining="pausing")
    if not record.can_pause:
        text = "Nothing can be paused any more: the last block is done."
        return Primary("Pause", "", text, can_cancel=True, fraction=fraction, remaining=remaining)
    return Primary("Pause", "pause", can_cancel=True, fraction=fraction, remaining=remaining)


def _remaining(record: RunRecord) -> str:
    if record.state == "paused" or record.seconds_low < 0 or record.seconds_high <= 0:
        return ""
    return f"{time_range(record.seconds_low, record.seconds_high)} left"


def _size_of_run(record: RunRecord, spec: JobSpec) -> Fact:
    """Its size before and after in the first format, as the run itself reckoned."""
    before, after = record.source_bytes, record.planned.get(spec.formats[0])
    if not before or after is None:
        return Fact(NOTHING, spec.output)
    more = f"{before:,} bytes now, {after:,} bytes after, in the first format, to {spec.output}"
    return Fact(f"{human(before)} {ARROW} {human(after)}", more)


def _device_to_come(machine: Machine, spec: JobSpec) -> Fact:
    """What a run that has not told its device yet will use."""
    wanted = machine.chosen if spec.device == "auto" else spec.device
    return _device(machine, wanted) if wanted else Fact("auto", "The run picks the device when it starts")


def _device(machine: Machine, identity: str) -> Fact:
    found = machine.device(identity)
    if found is None:
        return Fact(identity.upper(), "Not measured yet")
    if found.kind != "cpu":
        return Fact(found.name or identity.upper(), f"{identity}, {human(found.total_memory)}")
    cores = found.details.get("physical_cores")
    text = f"CPU, {cores} {'core' if cores == 1 else 'cores'}" if cores else "CPU"
    return Fact(text, found.name)
