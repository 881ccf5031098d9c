"""The Layers page: bits for each layer, as a map and as a table, and the size of the result.

The page keeps one selection for map, table and panel, and turns what the user changes into undoable edits of the
bits map of the draft. `LayersView` arranges the widgets. Files, rules, budget and engines have a control each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import (
    QAction,
    QDragEnterEvent,
    QDropEvent,
    QKeyEvent,
    QKeySequence,
    QPaintEvent,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLayout, QSplitter, QVBoxLayout, QWidget

from app.pages.layers.budget.control import BudgetControl
from app.pages.layers.engine.control import EngineControl
from app.pages.layers.layer_grid import NOTHING, LayerGrid, make_grid
from app.pages.layers.layer_sheet import LayerSheet, make_sheet, summarize
from app.pages.layers.list.layer_filter import LayerFilter
from app.pages.layers.list.layer_list import LayerList
from app.pages.layers.list.layer_table import LayerTable
from app.pages.layers.map.bits_map import BitsMapView
from app.pages.layers.map.colors import Scale
from app.pages.layers.map.legend import MapLegend
from app.pages.layers.map_files import MapFiles
from app.pages.layers.notice import LayersNotice
from app.pages.layers.rules.control import RulesControl
from app.pages.layers.running_memory import running_memory
from app.pages.layers.selection import Selection
from app.pages.layers.side_panel import SidePanel
from app.shared.drop_target import is_map, words_of
from app.shared.rule_words import counted, edited
from app.widgets.segmented import Option, Segmented
from app.widgets.view_stack import ViewStack
from core import bitsmap
from core.allocation.expert_rules import fold_experts
from core.allocation.map_rules import name_towers
from core.bitsmap import TOWER_BITS, BitsMap
from core.errors import BitwrightError
from core.estimation import sizes
from core.model.tree import TOWER
from core.schemes import BITS, UNTOUCHED
from core.wording import figure

if TYPE_CHECKING:
    from app.shared.context import Context
    from app.state import State
    from app.theme import Theme

_WIDE: Final = 1250
"""Minimum width of the page in pixels to show map and table side by side."""
_ROOMY: Final = 1500
"""Minimum width of the window in pixels for a wider panel and the plot of the loss increase below the map."""
_PLOT: Final = 230
_COLUMN, _LEAST = 64, 300
"""Preferred width of a map column, and minimum width of map and table, in pixels."""
_VIEW: Final = "layers/view"


class LayersView(QWidget):
    """The content of the page with a model."""

    def __init__(
        self, theme: Theme, state: State, selection: Selection, model: LayerTable, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._state = state
        # Created in reading order, which is the order of the Tab key.
        self.color_by = self._color_choice(theme)
        self.legend = MapLegend(theme, self)
        self.filter = LayerFilter(theme, self)
        self.view = self._view_choice(theme)
        self.map = BitsMapView(theme, selection, self)
        self.map.setObjectName("bits_map")
        self.table = LayerList(model, selection, self)
        self.side = SidePanel(theme, state, self)
        self.inspector, self.next = self.side.inspector, self.side.next
        self._curve_known = self._wide = False
        self._columns = 0
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 16, 16, 16)
        row.setSpacing(16)
        row.addLayout(self._left(), 1)
        row.addWidget(self.side)
        self.view.chosen.connect(self._choose_view)
        self._show_views()

    def focus_layers(self) -> None:
        """Set the keyboard focus to the map, or to the table if the map is hidden."""
        (self.table if self.map.isHidden() else self.map).setFocus(Qt.FocusReason.OtherFocusReason)

    def set_known(self, *, losses: bool, loss_increase: bool) -> None:
        """Enable coloring by loss and by sensitivity if these values are known."""
        wholes = (
            ("loss", losses, self.tr("Color by the final loss of each block")),
            ("sensitivity", loss_increase, self.tr("Color by the predicted loss increase at the fewest bits")),
        )
        missing = {
            "loss": self.tr("Available after a run of this model in this window"),
            "sensitivity": self.tr("Available after measuring the sensitivity in Budget"),
        }
        for name, known, about in wholes:
            button = self.color_by.button(name)
            button.setEnabled(known)
            button.setToolTip(about if known else missing[name])

    def set_curve_known(self, known: bool) -> None:
        """Show or hide the plot of the loss increase."""
        self._curve_known = known
        self._show_views()

    def make_room(self, columns: int) -> None:
        """Resize the map to the width of its columns, up to 60 % of the width."""
        self._columns = columns
        room = max(sum(self._views.sizes()), self._views.width())
        needed = min(max(_COLUMN * (columns + 1), _LEAST), room * 3 // 5)
        self._views.setSizes([needed, room - needed])

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show map and table side by side if there is room."""
        super().resizeEvent(event)
        self._show_views()

    def _color_choice(self, theme: Theme) -> Segmented:
        choice = Segmented(
            theme,
            (
                Option("bits", self.tr("Bits"), self.tr("Color by bits")),
                Option("sensitivity", self.tr("Sensitivity"), self.tr("Color by sensitivity")),
                Option("size", self.tr("Size"), self.tr("Color by size in the output")),
                Option("loss", self.tr("Loss"), self.tr("Color by the final loss of each block")),
            ),
            self,
        )
        choice.setObjectName("color_by")
        choice.set_value("bits")
        return choice

    def _view_choice(self, theme: Theme) -> Segmented:
        choice = Segmented(
            theme,
            (
                Option("map", self.tr("Map"), self.tr("Show the map")),
                Option("table", self.tr("Table"), self.tr("Show the table")),
            ),
            self,
        )
        choice.setObjectName("view")
        choice.set_value("table" if self._state.value(_VIEW, "map") == "table" else "map")
        return choice

    def _left(self) -> QLayout:
        colors = _RoomyLabel(self.tr("&Color by"), self)
        colors.setBuddy(self.color_by)
        upper = QHBoxLayout()
        upper.setSpacing(8)
        upper.addWidget(colors)
        upper.addWidget(self.color_by)
        upper.addWidget(self.legend)
        upper.addStretch(1)
        middle = QHBoxLayout()
        middle.setSpacing(16)
        middle.addWidget(self.filter, 1)
        middle.addWidget(self.view)
        self._views = QSplitter(Qt.Orientation.Horizontal, self)
        self._views.setChildrenCollapsible(False)
        for widget in (self.map, self.table):
            widget.setMinimumWidth(_LEAST)
            self._views.addWidget(widget)
        self._views.setStretchFactor(1, 1)
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addLayout(upper)
        column.addLayout(middle)
        column.addWidget(self._views, 1)
        self._below = QVBoxLayout()
        column.addLayout(self._below)
        return column

    def _choose_view(self, view: str) -> None:
        self._state.set_value(_VIEW, view)
        self._show_views()

    def _show_views(self) -> None:
        wide = self.width() >= _WIDE
        widened, self._wide = wide and not self._wide, wide
        table = self.view.value == "table"
        self.view.setVisible(not wide)
        self.map.setVisible(wide or not table)
        self.table.setVisible(wide or table)
        if widened and self._columns:
            self.make_room(self._columns)
        self._place_plot(roomy=self.window().width() >= _ROOMY)

    def _place_plot(self, *, roomy: bool) -> None:
        """Place the plot of the loss increase below the map if there is room, else in the Budget view."""
        budget = self.side.budget
        self.side.set_roomy(roomy)
        place = self._below if roomy else budget.plot_place
        if place.indexOf(budget.plot) < 0:
            place.addWidget(budget.plot)
            budget.plot.setFixedHeight(_PLOT)
            # Keep the Tab order: after the table, or after the button of the measurement.
            self.setTabOrder(self.table if roomy else budget.start, budget.plot)
        budget.plot.setVisible(self._curve_known)


