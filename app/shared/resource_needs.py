"""What a run needs held against what this machine has free now, and the plain word for it.

Pure but for `free_now`, `free_memory` and `disk_problem`, which look at disk and memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from core.estimation.costs import Costs
from core.files import free_bytes
from core.wording import human

if TYPE_CHECKING:
    from app.shared.draft import Draft

FITS, TIGHT, SHORT, UNKNOWN = "fits", "tight", "short", "unknown"

_tr = QCoreApplication.translate


@dataclass(frozen=True)
class ResourceNeed:
    """One thing that a run uses up.

    Attributes:
        key: `disk`, `ram` or `device`.
        title: for people.
        low, high: bytes.
        free: bytes free now; None where that is not known.
    """

    key: str
    title: str
    low: float
    high: float
    free: float | None

    @property
    def verdict(self) -> str:
        """`fits` whatever happens, `tight` where it depends, `short` where not even the low end fits."""
        if self.free is None:
            return UNKNOWN
        if self.high <= self.free:
            return FITS
        return TIGHT if self.low <= self.free else SHORT

    @property
    def amounts(self) -> str:
        """`0.55 to 1.5 GB of 21.3 GB free`."""
        needed = byte_range(self.low, self.high)
        if self.free is None:
            return needed
        return _tr("Budget", "{0} of {1} free").format(needed, human(self.free))


@dataclass(frozen=True)
class FreeBytes:
    """Bytes free now: on the volume of the output, in memory, and on the device (None: not known)."""

    disk: float | None
    ram: float | None
    device: float | None = None


def needs(costs: Costs, download: float, free: FreeBytes) -> tuple[ResourceNeed, ...]:
    """The needs of a run that first fetches `download` bytes; the device's memory only where the run uses one."""
    disk = _tr("Budget", "Disk, with the download") if download else _tr("Budget", "Disk")
    found = [
        ResourceNeed("disk", disk, costs.disk.low + download, costs.disk.high + download, free.disk),
        ResourceNeed("ram", _tr("Budget", "Memory"), costs.ram.low, costs.ram.high, free.ram),
    ]
    if costs.device.high:
        title = _tr("Budget", "Device memory")
        found.append(ResourceNeed("device", title, costs.device.low, costs.device.high, free.device))
    return tuple(found)


def verdict_text(verdict: str) -> str:
    """The word beside a bar."""
    words = {
        FITS: _tr("Budget", "fits"),
        TIGHT: _tr("Budget", "tight"),
        SHORT: _tr("Budget", "does not fit"),
    }
    return words.get(verdict, "")


def advice(found: tuple[ResourceNeed, ...]) -> str:
    """One sentence about the worst of them; "" where there is nothing to worry about."""
    verdicts = {need.key: need.verdict for need in found}
    if verdicts.get("disk") == SHORT:
        return _tr("Budget", "There is too little room on the disk. Free some, or choose another output folder.")
    if SHORT in verdicts.values():
        return _tr(
            "Budget",
            "It does not fit; you can try all the same. Low memory mode, on the Recipe page, needs less.",
        )
    if TIGHT in verdicts.values():
        return _tr("Budget", "It may become tight. Closing other programs helps.")
    return ""


def byte_range(low: float, high: float) -> str:
    """`0.55 to 1.5 GB`, `1.5 GB` where both ends read the same."""
    first, last = human(low), human(high)
    if first == last:
        return last
    number, _, unit = first.rpartition(" ")
    return _tr("Budget", "{0} to {1}").format(number if unit == last.rpartition(" ")[2] else first, last)


def free_now(draft: Draft) -> FreeBytes:
    """What is free at this moment for the run that `draft` describes."""
    try:
        disk: float | None = free_bytes(draft.output)
    except OSError:  # a drive that went away
        disk = None
    return FreeBytes(disk, _free_ram(draft), _free_on_device(draft))


def free_memory(draft: Draft) -> float | None:
    """Bytes free now where the device of `draft` computes: its own, or this machine's; None where that is not known."""
    return _free_ram(draft) if draft.device_id.startswith("cpu") else _free_on_device(draft)


def _free_ram(draft: Draft) -> float:
    import psutil  # not needed for the first paint

    ram = float(psutil.virtual_memory().available)
    cpu = draft.machine.device("cpu")
    # the device knows the limit of a container, psutil does not
    return min(ram, cpu.total_memory) if cpu is not None and cpu.total_memory else ram


def _free_on_device(draft: Draft) -> float | None:
    device = draft.machine.device(draft.device_id)
    return device.free_memory or None if device else None


def disk_problem(wanted: float, output: Path) -> str:
    """Why the volume of `output` cannot take so many bytes now, in short; "" where it can."""
    free = free_bytes(output)
    return f"Needs {human(wanted)} of disk, {human(free)} free" if wanted > free else ""
