"""Devices and backends of this machine. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.inference.backends.backend import BackendRow
    from core.inference.machine import Device


def devices() -> tuple[Device, ...]:
    """Return the devices of this machine, with the reason why a device cannot be used."""
    from core.inference import devices as machine

    return machine.list_devices()


def backends(device: Device) -> tuple[BackendRow, ...]:
    """Return the backends for quantized layers on a device, the fastest first, with the reason why one cannot be used.

    Imports torch; compiles the native kernels the first time.
    """
    from core.inference.backends import choose

    return choose.table(device)
