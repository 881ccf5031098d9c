"""Random sensitivity tables for models without weights, reproducible by their seed."""

from __future__ import annotations

import random

from core.model.tree import ModelTree
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable

BITS = (2, 3, 4, 8)


def table_for(
    tree: ModelTree, seed: int = 1, *, bits: tuple[int, ...] = BITS, without: tuple[str, ...] = ()
) -> SensitivityTable:
    """Return a table whose loss increases fall to about a quarter per bit and span three orders of magnitude."""
    numbers = random.Random(seed)
    names = tuple(linear.name for linear in tree.linears if linear.name not in without)
    rows = []
    for _ in names:
        scale = numbers.lognormvariate(-9, 1.5)
        rows.append(tuple(scale * 4.0 ** (2 - width) * numbers.uniform(0.8, 1.2) for width in bits))
    return SensitivityTable("fisher", names, tuple(LayerScheme(width) for width in bits), tuple(rows))
