"""Fixtures for tests of runs."""

from __future__ import annotations

import pytest

from core.quant import kernels


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 on every machine."""
    from core.inference.devices import DtypeProbe
    from core.quant import prepare

    monkeypatch.setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))


@pytest.fixture(params=[True, False], ids=["compiled", "portable"])
def both_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the compiled loops, and with the torch operations of other devices."""
    if not request.param:
        monkeypatch.setattr(kernels, "DEVICE", "other")
