"""Devices of this machine."""

from __future__ import annotations

from core import api


def test_the_cpu_is_a_device() -> None:
    assert api.devices()[0].id == "cpu"
