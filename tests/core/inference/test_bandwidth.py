"""Tests of the measurement of memory bandwidth."""

from __future__ import annotations

from core.inference.bandwidth import read_bandwidth


def test_a_measurement_reports_device_threads_and_method() -> None:
    found = read_bandwidth("cpu", 8 << 20)
    assert found.bytes_per_second > 0
    assert found.device == "cpu"
    assert found.threads >= 1
    assert "8 MiB" in found.method
