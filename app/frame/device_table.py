"""The devices of this machine and what can compute on each, as a table has them; plain values, no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from core.wording import figure, human

if TYPE_CHECKING:
    from core.inference.backends.backend import BackendRow
    from core.inference.machine import Device, Machine


def _tr(text: str) -> str:
    return QCoreApplication.translate("DeviceTable", text)


@dataclass(frozen=True)
class DeviceSection:
    """One device.

    Attributes:
        id: what `--device` takes; title: what people call it; chosen: whether `auto` means it.
        reason: why it cannot be used, "" where it can.
        facts: pairs of name and value.
        rows: what computes layers on it, the fastest first.
    """

    id: str
    title: str
    chosen: bool
    reason: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[BackendRow, ...]


def sections_of(machine: Machine) -> tuple[DeviceSection, ...]:
    """All devices, those that work before those that do not."""
    found = []
    for device in machine.devices:
        short = "CPU" if device.kind == "cpu" else device.id
        speed = (machine.throughput or {}).get(device.id, 0.0)
        found.append(
            DeviceSection(
                device.id,
                f"{short}: {device.name}",
                device.usable and device.id == machine.chosen,
                "" if device.usable else device.reason or _tr("it does not work."),
                _facts(device, speed) if device.usable else (),
                machine.backends.get(device.id, ()) if device.usable else (),
            )
        )
    return tuple(sorted(found, key=lambda section: bool(section.reason)))


def said_of(row: BackendRow) -> tuple[str, str]:
    """What stands beside a backend, and the colour of it: that it works, or why it does not."""
    if row.usable:
        return row.why_not or _tr("Works here"), "good" if not row.why_not else "muted"
    return row.why_not or _tr("Not here"), "muted"


def as_text(sections: Sequence[DeviceSection]) -> str:
    """The whole table as lines, to be sent to somebody."""
    lines: list[str] = []
    for section in sections:
        lines += [section.title, *([f"  cannot be used: {section.reason}"] if section.reason else [])]
        lines += [f"  {name}: {value}" for name, value in section.facts]
        for row in section.rows:
            lines.append(f"  {row.name}: {said_of(row)[0]}")
            lines += [f"    takes {row.takes}"] if row.takes else []
            lines += [f"    {row.install}"] if row.install else []
        lines.append("")
    return "\n".join(lines)


def _facts(device: Device, speed: float) -> tuple[tuple[str, str], ...]:
    details = device.details
    total, free = device.total_memory, device.free_memory
    cores = details.get("physical_cores")
    sets = details.get("flags", ())
    facts = (
        (_tr("Memory"), _tr("{free} of {total} free").format(free=human(free), total=human(total)) if total else ""),
        (_tr("Cores"), f"{cores}" if cores else ""),
        (_tr("Speed"), _tr("{} GFLOP/s").format(figure(speed / 1e9)) if speed else ""),
        (_tr("Driver"), device.driver),
        (_tr("Compute capability"), str(details.get("capability") or "")),
        (_tr("Instructions"), ", ".join(map(str, sets))),
        (_tr("Id"), device.stable_id or device.id),
    )
    return tuple((name, value) for name, value in facts if value)
