"""A table of damage for a model on paper, without measuring anything."""

from __future__ import annotations

from app.pages.layers.page import LayersPage
from core.model.tree import ModelTree
from core.schemes import BITS, LayerScheme
from core.sensitivity.table import DamageTable


def table_of(tree: ModelTree) -> DamageTable:
    """The first blocks are the most tender; bits help by a factor of four each."""
    schemes = tuple(LayerScheme(bits, 64) for bits in BITS)
    rows = []
    for place, linear in enumerate(tree.linears):
        if linear.block >= 0:
            tender = 0.001 * (1 + place % 7) / (1 + linear.block)
            rows.append(tuple(tender * 4.0**-bits for bits in BITS))
    return DamageTable("fisher", tree.block_linears, schemes, tuple(rows))


def measured(page: LayersPage) -> DamageTable:
    """Have the model of a page measured."""
    draft = page.context.draft
    assert draft.model is not None
    table = table_of(draft.model.tree)
    draft.set_damage(draft.analysis(), table)
    return table
