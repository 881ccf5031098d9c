"""Between what the output must run on and the draft: marks by position, and the repair as one undoable edit.

Both take a moment on large models, which are looked at in the background; until then the marks of before stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, Signal

from app.pages.layers.engine.panel import EnginePanel
from app.pages.layers.selection import Selection
from app.shared.calls.background import Background
from core.bitsmap import BitsMap
from core.formats import engines
from core.formats.engines import Mark

if TYPE_CHECKING:
    from app.shared.context import Context

_STATE: Final = "layers/engine"
_AT_ONCE: Final = 3000
"""Layers of a model for which an answer takes no time."""
_PATIENCE: Final = 120
"""Milliseconds after an edit before large models are looked at."""


class EngineControl(QObject):
    """Keeps one `EnginePanel` true, and remembers the engine from one start to the next.

    Signals:
        marks_changed: what the engine has against layers is something else now.
    """

    marks_changed = Signal()

    def __init__(
        self, context: Context, selection: Selection, panel: EnginePanel, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._context, self._selection, self._panel = context, selection, panel
        self._marks: list[Mark] = []
        self._by_place: dict[int, Mark] = {}
        self._places: dict[str, int] | None = None
        self._checks, self._repairs = Background(self, patience=_PATIENCE), Background(self)
        self._checks.done.connect(self._take)
        self._checks.failed.connect(lambda error: context.report(error, None))
        self._repairs.failed.connect(lambda error: context.report(error, None))
        self._repairs.done.connect(self._edit)
        context.draft.set_engine(context.state.value(_STATE, ""))
        context.draft.engine_changed.connect(self._show)
        context.draft.model_replaced.connect(self._forget)
        panel.engine_chosen.connect(self._choose)
        panel.reason_chosen.connect(self._select)
        panel.repair_wanted.connect(self.repair)
        self._show()

    @property
    def marks(self) -> dict[int, Mark]:
        """What the engine has against layers, by their position in `tree.nameable`, as far as is known."""
        return self._by_place

    def recompute(self) -> None:
        """See what the engine has against the map of the draft; `marks_changed` tells where that comes later."""
        draft, engine = self._context.draft, self._context.draft.engine
        plans, name = draft.plans, draft.choices.formats[0]
        if draft.model is None or not engine or len(plans) <= _AT_ONCE:
            self._checks.forget()
            self._set(draft.marks)
            return
        tree = draft.model.tree
        self._checks.ask(lambda: engines.check(engine, tree, plans, name))

    def repair(self) -> None:
        """Give the layers that cannot be loaded what they need, and nothing else."""
        draft, engine = self._context.draft, self._context.draft.engine
        if draft.model is None or not engine:
            return
        tree, before, name = draft.model.tree, draft.choices.bits_map, draft.choices.formats[0]
        text = self.tr("Repair for {}").format(engines.title(engine))
        self._repairs.ask(lambda: (before, engines.repaired(engine, tree, before, name), text))

    def _edit(self, found: tuple[BitsMap, BitsMap, str]) -> None:
        before, after, text = found
        if self._context.draft.choices.bits_map is before:
            self._context.draft.edit_map(after, text)

    def _take(self, marks: list[Mark]) -> None:
        self._set(marks)
        self.marks_changed.emit()

    def _set(self, marks: list[Mark]) -> None:
        if self._places is None:
            model = self._context.draft.model
            nameable = model.tree.nameable if model is not None else ()
            self._places = {linear.name: place for place, linear in enumerate(nameable)}
        places = self._places
        self._marks = marks
        self._by_place = {places[mark.layer]: mark for mark in marks if mark.layer in places}
        self._show()

    def _show(self) -> None:
        self._panel.show_marks(self._context.draft.engine, self._marks)

    def _forget(self) -> None:
        """Forget the marks and the positions: they are those of another model."""
        self._places = None
        self._marks, self._by_place = [], {}
        self._show()

    def _choose(self, engine: str) -> None:
        self._context.state.set_value(_STATE, engine)
        self._context.draft.set_engine(engine)

    def _select(self, severity: str, reason: str) -> None:
        wanted = [place for place, mark in self.marks.items() if (mark.severity, mark.reason) == (severity, reason)]
        self._selection.select(wanted)
        if wanted:
            self._selection.set_current(min(wanted))
