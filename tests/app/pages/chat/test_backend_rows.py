"""Rows of the table of backends from what the service says."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from app.pages.chat.backend_rows import computing, rows_from
from core.inference.backends.backend import BackendRow

NATIVE = BackendRow("native", "Native kernels", True, "2 to 8 bits", layers=14)
ARK = BackendRow("ark", "auto-round-lib", False, "4 bits", "It is not installed.", "pip install auto-round-lib")


def test_rows_come_as_they_were_sent() -> None:
    assert rows_from([asdict(NATIVE), asdict(ARK)]) == (NATIVE, ARK)


@pytest.mark.parametrize("value", [None, 3, "native", {"name": "native"}, [None, 3, {}]])
def test_what_is_no_table_is_empty(value: Any) -> None:
    assert rows_from(value) == ()


def test_values_of_another_kind_count_as_none() -> None:
    (row,) = rows_from([{"name": "native", "usable": "yes", "layers": "many", "new": 1}])
    assert (row.usable, row.layers, row.title) == (False, 0, "")


def test_what_computes_most_comes_first() -> None:
    few = BackendRow("portable", "", True, "", layers=2)
    assert computing([few, ARK, NATIVE]) == [NATIVE, few]
