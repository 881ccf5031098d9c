"""Fixtures for tests of backends: cached probes and missing libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from core.inference.backends.probing import probe


@pytest.fixture
def fresh_probes() -> Iterator[None]:
    """Clear the cache of `probe` before and after the test."""
    probe.cache_clear()
    yield
    probe.cache_clear()


@pytest.fixture
def nothing_installed(fresh_probes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that no optional library is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
