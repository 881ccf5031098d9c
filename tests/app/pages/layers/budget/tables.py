"""A table of loss increase for a model on paper, without measuring anything."""

from __future__ import annotations

from app.pages.layers.page import LayersPage
from core.model.tree import ModelTree
from core.schemes import BITS, LayerScheme
from core.sensitivity.table import SensitivityTable


def table_of(tree: ModelTree) -> SensitivityTable:
    """The first blocks are the most sensitive; bits help by a factor of four each."""
    schemes = tuple(LayerScheme(bits, 64) for bits in BITS)
    rows = []
    for place, linear in enumerate(tree.linears):
        if linear.block >= 0:
            sensitivity = 0.001 * (1 + place % 7) / (1 + linear.block)
            rows.append(tuple(sensitivity * 4.0**-bits for bits in BITS))
    return SensitivityTable("fisher", tree.block_linears, schemes, tuple(rows))


def measured(page: LayersPage) -> SensitivityTable:
    """Have the model of a page measured."""
    draft = page.context.draft
    assert draft.model is not None
    table = table_of(draft.model.tree)
    draft.set_sensitivity(draft.analysis(), table)
    return table
