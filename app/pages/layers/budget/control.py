"""Controller of the Budget view: the sensitivity measurement, the Pareto curve, and the best map for a budget.

The measurement is a call of the service; curve and allocation are computed in a thread. Each map that is applied is
one undoable edit. The panel is updated only while it is visible; the curve is also shown elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.pages.layers.budget.panel import BudgetPanel
from app.pages.layers.budget.pareto_plot import ParetoCurve
from app.pages.layers.budget.steps import BudgetSteps, curve_steps, even_steps, overhead
from app.pages.layers.rules.selection_pattern import pattern_of
from app.pages.layers.selection import Selection
from app.shared.calls.background import Background
from core.allocation.map_rules import with_towers_of
from core.allocation.request import AllocationRequest, Budget
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError
from core.model import fused
from core.model.fused import FusedModules
from core.model.tree import ModelTree
from core.schemes import LayerScheme
from core.service.messages import MeasureSensitivity
from core.wording import figure, human

if TYPE_CHECKING:
    from app.shared.calls.calls import Call
    from app.shared.context import Context
    from core.allocation.pareto import Pareto
    from core.allocation.problem import Allocation
    from core.sensitivity.table import SensitivityTable

_SPREAD = 1e-4
"""Relative tolerance up to which an allocation counts as the best possible."""


_PATIENCE = 60
"""Delay in milliseconds before a curve is computed, so that other views update first."""


class BudgetControl(QObject):
    """Controller that connects a `BudgetPanel` with the draft.

    Signals:
        curve_known(bool): whether there is a curve.
    """

    curve_known = Signal(bool)

    def __init__(
        self, context: Context, selection: Selection, panel: BudgetPanel, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._context, self._selection, self._panel = context, selection, panel
        self._call: Call | None = None
        self._seen = False
        self._fused_shown = False
        self._demanded: AllocationRequest | None = None
        self._curve_stale = True
        self._pareto: Pareto | None = None
        self._stepped: object = None
        self._curves, self._maps = Background(self, patience=_PATIENCE), Background(self)
        self._curves.done.connect(self._take_curve)
        self._curves.failed.connect(self._no_curve)
        self._maps.done.connect(self._take_map)
        self._maps.failed.connect(self._no_map)
        self._maps.busy_changed.connect(lambda _busy: self._show_ready())
        panel.kind_chosen.connect(lambda _kind: self._show_steps())
        panel.changed.connect(self.refresh)
        panel.measure_chosen.connect(context.draft.set_measure)
        panel.measuring_wanted.connect(self.measure)
        panel.measuring.cancelled.connect(self.stop)
        panel.keep_wanted.connect(self.keep)
        panel.allocate_wanted.connect(self.allocate)
        panel.plot.taken.connect(self.apply_point)
        selection.changed.connect(self._show_keep)
        draft = context.draft
        draft.model_replaced.connect(self._forget)
        draft.sensitivity_changed.connect(self._sensitivity_changed)
        for signal in (
            draft.model_changed,
            draft.bits_map_changed,
            draft.formats_changed,
            draft.engine_changed,
            draft.measure_changed,
            context.runs.changed,
        ):
            signal.connect(self.refresh)

    # --- public ---

    def set_seen(self, seen: bool) -> None:
        """Set whether the panel is visible; refresh it."""
        self._seen = seen
        self.refresh()

    def refresh(self) -> None:
        """Show the state of the draft, and compute a new curve if its inputs changed."""
        draft, tree = self._context.draft, self._tree
        self._renew_curve()
        if not self._seen:
            return
        if tree is not None and not self._fused_shown:
            self._fused_shown = True
            self._panel.show_fused(_reasons(tree))
        self._panel.show_measure(draft.measure, known=draft.sensitivity is not None)
        refusal = tree.refusal if tree is not None else ""
        self._panel.set_blocked(refusal or (self.tr("A run is in progress.") if self._context.runs.active else ""))
        self._show_steps()
        self._show_keep()
        self._show_ready()

    def show_now(self, loss_increase: float | None) -> None:
        """Show the map of the draft as a point in the plot."""
        size = self._context.draft.planned_size
        if size is None:
            self._panel.plot.show_now(0, 0.0, None)
        else:
            self._panel.plot.show_now(size.total, size.effective_bits, loss_increase)

    def measure(self) -> None:
        """Start the sensitivity measurement."""
        draft = self._context.draft
        if draft.model is None or draft.model.tree.refusal or self._call is not None:
            return
        spec = draft.analysis()
        self._panel.show_measuring(on=True)

        def done(table: SensitivityTable) -> None:
            self._ended("")
            draft.set_sensitivity(spec, table)

        self._call = self._context.calls.start(
            MeasureSensitivity(spec),
            on_success=done,
            on_failure=lambda error: self._ended(" ".join(part for part in (error.message, error.hint) if part)),
            on_event=self._panel.measuring.follow,
        )

    def stop(self) -> None:
        """Stop the measurement."""
        if self._call is not None:
            self._call.stop()
            self._ended("")

    def keep(self) -> None:
        """Add the selected layers with their current settings to the fixed layers."""
        draft, layers = self._context.draft, self._selection.layers
        if draft.model is None or not layers:
            return
        tree, default = draft.model.tree, draft.choices.bits_map.default
        by_scheme: dict[LayerScheme, list[int]] = {}
        for layer in sorted(layers):
            scheme = draft.plans[layer].scheme if layer < len(draft.plans) else replace(default, bits=16)
            by_scheme.setdefault(scheme, []).append(layer)
        pins: list[Rule] = []
        for scheme, found in by_scheme.items():
            pattern = pattern_of(tree, found)
            matches = [pattern] if pattern else [tree.nameable[layer].name for layer in found]
            group = scheme.group_size if scheme.quantized and scheme.group_size != default.group_size else None
            sym = scheme.sym if scheme.quantized and scheme.sym != default.sym else None
            pins += [Rule(match, scheme.bits, group, sym) for match in matches]
        known = self._panel.pins.rules or ()
        self._panel.pins.add(tuple(pin for pin in pins if pin not in known))

    def allocate(self) -> None:
        """Apply the map with the smallest predicted loss increase within the budget."""
        draft, request = self._context.draft, self._demand(self._panel.amount.budget())
        table = draft.sensitivity
        if draft.model is None or table is None or request is None or not self._panel.allocate.isEnabled():
            return
        tree = draft.model.tree

        def work() -> tuple[BitsMap, str, str]:
            from core.allocation.problem import allocate

            found = allocate(tree, table, request)
            return found.bits_map, self.tr("Allocate {}").format(request.budget.label()), _result(found)

        self._panel.show_result(self.tr("Computing the best map"), "muted")
        self._maps.ask(work)

    def apply_point(self, index: int) -> None:
        """Apply the map of a point of the curve."""
        pareto = self._pareto
        if pareto is None or not 0 <= index < len(pareto):
            return
        size, loss_increase = int(pareto.bytes[index]), float(pareto.loss_increase[index])
        text = self.tr("Map of {}").format(human(size))
        said = self.tr("{0}, {1:.2f} bits, loss increase {2}. From the curve.").format(
            human(size), float(pareto.bits[index]), figure(loss_increase)
        )
        self._maps.ask(lambda: (pareto.map_at(index), text, said))

    # --- the curve ---

    @property
    def _tree(self) -> ModelTree | None:
        """The tree of the draft; None if the map does not fit it."""
        draft = self._context.draft
        return draft.model.tree if draft.model is not None and draft.plans else None

    def _forget(self) -> None:
        """Clear the state of the previous model."""
        self._fused_shown, self._curve_stale, self._stepped = False, True, None
        self._panel.clear()
        self._panel.show_result("")
        self.stop()

    def _sensitivity_changed(self) -> None:
        self._curve_stale = True
        self.refresh()

    def _demand(self, budget: Budget | None) -> AllocationRequest | None:
        draft, panel = self._context.draft, self._panel
        pins, min_bits = panel.pins.rules, panel.min_bits.rules
        if budget is None or pins is None or min_bits is None:
            return None
        default = draft.choices.bits_map.default
        return AllocationRequest(
            budget,
            choices=panel.choices,
            pins=pins,
            min_bits=min_bits,
            fused=panel.fused,
            engine=draft.engine,
            format_name=draft.choices.formats[0],
            group_size=default.group_size,
            sym=default.sym,
        )

    def _renew_curve(self) -> None:
        tree, table = self._tree, self._context.draft.sensitivity
        request = self._demand(Budget("bpw", 16.0)) if tree is not None and table is not None else None
        if request == self._demanded and not self._curve_stale:
            return
        self._demanded, self._curve_stale = request, False
        if tree is None or table is None or request is None:
            self._curves.forget()
            self._show_curve(None)
        else:
            self._curves.ask(partial(_curve, tree, table, request))

    def _take_curve(self, pareto: Pareto) -> None:
        self._panel.show_problem("")
        self._show_curve(pareto)
        self._show_steps()
        self._show_ready()

    def _no_curve(self, error: BitwrightError) -> None:
        self._show_curve(None)
        self._panel.show_problem(f"{error.message} {error.hint}")
        self._show_ready()

    def _show_curve(self, pareto: Pareto | None) -> None:
        self._pareto = pareto
        self._stepped = None
        curve = None if pareto is None else ParetoCurve(pareto.bytes, pareto.bits, pareto.loss_increase)
        self._panel.plot.show_curve(curve)
        self.curve_known.emit(pareto is not None)

    # --- other widgets of the panel ---

    def _show_steps(self) -> None:
        if not self._seen:
            return
        draft, panel = self._context.draft, self._panel
        kind = panel.amount.kind.value
        if self._tree is None or draft.planned_size is None:
            self._stepped = None
            panel.amount.show_steps(BudgetSteps(kind), 0.0)
            return
        total = float(draft.planned_size.total)
        start = {"bpw": draft.planned_size.effective_bits, "bytes": total, "ram": total + overhead(self._tree)}[kind]
        default, name = draft.choices.bits_map.default, draft.choices.formats[0]
        key = (kind, panel.choices, name, default)
        if key == self._stepped:
            panel.amount.show_start(start)
            return
        self._stepped = key
        if self._pareto is not None:
            steps = curve_steps(kind, self._pareto.bytes, self._pareto.bits, overhead(self._tree))
        else:
            steps = even_steps(self._tree, BitsMap(default), panel.choices, name, kind)
        panel.amount.show_steps(steps, start)

    def _show_ready(self) -> None:
        reason = ""
        if self._tree is not None and self._tree.refusal:
            reason = self._tree.refusal
        elif self._context.draft.sensitivity is None:
            reason = self.tr("Measure the sensitivity first.")
        elif self._pareto is None:
            reason = self.tr("These constraints cannot be met.")
        elif self._maps.busy:
            reason = self.tr("Computing the best map")
        self._panel.show_ready(reason)

    def _show_keep(self) -> None:
        self._panel.keep.setEnabled(bool(self._selection.layers) and self._panel.pins.rules is not None)

    def _take_map(self, found: tuple[BitsMap, str, str]) -> None:
        bits_map, text, said = found
        draft = self._context.draft
        if self._tree is not None:
            bits_map = with_towers_of(self._tree, bits_map, draft.choices.bits_map)
        draft.edit_map(bits_map, text)
        self._panel.show_result(said, "")
        self._context.show_message(said)

    def _no_map(self, error: BitwrightError) -> None:
        self._panel.show_result(f"{error.message} {error.hint}", "bad")

    def _ended(self, problem: str) -> None:
        self._call = None
        self._panel.show_measuring(on=False, problem=problem)


def _curve(tree: ModelTree, table: SensitivityTable, request: AllocationRequest) -> Pareto:
    from core.allocation.pareto import pareto  # Imported late, as it imports NumPy.

    return pareto(tree, table, request)


def _reasons(tree: ModelTree) -> dict[str, str]:
    """Return the reason for each kind of fused modules that this model has, by the names of `FusedModules`."""
    kinds = {linear.kind: linear for linear in tree.linears if linear.block >= 0}
    # One block with a layer of each kind is enough.
    block = replace(tree, linears=tuple(replace(linear, block=0) for linear in kinds.values()))
    found = {}
    for name in ("fuse_qkv", "fuse_gate_up", "experts"):
        only = {other: other == name for other in ("fuse_qkv", "fuse_gate_up", "experts")}
        groups = fused.groups(block, FusedModules(**only))
        if groups:
            found[name] = groups[0].reason
    return found


def _result(found: Allocation) -> str:
    """Return the description of an allocation."""
    parts = [f"Loss increase {figure(found.loss_increase)}", human(found.size.total), f"{found.bits:.2f} bits"]
    above = found.loss_increase - found.bound
    if found.exact or above <= _SPREAD * max(found.bound, 1e-30):
        parts.append("best possible")
    else:
        parts.append(f"within {100 * above / max(found.bound, 1e-30):.2g} % of the best")
    return " ".join([f"{', '.join(parts)}.", *found.notes])
