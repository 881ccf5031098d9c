"""What tests of backends stand on: machines without their libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from core.inference.backends.probing import probe


@pytest.fixture
def fresh_probes() -> Iterator[None]:
    """Libraries are looked for again, in this test and after it."""
    probe.cache_clear()
    yield
    probe.cache_clear()


@pytest.fixture
def nothing_installed(fresh_probes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No optional library is found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
