"""Controller of the target inference engine: marks of unsupported and slow layers, and their undoable repair.

Large models are checked in a thread; the previous marks remain until it has finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, Signal

from app.pages.layers.engine.panel import EnginePanel
from app.pages.layers.selection import Selection
from app.shared.calls.background import Background
from core.bitsmap import BitsMap
from core.formats import engines
from core.formats.engines import EngineIssue

if TYPE_CHECKING:
    from app.shared.context import Context

_STATE: Final = "layers/engine"
_AT_ONCE: Final = 3000
"""Maximum number of layers that are checked without a thread."""
_PATIENCE: Final = 120
"""Delay in milliseconds after an edit before a large model is checked."""


class EngineControl(QObject):
    """Controller that connects an `EnginePanel` with the draft and stores the selected engine.

    Signals:
        marks_changed: The marks of the layers changed.
    """

    marks_changed = Signal()

    def __init__(
        self, context: Context, selection: Selection, panel: EnginePanel, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._context, self._selection, self._panel = context, selection, panel
        self._marks: list[EngineIssue] = []
        self._by_place: dict[int, EngineIssue] = {}
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
    def marks(self) -> dict[int, EngineIssue]:
        """The known problems of the engine with layers, by their position in `tree.nameable`."""
        return self._by_place

    def recompute(self) -> None:
        """Check the map of the draft; `marks_changed` is emitted if that finishes later."""
        draft, engine = self._context.draft, self._context.draft.engine
        plans, name = draft.plans, draft.choices.formats[0]
        if draft.model is None or not engine or len(plans) <= _AT_ONCE:
            self._checks.forget()
            self._set(draft.marks)
            return
        tree = draft.model.tree
        self._checks.ask(lambda: engines.check(engine, tree, plans, name))

    def repair(self) -> None:
        """Change the layers that the engine cannot load, and only those, to supported settings."""
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

    def _take(self, marks: list[EngineIssue]) -> None:
        self._set(marks)
        self.marks_changed.emit()

    def _set(self, marks: list[EngineIssue]) -> None:
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
        """Clear the marks and positions of the previous model."""
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
