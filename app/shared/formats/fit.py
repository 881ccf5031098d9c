"""Whether a format can hold the layers of a run, and what it costs there: the answers of core, asked once each.

Kept for the layers they are about, so that the window can ask with every repaint. Knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.bitsmap import BitsMap
from core.errors import BitwrightError
from core.estimation import sizes
from core.formats import holding
from core.formats.grids import plan_layers
from core.formats.names import is_gguf, mix_of
from core.model.tree import LayerPlan, ModelTree


@dataclass(frozen=True)
class FormatFit:
    """What becomes of a run's layers in one format.

    Attributes:
        problems: why it cannot hold them, a sentence each; empty where it can.
        notes: what should be known besides.
        size: bytes of all tensors; 0 where that is not known.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    size: int = 0


def fit_of(tree: ModelTree, plans: Sequence[LayerPlan], name: str) -> FormatFit:
    """What becomes of the planned layers in the format called `name`."""
    problems = tuple(holding.problems(tree, plans, name))
    if problems:
        return FormatFit(problems)
    return FormatFit((), tuple(holding.notes(tree, plans, name)), sizes.output_size(tree, plans, name).total)


class FormatFits:
    """The fits of one model and one map, whatever the formats of the run are."""

    def __init__(self, tree: ModelTree, bits_map: BitsMap) -> None:
        self._tree, self._map = tree, bits_map
        self._plans: dict[tuple[str, ...], Sequence[LayerPlan]] = {}
        self._known: dict[tuple[tuple[str, ...], str], FormatFit] = {}

    def among(self, name: str, others: Sequence[str]) -> FormatFit:
        """What becomes of the layers in `name` where a run writes `others` as well; a run has one grid for all.

        A GGUF type that is not among them is meant in place of the one that is.
        """
        if is_gguf(name) and name not in others:
            others = [other for other in others if not is_gguf(other)]
        grids = own_grids((*(other for other in others if other != name), name))
        if (grids, name) not in self._known:
            self._known[grids, name] = self._ask(name, grids)
        return self._known[grids, name]

    def know(self, formats: Sequence[str], plans: Sequence[LayerPlan]) -> None:
        """Take the layers of a run that writes `formats`, as they were planned elsewhere."""
        self._plans[own_grids(formats)] = plans

    def _ask(self, name: str, grids: tuple[str, ...]) -> FormatFit:
        try:
            if grids not in self._plans:
                self._plans[grids] = plan_layers(self._tree, self._map, grids)
            return fit_of(self._tree, self._plans[grids], name)
        except BitwrightError as error:
            return FormatFit((error.message,))


def own_grids(formats: Sequence[str]) -> tuple[str, ...]:
    """Those of the formats that decide themselves what the layers are tuned to."""
    return tuple(name for name in formats if mix_of(name))