class _RoomyLabel(QLabel):
    """A label that is painted only if its whole text fits."""

    def minimumSizeHint(self) -> QSize:
        """Return a width of 0."""
        return QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the text if it fits."""
        if self.width() >= self.sizeHint().width():
            super().paintEvent(event)


_KEYS: Final = {**{str(bits): bits for bits in BITS}, "0": UNTOUCHED}


class LayersPage(QWidget):
    """The third page of the window, which shows and edits the bits map."""

    page_id = "layers"

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.title = self.tr("Layers")
        self.keys = (
            ("Space", self.tr("On the map: add or remove the current layer")),
            ("Shift+Right", self.tr("On the map: select a range")),
            ("Ctrl++", self.tr("On the map: zoom in")),
            ("Alt+Up", self.tr("In the rules: move a rule up")),
        )
        self.selection = Selection(self)
        self._grid: LayerGrid | None = None
        self._sheet: LayerSheet | None = None
        self._names: list[str] = []
        self._matches: frozenset[int] | None = None
        self._coloring = "bits"
        self.table_model = LayerTable(context.theme, self)
        self.notice = LayersNotice(context.theme, self)
        self.body = LayersView(context.theme, context.state, self.selection, self.table_model, self)
        self._stack = ViewStack(self)
        self._stack.addWidget(self.notice)
        self._stack.addWidget(self.body)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self._stack)
        self._files = MapFiles(context, self)
        side = self.body.side
        self._rules = RulesControl(context, self.selection, side.rules, self)
        self.budget = BudgetControl(context, self.selection, side.budget, self)
        self._engine = EngineControl(context, self.selection, side.engine, self)
        self.setAcceptDrops(True)
        self._make_actions()
        self._connect()
        self._view_changed(side.view)
        self.refresh()
        self._show_next()

    # --- public ---

    def open_file(self, path: str | Path) -> None:
        """Load the bits map of a file or of a checkpoint as an undoable edit; report errors."""
        self._files.open(path)

    def save_file(self, path: str | Path) -> None:
        """Save the bits map to a file; report errors."""
        self._files.save(path)

    def set_keys(self, **keys: Any) -> None:
        """Set `bits`, `group_size` or `sym` of the selected layers as one undoable edit."""
        if self._sheet is None or not self.selection.layers:
            self.context.show_message(self.tr("Select layers first."))
            return
        every = self._sheet.linears
        linears = [every[layer] for layer in sorted(self.selection.layers)]
        if keys.get("bits", UNTOUCHED) not in TOWER_BITS and any(linear.block == TOWER for linear in linears):
            self.context.show_message(self.tr("Layers of towers can have 8 or 4 bits, or stay in 16."))
            self._show_selection()
            return
        draft = self.context.draft
        before = draft.choices.bits_map
        changed = bitsmap.with_layers(
            name_towers(self._sheet.tree, before),
            [linear.name for linear in linears],
            exact_only=[linear.name for linear in linears if linear.block < 0 or linear.kept],
            **keys,
        )
        changed = fold_experts(self._sheet.tree, changed, linears)
        draft.edit_map(changed, f"{edited(**keys)}, {counted(len(linears))}")
        if draft.choices.bits_map is before:
            self._show_selection()  # Revert the buttons of the panel to the actual values.

    def select_all(self) -> None:
        """Select all layers of the blocks, or those that match the filter.

        The head is excluded unless the filter matches it, as with rules.
        """
        if self._matches is not None:
            self.selection.select(self._matches)
        elif self._sheet is not None:
            self.selection.select(n for n, linear in enumerate(self._sheet.tree.linears) if linear.block >= 0)

    def select_matches(self) -> None:
        """Select the layers that match the filter, and set the focus to them."""
        if self._matches:
            self.selection.select(self._matches)
            self.selection.set_current(min(self._matches))
            self.body.focus_layers()

    def refresh(self) -> None:
        """Show the model, the map and the size of the draft."""
        self._engine.recompute()
        self._show_layers()

    def _show_layers(self) -> None:
        draft = self.context.draft
        opened, plans = draft.model, draft.plans
        if opened is None or not plans:
            self._forget_layers()
            self.notice.show_missing(opened, draft.misfit)
            self._stack.setCurrentWidget(self.notice)
            self._show_sheet()
        else:
            fresh = self._sheet is None
            if self._grid is None:
                self._grid = make_grid(opened.tree)
                self._names = [linear.name for linear in opened.tree.nameable]
            known = (self._losses(), draft.sensitivity, self._engine.marks)
            self._sheet = make_sheet(opened.tree, plans, draft.choices.formats[0], *known, before=self._sheet)
            self._stack.setCurrentWidget(self.body)
            if fresh:
                self.body.make_room(self._grid.columns)
            self._show_sheet()
            if fresh:
                self._filter_changed(self.body.filter.field.text())

    def _forget_layers(self) -> None:
        self.selection.clear()
        self.selection.set_current(NOTHING)
        self._grid = self._sheet = None

    # --- set-up ---

    def _make_actions(self) -> None:
        for key, bits in _KEYS.items():
            words = self.tr("{} bits for the selected layers").format(bits)
            if bits == UNTOUCHED:
                words = self.tr("Keep the selected layers in 16 bits")
            self._act(words, [key], partial(self.set_keys, bits=bits))
        stack = self.context.draft.undo_stack
        self._act(self.tr("Undo an edit of the map"), ["Ctrl+Z"], stack.undo)
        self._act(self.tr("Redo an edit of the map"), ["Ctrl+Shift+Z", "Ctrl+Y"], stack.redo)
        self._act(self.tr("Select all layers"), ["Ctrl+A"], self.select_all)
        self._act(self.tr("Filter the layers"), ["Ctrl+F"], self.body.filter.field.setFocus)
        self._act(self.tr("Open a bits map"), ["Ctrl+O"], self._files.choose)
        self._act(self.tr("Save the bits map"), ["Ctrl+S"], self._files.choose_save_path)

    def _act(self, text: str, keys: list[str], slot: Callable[[], object]) -> None:
        action = QAction(text, self)
        action.setShortcuts([QKeySequence(key) for key in keys])
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        action.triggered.connect(lambda _checked=False: slot())
        self.addAction(action)

    def _connect(self) -> None:
        draft, body, side = self.context.draft, self.body, self.body.side
        draft.model_replaced.connect(self._forget_layers)
        for signal in (draft.model_changed, draft.bits_map_changed, draft.formats_changed, draft.engine_changed):
            signal.connect(self.refresh)
        draft.sensitivity_changed.connect(self._show_layers)
        for signal in (draft.changed, draft.machine_changed, self.context.runs.changed):
            signal.connect(self._show_next)
        self.context.runs.changed.connect(self._run_changed)
        self.selection.changed.connect(self._show_selection)
        body.filter.changed.connect(self._filter_changed)
        body.filter.select_wanted.connect(self.select_matches)
        body.color_by.chosen.connect(self._set_coloring)
        body.map.scale_changed.connect(self._show_legend)
        body.map.fold_wanted.connect(self._fold)
        body.next.clicked.connect(self._start)
        side.inspector.wanted.connect(self._set_key)
        side.view_changed.connect(self._view_changed)
        for action, act in (
            (side.open, self._files.choose),
            (side.save, self._files.choose_save_path),
            (side.take, self._files.choose_checkpoint),
            (side.copy_command, self._files.copy_command),
            (side.copy_config, self._files.copy_config),
            (side.simplify, self._files.simplify),
            (side.reset, self._reset),
        ):
            action.triggered.connect(act)
        self.budget.curve_known.connect(body.set_curve_known)
        self._engine.marks_changed.connect(self._show_marks)
        # Use the arguments of the signals: a stack that is being destroyed emits them but must not be accessed.
        stack = draft.undo_stack
        for button, act, possible, text in (
            (side.undo, stack.undo, stack.canUndoChanged, stack.undoTextChanged),
            (side.redo, stack.redo, stack.canRedoChanged, stack.redoTextChanged),
        ):
            button.clicked.connect(act)
            possible.connect(button.setEnabled)
            text.connect(button.setToolTip)
        side.show_undo(stack.undoText(), stack.redoText())
        self.notice.pressed.connect(self._press_notice)

    # --- display ---

    def _show_sheet(self) -> None:
        sheet = self._sheet
        losses, loss_increase = sheet is not None and bool(sheet.losses), self.context.draft.sensitivity is not None
        self.body.set_known(losses=losses, loss_increase=loss_increase)
        if (self._coloring == "loss" and not losses) or (self._coloring == "sensitivity" and not loss_increase):
            self.body.color_by.set_value("bits")
            self._set_coloring("bits")
        self.body.map.show_layers(self._grid, sheet)
        self.table_model.show_sheet(sheet, self._grid)
        self._show_selection()
        current = self.context.draft.choices.bits_map
        self.body.side.reset.setEnabled(bool(current.rules or current.layers))
        self._show_cost()

    def _view_changed(self, view: str) -> None:
        """Handle a change of the panel view: hidden views are not updated."""
        self._rules.set_seen(view == "rules")
        self.budget.set_seen(view == "budget")

    def _show_marks(self) -> None:
        """Show the marks of the target inference engine, which are computed in the background."""
        if self._sheet is not None and self._sheet.marks != self._engine.marks:
            self._sheet = replace(self._sheet, marks=self._engine.marks)
            self._show_sheet()

    def _show_cost(self) -> None:
        """Show the totals of the map."""
        draft, cost, sheet = self.context.draft, self.body.side.cost, self._sheet
        if sheet is None or draft.model is None or draft.planned_size is None:
            cost.show_nothing()
            self.budget.show_now(None)
            return
        tree, first = sheet.tree, draft.choices.formats[0]
        others = {name: sizes.output_size(tree, draft.plans, name) for name in draft.choices.formats[1:]}
        cost.show_sizes(draft.model.source_bytes, {first: draft.planned_size, **others})
        cost.show_memory(running_memory(draft, tree, draft.planned_size.total))
        loss_increase, missing = sheet.loss_increase_known
        cost.show_loss_increase(loss_increase, missing)
        self.budget.show_now(loss_increase)

    def _show_selection(self) -> None:
        layers, sheet = self.selection.layers, self._sheet
        summary = summarize(sheet, layers) if sheet is not None else None
        self.body.inspector.show_selection(sheet, summary, layers)
        marks = sheet.marks if sheet is not None else {}
        self.body.inspector.show_marks((mark for layer, mark in marks.items() if layer in layers), len(layers))

    def _show_legend(self, scale: Scale) -> None:
        legend = self.body.legend
        if self._coloring == "bits":
            used = {case.scheme.bits for case in self._sheet.plans.cases} if self._sheet is not None else set()
            legend.show_bits(sorted({*BITS, UNTOUCHED, *used}))
        elif scale.low is None or scale.high is None:
            legend.show_nothing()
        else:
            scaled, unit = self._sheet.unit if self._coloring == "size" and self._sheet is not None else (1.0, "")
            legend.show_ramp(figure(scale.low / scaled), f"{figure(scale.high / scaled)} {unit}".rstrip())

    def _show_next(self) -> None:
        reason = self.context.draft.problem()
        if self.context.runs.active:
            reason = self.tr("A run is in progress; see the Run page.")
        self.body.next.setEnabled(not reason)
        self.body.next.setToolTip(reason)
        self.body.side.reason.set_text(reason)

    def showEvent(self, event: QShowEvent) -> None:
        """Set the focus to the layers and update what may have changed, such as the free disk space."""
        super().showEvent(event)
        self._show_next()
        if self._sheet is not None and not event.spontaneous():
            self.body.focus_layers()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accept a bits map or a quantized checkpoint; leave everything else to the window."""
        if is_map(words_of(event.mimeData())):
            event.acceptProposedAction()
        else:
            event.ignore()

    def dropEvent(self, event: QDropEvent) -> None:
        """Load the dropped map."""
        event.acceptProposedAction()
        self.open_file(words_of(event.mimeData()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc: clear the filter if it has the focus, else the selection; else ignore it."""
        field = self.body.filter.field
        if event.key() != Qt.Key.Key_Escape:
            super().keyPressEvent(event)
        elif field.hasFocus() and field.text():
            field.clear()
        elif self.selection.layers:
            self.selection.clear()
        else:
            event.ignore()

    # --- user actions ---

    def _filter_changed(self, text: str) -> None:
        if self._sheet is None:
            return
        self._matches = None
        try:
            if text:
                self._matches = frozenset(bitsmap.find(self._names, text))
            self.body.filter.show_count(len(self._names) if self._matches is None else len(self._matches), bool(text))
        except BitwrightError as error:
            self.body.filter.show_error(error.message)
        self.body.map.set_matches(self._matches)
        self.table_model.set_matches(self._matches)

    def _set_coloring(self, coloring: str) -> None:
        self._coloring = coloring
        self.body.map.set_coloring(coloring)

    def _fold(self, stem: str) -> None:
        """Expand or collapse the columns of experts."""
        if self._grid is not None:
            self._grid = self._grid.turned(stem)
            self.body.map.show_layers(self._grid, self._sheet)

    def _set_key(self, name: str, value: object) -> None:
        self.set_keys(**{name: value})

    def _reset(self) -> None:
        draft = self.context.draft
        draft.edit_map(BitsMap(draft.choices.bits_map.default), self.tr("Reset all layers"))

    def _press_notice(self) -> None:
        if self.context.draft.misfit:
            self._reset()
        else:
            self.context.go("model")

    def _run_changed(self) -> None:
        if self._sheet is not None and self._losses() != self._sheet.losses:
            self._show_layers()

    def _start(self) -> None:
        self.context.go("run")
        self.context.runs.start(self.context.draft.spec())

    # --- values ---

    def _losses(self) -> dict[int, float]:
        """Return the final loss of each block if the run of this window was of this model."""
        record, opened = self.context.runs.record, self.context.draft.model
        if record is None or record.spec is None or opened is None or record.spec.model != opened.name:
            return {}
        return {block: figures.after for block, figures in record.blocks.items()}
