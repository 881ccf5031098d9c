"""How long each recipe would take on this machine, remembered for the model that is open. Knows no widget."""

from __future__ import annotations

from core.estimation import costs
from core.estimation.costs import Range
from core.model.tree import ModelTree
from core.recipes import Recipe
from core.spec import JobSpec


class RecipeTimes:
    """Estimated seconds by recipe. Bits do not change them, so moving a slider computes nothing here."""

    def __init__(self) -> None:
        self._tree: ModelTree | None = None
        self._known: dict[tuple[Recipe, float], Range | None] = {}

    def seconds(self, tree: ModelTree, recipe: Recipe, throughput: float | None) -> Range | None:
        """The estimate for one recipe; None without a speed."""
        if not throughput:
            return None
        if tree is not self._tree:
            self._tree = tree
            self._known.clear()
        key = (recipe, throughput)
        if key not in self._known:
            # without plans: what becomes of the layers matters for the disk, which nobody asks for here
            self._known[key] = costs.estimate(tree, (), JobSpec("model", "output", recipe=recipe), throughput).seconds
        return self._known[key]
