"""Disk space and memory that a run needs, compared with what is free now.

Only `free_now`, `free_memory` and `disk_problem` look at the disk and the memory.
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
    """The amount of one resource that a run needs.

    Attributes:
        key: `disk`, `ram` or `device`.
        title: name for display.
        low, high: range of the need in bytes.
        free: bytes free now; None if unknown.
    """

    key: str
    title: str
    low: float
    high: float
    free: float | None

    @property
    def verdict(self) -> str:
        """`fits` in every case, `tight` within the range, `short` if even the low end exceeds what is free."""
        if self.free is None:
            return UNKNOWN
        if self.high <= self.free:
            return FITS
        return TIGHT if self.low <= self.free else SHORT

    @property
    def amounts(self) -> str:
        """The need and what is free: `0.55 to 1.5 GB of 21.3 GB free`."""
        needed = byte_range(self.low, self.high)
        if self.free is None:
            return needed
        return _tr("Budget", "{0} of {1} free").format(needed, human(self.free))


@dataclass(frozen=True)
class FreeBytes:
    """Bytes free now: on the volume of the output, in memory, and on the device; None if unknown."""

    disk: float | None
    ram: float | None
    device: float | None = None


def needs(costs: Costs, download: float, free: FreeBytes) -> tuple[ResourceNeed, ...]:
    """Return the needs of a run that first downloads `download` bytes; device memory only if the run uses any."""
    disk = _tr("Budget", "Disk, including download") if download else _tr("Budget", "Disk")
    found = [
        ResourceNeed("disk", disk, costs.disk.low + download, costs.disk.high + download, free.disk),
        ResourceNeed("ram", _tr("Budget", "Memory"), costs.ram.low, costs.ram.high, free.ram),
    ]
    if costs.device.high:
        title = _tr("Budget", "Device memory")
        found.append(ResourceNeed("device", title, costs.device.low, costs.device.high, free.device))
    return tuple(found)


def verdict_text(verdict: str) -> str:
    """Return the text beside a bar."""
    words = {
        FITS: _tr("Budget", "fits"),
        TIGHT: _tr("Budget", "tight"),
        SHORT: _tr("Budget", "does not fit"),
    }
    return words.get(verdict, "")


def advice(found: tuple[ResourceNeed, ...]) -> str:
    """Return a sentence about the most serious shortage; "" if there is none."""
    verdicts = {need.key: need.verdict for need in found}
    if verdicts.get("disk") == SHORT:
        return _tr("Budget", "Not enough disk space. Free some, or choose another output folder.")
    if SHORT in verdicts.values():
        return _tr(
            "Budget",
            "Not enough memory. You can still try. A memory limit (Recipe page) makes a run slower, but smaller.",
        )
    if TIGHT in verdicts.values():
        return _tr("Budget", "Memory or disk space may become tight. Close other programs to free memory.")
    return ""


def byte_range(low: float, high: float) -> str:
    """Return `0.55 to 1.5 GB`, or `1.5 GB` if both ends are displayed the same."""
    first, last = human(low), human(high)
    if first == last:
        return last
    number, _, unit = first.rpartition(" ")
    return _tr("Budget", "{0} to {1}").format(number if unit == last.rpartition(" ")[2] else first, last)


def free_now(draft: Draft) -> FreeBytes:
    """Return the bytes free now for the run of `draft`."""
    try:
        disk: float | None = free_bytes(draft.output)
    except OSError:  # the drive was disconnected
        disk = None
    return FreeBytes(disk, _free_ram(draft), _free_on_device(draft))


def free_memory(draft: Draft) -> float | None:
    """Return the bytes of memory free now on the device of `draft`; None if unknown."""
    return _free_ram(draft) if draft.device_id.startswith("cpu") else _free_on_device(draft)


def _free_ram(draft: Draft) -> float:
    import psutil  # not needed for the first paint

    ram = float(psutil.virtual_memory().available)
    cpu = draft.machine.device("cpu")
    # psutil ignores the memory limit of a container; the device's total respects it
    return min(ram, cpu.total_memory) if cpu is not None and cpu.total_memory else ram


def _free_on_device(draft: Draft) -> float | None:
    device = draft.machine.device(draft.device_id)
    return device.free_memory or None if device else None


def disk_problem(wanted: float, output: Path) -> str:
    """Return a short message if the volume of `output` has fewer than `wanted` bytes free; otherwise ""."""
    free = free_bytes(output)
    return f"Needs {human(wanted)} of disk space, {human(free)} free" if wanted > free else ""
