"""The devices of this machine and what can compute on each, as a table has them; plain values, no widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication

from core.wording import figure, human

if TYPE_CHECKING:
    from app.shared.draft import Machine
    from core.inference.backends.backend import BackendRow


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
        identity, usable = str(device.get("id", "")), bool(device.get("usable"))
        short = "CPU" if device.get("kind") == "cpu" else identity
        reason = "" if usable else str(device.get("reason") or _tr("it does not work."))
        speed = (machine.throughput or {}).get(identity, 0.0)
        found.append(
            DeviceSection(
                identity,
                f"{short}: {device.get('name', '')}",
                usable and identity == machine.chosen,
                reason,
                _facts(device, speed) if usable else (),
                tuple(machine.backends.get(identity, ())) if usable else (),
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


def _facts(device: Mapping[str, Any], speed: float) -> tuple[tuple[str, str], ...]:
    details: Mapping[str, Any] = device.get("details") or {}
    total, free = device.get("total_memory") or 0, device.get("free_memory") or 0
    cores = details.get("physical_cores") or 0
    sets = details.get("flags") or device.get("instruction_sets") or ()
    facts = (
        (_tr("Memory"), _tr("{free} of {total} free").format(free=human(free), total=human(total)) if total else ""),
        (_tr("Cores"), f"{cores}" if cores else ""),
        (_tr("Speed"), _tr("{} GFLOP/s").format(figure(speed / 1e9)) if speed else ""),
        (_tr("Driver"), str(device.get("driver") or details.get("driver") or "")),
        (_tr("Compute capability"), str(details.get("capability") or "")),
        (_tr("Instructions"), ", ".join(map(str, sets)) if not isinstance(sets, str) else sets),
        (_tr("Id"), str(device.get("stable_id") or device.get("id") or "")),
    )
    return tuple((name, value) for name, value in facts if value)
