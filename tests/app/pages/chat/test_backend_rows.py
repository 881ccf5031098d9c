"""Selections from a table of backends."""

from __future__ import annotations

from app.pages.chat.backend_rows import computing
from core.inference.backends.backend import BackendRow

NATIVE = BackendRow("native", "Native kernels", True, "2 to 8 bits", layers=14)
ARK = BackendRow("ark", "auto-round-lib", False, "4 bits", "It is not installed.", "pip install auto-round-lib")


def test_what_computes_most_comes_first() -> None:
    few = BackendRow("portable", "", True, "", layers=2)
    assert computing([few, ARK, NATIVE]) == [NATIVE, few]
