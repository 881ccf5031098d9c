"""Parametrization with many combinations, of which the default run takes a representative part."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def combinations(every: Iterable[Any], default: Collection[Any]) -> list[Any]:
    """Return pytest parameters; those outside `default` have the marker `matrix`, so that `-m matrix` runs them.

    Args:
        every: all values, or tuples of values for several arguments.
        default: the values among them that every run tests.
    """
    values = list(every)
    missing = [value for value in default if value not in values]
    assert not missing, f"not among the combinations: {missing}"
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=() if value in default else pytest.mark.matrix
        )
        for value in values
    ]
