"""The support of a run's layers by each output format, with the resulting size.

Results are cached per model and bits map, as the window needs them at every repaint. Does not depend on Qt.
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
    """The result of storing a run's layers in one format.

    Attributes:
        problems: the reasons why the format cannot hold the layers, one sentence each; empty if it can.
        notes: further remarks.
        size: bytes of all tensors; 0 if unknown.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    size: int = 0


def fit_of(tree: ModelTree, plans: Sequence[LayerPlan], name: str) -> FormatFit:
    """Return the result of storing the planned layers in the format `name`."""
    problems = tuple(holding.problems(tree, plans, name))
    if problems:
        return FormatFit(problems)
    return FormatFit((), tuple(holding.notes(tree, plans, name)), sizes.output_size(tree, plans, name).total)


class FormatFits:
    """The `FormatFit` of each format for one model and bits map, computed on first use."""

    def __init__(self, tree: ModelTree, bits_map: BitsMap) -> None:
        self._tree, self._map = tree, bits_map
        self._plans: dict[tuple[str, ...], Sequence[LayerPlan]] = {}
        self._known: dict[tuple[tuple[str, ...], str], FormatFit] = {}

    def among(self, name: str, others: Sequence[str]) -> FormatFit:
        """Return the fit of `name` in a run that also writes `others`; all formats of a run share one grid.

        A GGUF type that is not in `others` takes the place of the one that is.
        """
        if is_gguf(name) and name not in others:
            others = [other for other in others if not is_gguf(other)]
        grids = own_grids((*(other for other in others if other != name), name))
        if (grids, name) not in self._known:
            self._known[grids, name] = self._ask(name, grids)
        return self._known[grids, name]

    def know(self, formats: Sequence[str], plans: Sequence[LayerPlan]) -> None:
        """Add the plans of a run that writes `formats`."""
        self._plans[own_grids(formats)] = plans

    def _ask(self, name: str, grids: tuple[str, ...]) -> FormatFit:
        try:
            if grids not in self._plans:
                self._plans[grids] = plan_layers(self._tree, self._map, grids)
            return fit_of(self._tree, self._plans[grids], name)
        except BitwrightError as error:
            return FormatFit((error.message,))


def own_grids(formats: Sequence[str]) -> tuple[str, ...]:
    """Return those of the formats that prescribe the quantization grid of the layers."""
    return tuple(name for name in formats if mix_of(name))
