"""Values of the job bar: the job in one line, and the action of the main button.

Pure functions of the choices and the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from core.model.towers import TITLES
from core.wording import human, time_range

if TYPE_CHECKING:
    from app.shared.draft import Draft
    from app.shared.run.record import RunRecord
    from core.inference.machine import Machine
    from core.model.tree import ModelTree
    from core.spec import JobSpec

ARROW = "\N{RIGHTWARDS ARROW}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Fact:
    """A value of the job bar, with its tooltip."""

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
    """The main button.

    Attributes:
        text: its label.
        action: `start`, `pause`, `resume` or `chat`; "" if it is disabled.
        reason: the reason why it is disabled, shown beside it.
        can_cancel: the Cancel button is shown.
        fraction: progress of the run, None if no run is active.
        remaining: remaining time of the run as text.
    """

    text: str = "Quantize"
    action: str = ""
    reason: str = ""
    can_cancel: bool = False
    fraction: float | None = None
    remaining: str = ""


def facts_of(draft: Draft) -> Facts:
    """Return the values for the current choices."""
    model, size = draft.model, draft.size
    device = _device(draft.machine, draft.device_id)
    if model is None:
        return Facts(device=device)
    name = Fact(model.label, model.name)
    if size is None:
        return Facts(name, Fact(human(model.source_bytes), f"{model.source_bytes:,} bytes"), device=device)
    return Facts(
        name,
        Fact(
            f"{human(model.source_bytes)} {ARROW} {human(size.total)}",
            f"{model.source_bytes:,} bytes before, {size.total:,} bytes after quantization, in the first format"
            + _copied(model.tree),
        ),
        Fact(
            f"{size.effective_bits:.2f}" if size.weights else NOTHING,
            "Average bits per quantized weight on disk, including scales",
        ),
        device,
    )


def _copied(tree: ModelTree) -> str:
    """Return a line about the parts of a multimodal model besides its language model; "" for other models."""
    if not tree.towers:
        return ""
    parts = ", ".join(dict.fromkeys(TITLES[tower.kind] for tower in tree.towers))
    size = human(sum(tower.nbytes for tower in tree.towers))
    return f"\nBesides the language model: {parts}, {size} before quantization. GGUF files leave them out."


def facts_of_run(record: RunRecord, machine: Machine) -> Facts:
    """Return the values for a run that was not started from this window's choices."""
    spec, started = record.spec, record.started
    if spec is None:
        return Facts(Fact(started.model if started is not None else NOTHING))
    scheme = spec.bits_map.default
    bits = f"{scheme.bits}, mixed" if spec.bits_map.rules or spec.bits_map.layers else str(scheme.bits)
    name = "SmolLM2-135M-Instruct (demo)" if spec.model == "demo" else PurePath(spec.model).name
    return Facts(
        Fact(name, spec.model),
        _size_of_run(record, spec),
        Fact(bits, "Bits per quantized weight, without scales"),
        _device(machine, started.device) if started is not None else _device_to_come(machine, spec),
    )


def primary_of(record: RunRecord | None, active: bool, problem: str, finished: bool) -> Primary:
    """Return the state of the main button.

    Args:
        record: the run that is shown, if any.
        active: the run has not ended.
        problem: the first reason why the choices cannot be run, or "".
        finished: a run has just succeeded and no choice was changed since.
    """
    if record is not None and active:
        return _of_run(record)
    if finished:
        return Primary("Chat with model", "chat")
    return Primary(action="" if problem else "start", reason=problem)


def stage_of(record: RunRecord | None, active: bool) -> str:
    """Return the current activity of a run for the status line; "" if none is active."""
    if record is None or not active:
        return ""
    if record.state == "paused":
        return "Paused"
    stage = _STAGES.get(record.stage, "Starting")
    if record.stage == "tune" and record.total:
        stage = f"Tuning block {min(record.block + 1, record.total)} of {record.total}"
    step = record.end_to_end
    if record.stage == "end to end" and step is not None:
        stage = f"{stage}: step {step.step:,} of {step.steps:,}"
    left = _remaining(record)
    return f"{stage}, {left}" if left else stage


_STAGES = {
    "prepare": "Preparing",
    "calibrate": "Reading the calibration text",
    "tune": "Tuning",
    "end to end": "End-to-end stage",
    "write": "Writing the files",
    "verify": "Checking the written files",
}


def _of_run(record: RunRecord) -> Primary:
    fraction = min(1.0, max(0.0, record.fraction))
    remaining = _remaining(record)
    if record.state == "stopping":
        return Primary("Pause", fraction=fraction, remaining="stopping")
    if record.state == "paused":
        return Primary("Resume", "resume", can_cancel=True, fraction=fraction, remaining="paused")
    if record.state == "pausing":
        text = "The run will pause after the current block."
        return Primary("Resume", "resume", text, can_cancel=True, fraction=fraction, remaining="pausing")
    if not record.can_pause:
        text = "All blocks are tuned. The run can no longer be paused."
        return Primary("Pause", "", text, can_cancel=True, fraction=fraction, remaining=remaining)
    return Primary("Pause", "pause", can_cancel=True, fraction=fraction, remaining=remaining)


def _remaining(record: RunRecord) -> str:
    if record.state == "paused" or record.seconds_low < 0 or record.seconds_high <= 0:
        return ""
    return f"{time_range(record.seconds_low, record.seconds_high)} left"


def _size_of_run(record: RunRecord, spec: JobSpec) -> Fact:
    """Return the size before and after quantization in the first format, as reported by the run."""
    before, after = record.source_bytes, record.planned.get(spec.formats[0])
    if not before or after is None:
        return Fact(NOTHING, spec.output)
    more = f"{before:,} bytes before, {after:,} bytes after quantization, in the first format, in {spec.output}"
    return Fact(f"{human(before)} {ARROW} {human(after)}", more)


def _device_to_come(machine: Machine, spec: JobSpec) -> Fact:
    """Return the device of a run that has not reported it yet."""
    wanted = machine.chosen if spec.device == "auto" else spec.device
    return _device(machine, wanted) if wanted else Fact("auto", "The device is chosen when the run starts")


def _device(machine: Machine, identity: str) -> Fact:
    found = machine.device(identity)
    if found is None:
        return Fact(identity.upper(), "Not measured yet")
    if found.kind != "cpu":
        return Fact(found.name or identity.upper(), f"{identity}, {human(found.total_memory)}")
    cores = found.details.get("physical_cores")
    text = f"CPU, {cores} {'core' if cores == 1 else 'cores'}" if cores else "CPU"
    return Fact(text, found.name)
