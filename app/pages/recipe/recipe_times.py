"""Estimated run times of the recipes on this machine, cached for the open model."""

from __future__ import annotations

from core.estimation import costs
from core.estimation.costs import Range
from core.model.tree import ModelTree
from core.recipes import Recipe
from core.spec import JobSpec


class RecipeTimes:
    """A cache of the estimated seconds by recipe, which do not depend on the bits."""

    def __init__(self) -> None:
        self._tree: ModelTree | None = None
        self._known: dict[tuple[Recipe, float], Range | None] = {}

    def seconds(self, tree: ModelTree, recipe: Recipe, throughput: float | None) -> Range | None:
        """Return the estimate for a recipe; None if the speed of the device is unknown."""
        if not throughput:
            return None
        if tree is not self._tree:
            self._tree = tree
            self._known.clear()
        key = (recipe, throughput)
        if key not in self._known:
            # without plans, which only matter for the size on disk
            self._known[key] = costs.estimate(tree, (), JobSpec("model", "output", recipe=recipe), throughput).seconds
        return self._known[key]
