"""Description of this machine: its devices, how fast they are, and what computes quantized layers on each.

Imports neither torch nor psutil; `core.inference.devices` finds the devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.inference.backends.backend import BackendRow


@dataclass(frozen=True)
class Device:
    """A compute device.

    Attributes:
        id: torch's device string, such as `cpu`, `cuda:0` or `xpu:0`; accepted by `--device`.
        kind: `cpu`, `cuda` or `xpu`.
        name: product name.
        total_memory, free_memory: bytes; for the CPU of the host, or of the container if its limit is lower.
        usable: whether torch can compute on the device.
        reason: the reason why the device is not usable, as one sentence; empty if it is.
        details: instruction sets, number of cores and similar facts, for display.
        stable_id: `cpu`, or an identifier that does not change when cards are added: the UUID or the PCI address.
            Accepted by `--device`, too.
        driver: driver version, or "".
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
