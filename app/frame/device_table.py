"""The devices of this machine and their backends, as rows for display. Plain values, no widgets."""

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
    """A device.

    Attributes:
        id: value of `--device`; title: name for display; chosen: `auto` selects it.
        reason: the reason why it cannot be used, "" if it can.
        facts: pairs of name and value.
        rows: its backends, the fastest first.
    """

    id: str
    title: str
    chosen: bool
    reason: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[BackendRow, ...]


def sections_of(machine: Machine) -> tuple[DeviceSection, ...]:
    """Return all devices, usable ones first."""
    found = []
    for device in machine.devices:
        short = "CPU" if device.kind == "cpu" else device.id
        speed = (machine.throughput or {}).get(device.id, 0.0)
        found.append(
            DeviceSection(
                device.id,
                f"{short}: {device.name}",
                device.usable and device.id == machine.chosen,
                "" if device.usable else device.reason or _tr("the device does not work."),
                _facts(device, speed) if device.usable else (),
                machine.backends.get(device.id, ()) if device.usable else (),
            )
        )
    return tuple(sorted(found, key=lambda section: bool(section.reason)))


def said_of(row: BackendRow) -> tuple[str, str]:
    """Return the status text of a backend and its color role."""
    if row.usable:
        return row.why_not or _tr("Available"), "good" if not row.why_not else "muted"
    return row.why_not or _tr("Not available"), "muted"


def as_text(sections: Sequence[DeviceSection]) -> str:
    """Return the whole table as plain text, for a bug report."""
    lines: list[str] = []
    for section in sections:
        lines += [section.title, *([f"  Cannot be used: {section.reason}"] if section.reason else [])]
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
