"""The measured bandwidth is labelled with what it is, and bounded in memory."""

from __future__ import annotations

from core.inference.bandwidth import read_bandwidth


def test_a_reading_says_what_it_is() -> None:
    found = read_bandwidth("cpu", 8 << 20)
    assert found.bytes_per_second > 0
    assert found.device == "cpu"
    assert found.threads >= 1
    assert "8 MiB" in found.method
