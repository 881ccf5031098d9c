"""Description of this machine: its devices, how fast they are, and what computes quantized layers on each.

Imports neither torch nor psutil; `core.inference.devices` finds the devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.inference.backends.backend import BackendRow


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        id: `cpu`, `cuda:0`, `xpu:0`: what `--device` takes, and torch.
        kind: `cpu`, `cuda` or `xpu`.
        name: what its maker calls it.
        total_memory, free_memory: bytes; of the host for the CPU, within the limit of a container.
        usable: whether a run can use it.
        reason: why not, as one sentence; empty where usable.
        details: instruction sets, cores and the like, for people.
        stable_id: `cpu`, or a name that stays a card's own when another one is put in: its UUID or its place on the
            bus. `--device` takes it as well.
        driver: its version, or "".
    """

    id: str
    kind: str
    name: str
    total_memory: int
    free_memory: int
    usable: bool = True
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    stable_id: str = ""
    driver: str = ""


@dataclass(frozen=True)
class Machine:
    """Devices of this machine and measurements of them, by device id; empty until they are measured.

    Attributes:
        devices: usable ones and others.
        throughput: FLOP/s of matrix products; None before a measurement.
        chosen: id of the device that `auto` selects.
        backends: the backends of each usable device.
        load: share of the CPU that other programs used during the measurement, 0 to 1.
        dtype: number format that a usable device computes in.
    """

    devices: tuple[Device, ...] = ()
    throughput: dict[str, float] | None = None
    chosen: str = ""
    backends: dict[str, tuple[BackendRow, ...]] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    dtype: dict[str, str] = field(default_factory=dict)

    def device(self, identity: str) -> Device | None:
        """Return the device with this id or stable id; None if there is none."""
        return next((device for device in self.devices if identity in (device.id, device.stable_id)), None)
