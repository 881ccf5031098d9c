"""Selections from a table of backends."""

from __future__ import annotations

from collections.abc import Iterable

from core.inference.backends.backend import BackendRow


def computing(rows: Iterable[BackendRow]) -> list[BackendRow]:
    """The backends that compute layers of the loaded model, the one with the most layers first."""
    return sorted((row for row in rows if row.layers), key=lambda row: -row.layers)
