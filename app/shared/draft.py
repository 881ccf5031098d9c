"""The choices of the user from which a `JobSpec` is made; every page reads and changes this one object.

Derived values (plans, sizes, costs, the reason why a run cannot start) are computed here from shapes alone, in
milliseconds. Depends on QtCore and QtGui's undo stack only. Does not start threads or processes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QUndoCommand, QUndoStack

from app.shared.formats import words as format_words
from app.shared.formats.fit import FormatFit, FormatFits, own_grids
from app.shared.models.opened import OpenedModel
from app.shared.resource_needs import disk_problem
from core import recipes
from core.bitsmap import BitsMap
from core.errors import BitwrightError
from core.estimation import costs, sizes
from core.estimation.costs import Costs
from core.estimation.sizes import OutputSize
from core.files import free_name
from core.formats import engines
from core.formats.grids import plan_layers
from core.formats.names import mix_of
from core.home import home
from core.inference.machine import Machine
from core.model.context import context_length
from core.model.towers import inputs_of
from core.model.tree import LayerPlan, ModelTree
from core.recipes import Recipe, usual
from core.schemes import BITS, LayerScheme
from core.sensitivity.spec import DEFAULT, AnalysisSpec
from core.sensitivity.table import SensitivityTable
from core.spec import JobSpec

_UNDO_STEPS = 100
"""Edits of the bits map that can be undone. Each keeps a whole map: 0.4 MB for 20,000 layers set one by one."""


_OF_PLANS: Final = frozenset({"model", "bits_map"})
"""Choices that decide the plans, besides the formats with quantization grids of their own."""
_OF_SIZE: Final = _OF_PLANS | {"formats"}
"""Choices that decide the size of the output and the layers that an engine does not support."""
_OF_COSTS: Final = _OF_SIZE | {"recipe", "device", "low_memory", "memory"}
"""Choices that decide disk space, memory and time of the run, besides the machine."""


@dataclass(frozen=True)
class Choices:
    """Every setting of a job. `output` is "" for the suggested folder."""

    model: OpenedModel | None = None
    recipe: Recipe = field(default_factory=usual)
    bits_map: BitsMap = field(default_factory=BitsMap)
    calibration: str = "builtin"
    pictures: str = ""
    formats: tuple[str, ...] = ("auto_round",)
    device: str = "auto"
    seed: int = 42
    low_memory: bool = False
    memory: int | None = None
    compile: bool = False
    output: str = ""


class Draft(QObject):
    """The choices of one window, and everything that follows from them.

    Each field of `Choices` has a signal `<field>_changed`. `choose` emits those of the fields that changed, then
    `changed`. Values derived from the choices are computed on first use and kept until a field they depend on changes.

    Signals:
        model_replaced: there is another model, with another name or other layers, or none any more. Emitted before
            `model_changed`, which also reports new details of the same model, such as its folder after a download.
        changed: at least one field of `Choices` changed.
        machine_changed: `machine` changed.
        engine_changed: `engine` changed.
        measure_changed: `measure` changed.
        sensitivity_changed: `sensitivity` changed: a measurement arrived, or `measure` selects another table. Not
            emitted where `model_replaced` is.
    """

    model_replaced = Signal()
    model_changed = Signal()
    recipe_changed = Signal()
    bits_map_changed = Signal()
    calibration_changed = Signal()
    pictures_changed = Signal()
    formats_changed = Signal()
    device_changed = Signal()
    seed_changed = Signal()
    low_memory_changed = Signal()
    memory_changed = Signal()
    compile_changed = Signal()
    output_changed = Signal()
    changed = Signal()
    machine_changed = Signal()
    engine_changed = Signal()
    measure_changed = Signal()
    sensitivity_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._choices = Choices(recipe=recipes.load("quick"), bits_map=BitsMap(LayerScheme(4, 64, True)))
        self._machine = Machine()
        self._plans: Sequence[LayerPlan] | None = None
        self._problem = ""
        self._size: OutputSize | None = None
        self._costs: Costs | None = None
        self._fits: FormatFits | None = None
        self._engine, self._measure = "", DEFAULT
        self._marks: list[engines.EngineIssue] | None = None
        self._tables: dict[str, SensitivityTable] = {}
        self.undo_stack = QUndoStack(self)
        self.undo_stack.setUndoLimit(_UNDO_STEPS)

    @property
    def choices(self) -> Choices:
        return self._choices

    @property
    def model(self) -> OpenedModel | None:
        return self._choices.model

    @property
    def machine(self) -> Machine:
        return self._machine

    def choose(self, **values: Any) -> None:
        """Replace fields of the choices. Another model empties the undo stack.

        Raises:
            BitwrightError: a value is impossible; nothing was changed.
        """
        before, after = self._choices, replace(self._choices, **values)
        changed = [name for name in values if getattr(after, name) != getattr(before, name)]
        if not changed:
            return
        self._choices = after
        self._invalidate(changed, other_grids=own_grids(after.formats) != own_grids(before.formats))
        if "model" in changed and _identity(after.model) != _identity(before.model):
            self.undo_stack.clear()
            self._tables = {}
            self.model_replaced.emit()
        for name in changed:
            getattr(self, f"{name}_changed").emit()
        self.changed.emit()

    def _invalidate(self, changed: Collection[str], *, other_grids: bool) -> None:
        """Forget the derived values that depend on these fields."""
        if not _OF_PLANS.isdisjoint(changed):
            self._fits = None
        if not _OF_PLANS.isdisjoint(changed) or other_grids:
            self._plans = None
        if not _OF_SIZE.isdisjoint(changed):
            self._size = self._marks = None
        if not _OF_COSTS.isdisjoint(changed):
            self._costs = None

    def set_machine(self, machine: Machine) -> None:
        """Set the measured properties of this machine."""
        self._machine = machine
        self._costs = None
        self.machine_changed.emit()

    @property
    def engine(self) -> str:
        """Target inference engine, one of `core.formats.engines.ENGINES`; "" for none. Does not prevent a run."""
        return self._engine

    def set_engine(self, engine: str) -> None:
        """Set the target inference engine; an unknown name counts as ""."""
        engine = engine if engine in engines.ENGINES else ""
        if engine != self._engine:
            self._engine, self._marks = engine, None
            self.engine_changed.emit()

    @property
    def marks(self) -> list[engines.EngineIssue]:
        """The layers of the planned output, in its first format, that the engine does not support."""
        if self._marks is None:
            self._marks = []
            if self._engine and self.model is not None and self.plans:
                name = self._choices.formats[0]
                self._marks = engines.check(self._engine, self.model.tree, self.plans, name)
        return self._marks

    @property
    def measure(self) -> str:
        """The measure that predicts the loss increase: a name of `core.sensitivity.spec.MEASURES`."""
        return self._measure

    def set_measure(self, measure: str) -> None:
        """Change the measure; results of the previous measure are kept until the model changes."""
        if measure != self._measure:
            before, self._measure = self.sensitivity, measure
            self.measure_changed.emit()
            if self.sensitivity is not before:
                self.sensitivity_changed.emit()

    @property
    def sensitivity(self) -> SensitivityTable | None:
        """The measured sensitivity of this model with the selected measure; None before a measurement."""
        return self._tables.get(self._measure)

    def set_sensitivity(self, spec: AnalysisSpec, table: SensitivityTable) -> None:
        """Keep a measured table, unless it belongs to another model."""
        if self.model is not None and spec.model == self.model.name:
            self._tables[spec.measure] = table
            if spec.measure == self._measure:
                self.sensitivity_changed.emit()

    def analysis(self) -> AnalysisSpec:
        """Return the settings of a sensitivity measurement of these choices, for every number of bits."""
        picked, tree = self._choices, self.model.tree if self.model is not None else None
        default = picked.bits_map.default
        spec = AnalysisSpec(
            model=picked.model.name if picked.model else "",
            schemes=tuple(LayerScheme(bits, default.group_size, default.sym) for bits in BITS),
            measure=self._measure,
            calibration=picked.calibration,
            seed=picked.seed,
            device=picked.device,
        )
        longest = context_length(tree.config) if tree is not None else 0
        return replace(spec, seqlen=min(spec.seqlen, longest)) if longest >= 32 else spec

    def edit_map(self, bits_map: BitsMap, text: str) -> None:
        """Change the bits map as an undoable step; `text` describes it in the undo button."""
        if bits_map != self._choices.bits_map:
            self.undo_stack.push(_MapEdit(self, self._choices.bits_map, bits_map, text))

    @property
    def plans(self) -> Sequence[LayerPlan]:
        """The scheme of each linear layer; empty without a model, and where the map does not fit it (see `misfit`).

        Computed also for a model that cannot be quantized, so that its layers can be shown.
        """
        if self._plans is None:
            self._plans, self._problem = (), ""
            if self.model is not None and _has_map(self.model.tree):
                try:
                    self._plans = plan_layers(self.model.tree, self._choices.bits_map, self._choices.formats)
                except BitwrightError as error:
                    self._problem = error.message
        return self._plans

    def fit(self, name: str) -> FormatFit:
        """Return whether a format, chosen or not, can hold the layers together with the chosen formats."""
        plans = self.plans
        if self.model is None or not plans:
            return FormatFit()
        if self._fits is None:
            self._fits = FormatFits(self.model.tree, self._choices.bits_map)
        self._fits.know(self._choices.formats, plans)
        return self._fits.among(name, self._choices.formats)

    @property
    def format_problem(self) -> str:
        """A short message about the first chosen format that cannot hold the layers; "" if all can."""
        formats = self._choices.formats
        for name in formats:
            if self.fit(name).problems:
                rivals = [other for other in own_grids(formats) if other != name]
                return format_words.conflict(name, rivals[0] if rivals else "")
        return ""

    @property
    def misfit(self) -> str:
        """The reason why the map does not fit the model, as one sentence; "" if it fits."""
        return self._problem if self.model is not None and not self.plans else ""

    @property
    def planned_size(self) -> OutputSize | None:
        """Size of the output in the first format, also for a model that cannot be quantized."""
        if self._size is None and self.model is not None and self.plans:
            self._size = sizes.output_size(self.model.tree, self.plans, self._choices.formats[0])
        return self._size

    @property
    def size(self) -> OutputSize | None:
        """Size of the output in the first format; None for a model that cannot be quantized."""
        return None if self.model is None or self.model.tree.refusal else self.planned_size

    @property
    def costs(self) -> Costs | None:
        """Disk space, memory and time of the run; the time is None until the machine was measured."""
        if self._costs is None and self.model is not None and not self.model.tree.refusal and self.plans:
            device = self.device_id
            speed = (self._machine.throughput or {}).get(device)
            self._costs = costs.estimate(
                self.model.tree,
                self.plans,
                self.spec(),
                speed,
                on_device=not device.startswith("cpu"),
                load=self._machine.load.get(device, 0.0),
            )
        return self._costs

    @property
    def device_id(self) -> str:
        """Id of the device that the run will use; `auto` is `cpu` until the machine was measured."""
        wanted = self._choices.device
        return (self._machine.chosen or "cpu") if wanted == "auto" else wanted

    @property
    def output(self) -> Path:
        """The output folder: the chosen one, or one that does not exist yet in Bitwright's model folder."""
        if self._choices.output:
            return Path(self._choices.output)
        model, scheme = self.model, self._choices.bits_map.default
        stem = model.label.removesuffix(".gguf").split(" ")[0] if model else "model"
        mixed = "mixed" if self._choices.bits_map.rules or self._choices.bits_map.layers else f"{scheme.bits}bit"
        mixed = next((mix_of(name).upper() for name in own_grids(self._choices.formats)), mixed)
        folder = home() / "models"
        return free_name(folder / f"{stem}-{mixed}")

    @property
    def reads_pictures(self) -> bool:
        """Return whether the model reads pictures."""
        return self.model is not None and "pictures" in inputs_of(self.model.tree.towers)

    def problem(self) -> str:
        """Return the first reason why a run cannot start now, as one sentence; "" if it can."""
        model = self.model
        if model is None:
            return "Select a model"
        if model.tree.refusal:
            return model.tree.refusal
        if not self.plans:
            return self._problem or "The bits map does not fit this model"
        if not any(plan.scheme.quantized for plan in self.plans):
            return "The bits map leaves every layer in 16 bits"
        if self.format_problem:
            return self.format_problem
        needed = self.costs
        if needed is not None:
            return disk_problem(needed.disk.low + model.download_bytes, self.output)
        return ""

    def spec(self) -> JobSpec:
        """Return the job of these choices.

        Raises:
            BadInput: there is no model yet.
        """
        picked = self._choices
        return JobSpec(
            model=picked.model.name if picked.model else "",
            output=str(self.output),
            recipe=picked.recipe,
            bits_map=picked.bits_map,
            calibration=picked.calibration,
            pictures=picked.pictures if self.reads_pictures else "",
            formats=picked.formats,
            device=picked.device,
            seed=picked.seed,
            low_memory=picked.low_memory,
            memory=picked.memory,
            compile=picked.compile,
        )


def _identity(model: OpenedModel | None) -> tuple[str, ModelTree] | None:
    """The name and the layers of a model: what distinguishes it from another one."""
    return (model.name, model.tree) if model is not None else None


def _has_map(tree: ModelTree) -> bool:
    """Return whether there are layers to show; a refused model may have none, or implausible block numbers."""
    inside = len(tree.block_linears)
    return inside > 0 and tree.linears[inside - 1].block < 2 * tree.blocks


class _MapEdit(QUndoCommand):
    def __init__(self, draft: Draft, before: BitsMap, after: BitsMap, text: str) -> None:
        super().__init__(text)
        self._draft, self._before, self._after = draft, before, after

    def redo(self) -> None:
        self._draft.choose(bits_map=self._after)

    def undo(self) -> None:
        self._draft.choose(bits_map=self._before)
