"""The budget: measuring, the curve, what is best within the budget, pins, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QPushButton, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.budget.panel import BudgetPanel
from app.pages.layers.page import LayersPage
from app.shared.context import Context
from app.widgets import plotting
from app.widgets.elided_label import ElidedLabel
from core.bitsmap import Rule
from core.errors import BadInput
from core.events import Progress, Stage
from core.sensitivity.spec import MEASURES
from core.service.messages import MeasureSensitivity
from tests.app.find import find
from tests.app.pages.layers.budget.tables import measured, table_of
from tests.app.pages.layers.parts import label, model, placed, select_kind
from tests.app.recorded_calls import RecordedCalls
from tests.app.surroundings import surroundings_with
from tests.core.paper_model import llama


@pytest.fixture
def place(qtbot: QtBot, context: Context, calls: RecordedCalls) -> Iterator[QScrollArea]:
    page, area = placed(qtbot, surroundings_with(context, calls=calls))
    context.draft.choose(model=model(llama(30)))
    page.body.side.show_view("budget")
    yield area
    plotting.begin_import()
    qtbot.waitUntil(plotting.ready, timeout=60_000)


@pytest.fixture
def budget(place: QScrollArea) -> LayersPage:
    page = place.widget()
    assert isinstance(page, LayersPage)
    return page


@pytest.fixture
def known(qtbot: QtBot, budget: LayersPage) -> LayersPage:
    """The same page with a curve."""
    measured(budget)
    qtbot.waitUntil(lambda: budget.budget._pareto is not None)
    return budget


def panel(page: LayersPage) -> BudgetPanel:
    return page.body.side.budget


def count(page: LayersPage) -> int:
    return int(page.context.draft.undo_stack.count())


# --- Measuring ----------------------------------------------------------------------------------------------


def test_nothing_can_be_allocated_before_it_was_measured(budget: LayersPage) -> None:
    assert not panel(budget).allocate.isEnabled()
    assert "Measure" in panel(budget).allocate.toolTip()


def test_measuring_asks_with_the_choices_and_shows_how_long(budget: LayersPage, calls: RecordedCalls) -> None:
    panel(budget).start.click()
    call = calls.of(MeasureSensitivity)[0]
    assert (call.request.spec.model, call.request.spec.measure) == ("paper", "fisher")
    assert panel(budget).measuring.isVisible()
    assert not panel(budget).start.isVisible()
    call.on_event(Stage("analyse"))
    call.on_event(Progress(0.25, 100, 160))
    assert find(panel(budget).measuring, ElidedLabel, "figures").text() == "25%, 2 to 3 min left"


def test_a_table_opens_the_sensitivity_and_the_allocation(
    qtbot: QtBot, budget: LayersPage, calls: RecordedCalls
) -> None:
    assert not budget.body.color_by.button("sensitivity").isEnabled()
    panel(budget).start.click()
    calls.of(MeasureSensitivity)[0].on_success(table_of(llama(30)))
    assert budget.body.color_by.button("sensitivity").isEnabled()
    assert not panel(budget).start.isVisible()
    qtbot.waitUntil(panel(budget).allocate.isEnabled)


def test_measuring_can_be_cancelled(budget: LayersPage, calls: RecordedCalls) -> None:
    panel(budget).start.click()
    panel(budget).measuring.cancel.click()
    assert calls.of(MeasureSensitivity)[0].stopped
    assert panel(budget).start.isVisible()


def test_another_model_ends_it(budget: LayersPage, calls: RecordedCalls) -> None:
    panel(budget).start.click()
    budget.context.draft.choose(model=model(llama(2), "other"))
    assert calls.of(MeasureSensitivity)[0].stopped


def test_why_it_failed_stands_below_the_button(budget: LayersPage, calls: RecordedCalls) -> None:
    panel(budget).start.click()
    calls.of(MeasureSensitivity)[0].on_failure(BadInput("The text is too short.", "Give more."))
    assert label(budget, "measure_problem") == "The text is too short. Give more."
    assert panel(budget).start.isVisible()


def test_another_measure_is_another_table(known: LayersPage) -> None:
    box = panel(known).measure
    box.setCurrentIndex(1)
    box.activated.emit(1)
    assert label(known, "measure_about") == MEASURES[1].about
    assert known.context.draft.sensitivity is None
    assert panel(known).start.isVisible()
    box.setCurrentIndex(0)
    box.activated.emit(0)
    assert known.context.draft.sensitivity is not None


# --- How much -----------------------------------------------------------------------------------------------


def test_the_slider_follows_the_map_until_somebody_means_an_amount(known: LayersPage) -> None:
    field = panel(known).amount.field
    known.select_all()
    known.set_keys(bits=8)
    high = field.value()
    known.set_keys(bits=2)
    assert field.value() < high
    panel(known).amount.slider.setValue(100)
    meant = field.value()
    known.set_keys(bits=8)
    assert field.value() == meant


def test_the_slider_stops_at_what_can_be_spent(known: LayersPage) -> None:
    amount = panel(known).amount
    amount.kind.button("bytes").click()
    amount.slider.setValue(50)
    pareto = known.budget._pareto
    assert pareto is not None
    assert amount.value in pareto.bytes


def test_a_number_outside_is_brought_inside(known: LayersPage) -> None:
    amount = panel(known).amount
    amount.field.setValue(99)
    pareto = known.budget._pareto
    assert pareto is not None
    assert amount.value == pytest.approx(pareto.bits[-1])


@pytest.mark.parametrize(("kind", "suffix"), [("bpw", "bits"), ("bytes", "MB"), ("ram", "MB")])
def test_each_kind_has_its_unit(known: LayersPage, kind: str, suffix: str) -> None:
    panel(known).amount.kind.button("bytes").click()
    panel(known).amount.kind.button("ram").click()
    panel(known).amount.kind.button(kind).click()
    assert panel(known).amount.field.suffix().strip() == suffix
    assert known.context.state.value("layers/budget", "") == kind


# --- Allocating ---------------------------------------------------------------------------------------------


def allocate(qtbot: QtBot, page: LayersPage, bits: float) -> None:
    before = count(page)
    panel(page).amount.set_value(bits)
    panel(page).allocate.click()
    qtbot.waitUntil(lambda: count(page) > before)


@pytest.mark.parametrize("bits", [2.5, 3.5, 5.0])
def test_the_best_map_keeps_to_the_budget_and_is_one_step_of_undo(qtbot: QtBot, known: LayersPage, bits: float) -> None:
    before = known.context.draft.choices.bits_map
    allocate(qtbot, known, bits)
    size = known.context.draft.size
    assert size is not None
    assert size.effective_bits <= bits
    assert "best" in label(known, "budget_result")
    known.context.draft.undo_stack.undo()
    assert known.context.draft.choices.bits_map == before


def test_fused_layers_get_the_same_bits(qtbot: QtBot, known: LayersPage) -> None:
    allocate(qtbot, known, 3.3)
    plans = known.context.draft.plans
    for block in range(30):
        bits = {plan.scheme.bits for plan in plans if plan.linear.block == block and plan.linear.kind[-6:-5] in "qkv"}
        assert len(bits) == 1


def test_a_tie_says_why(budget: LayersPage) -> None:
    box = panel(budget).fused_boxes["fuse_qkv"]
    assert "one matrix" in box.toolTip()
    assert not panel(budget).fused_boxes["experts"].isVisible()


def test_least_bits_hold(qtbot: QtBot, known: LayersPage) -> None:
    panel(known).min_bits.text.setPlainText("*.down_proj = 4")
    qtbot.waitUntil(lambda: not known.budget._curves.busy)
    allocate(qtbot, known, 3.5)
    assert {plan.scheme.bits for plan in known.context.draft.plans if "down" in plan.linear.name} <= {4, 8}


def test_the_selection_can_be_kept_as_it_is(qtbot: QtBot, known: LayersPage) -> None:
    select_kind(known, "v_proj")
    known.set_keys(bits=8, group_size=32)
    panel(known).fused_boxes["fuse_qkv"].click()
    panel(known).keep.click()
    assert panel(known).pins.rules == (Rule("*.v_proj", 8, 32),)
    qtbot.waitUntil(lambda: not known.budget._curves.busy)
    allocate(qtbot, known, 4.0)
    assert {plan.scheme.label() for plan in known.context.draft.plans if "v_proj" in plan.linear.name} == {"W8 g32 sym"}


def test_a_line_that_is_no_pin_is_told(known: LayersPage) -> None:
    panel(known).pins.text.setPlainText("nonsense")
    assert "not a pattern" in label(known, "pins_note")
    assert panel(known).pins.rules is None


def test_a_pin_of_no_layer_is_told(qtbot: QtBot, known: LayersPage) -> None:
    panel(known).pins.text.setPlainText("*.nothing = 8")
    qtbot.waitUntil(lambda: "matches no layer" in label(known, "measure_problem"))
    assert not panel(known).allocate.isEnabled()


def test_the_last_choice_stays_on(known: LayersPage) -> None:
    for bits in (2, 3, 4, 8):
        panel(known).bits.button(bits).click()
    assert panel(known).choices == (8,)


# --- The curve ----------------------------------------------------------------------------------------------


def test_a_point_is_taken_as_one_step(qtbot: QtBot, known: LayersPage) -> None:
    pareto = known.budget._pareto
    assert pareto is not None
    before = count(known)
    known.budget.apply_point(len(pareto) // 2)
    qtbot.waitUntil(lambda: count(known) == before + 1)
    size = known.context.draft.size
    assert size is not None
    assert size.total == pareto.bytes[len(pareto) // 2]


def test_arrows_go_along_the_curve_and_enter_takes(qtbot: QtBot, known: LayersPage) -> None:
    plot = panel(known).plot
    plot.setFocus()
    qtbot.keyClick(plot, Qt.Key.Key_Home)
    assert plot.at == 0
    qtbot.keyClick(plot, Qt.Key.Key_Right)
    assert plot.at > 0
    assert "press Enter to apply" in plot.accessibleDescription()
    with qtbot.waitSignal(plot.taken):
        qtbot.keyClick(plot, Qt.Key.Key_Return)


def test_the_mouse_reads_and_takes(qtbot: QtBot, known: LayersPage) -> None:
    plot = panel(known).plot
    plotting.begin_import()
    qtbot.waitUntil(lambda: plotting.ready() and plot.plot is not None, timeout=60_000)
    assert plot.plot is not None
    inside = plot.plot.viewport()
    with qtbot.waitSignal(plot.taken):
        qtbot.mouseClick(inside, Qt.MouseButton.LeftButton, pos=QPoint(inside.width() // 2, 40))


def test_the_curve_stands_below_the_map_where_there_is_room(known: LayersPage, place: QScrollArea) -> None:
    plot = panel(known).plot
    assert panel(known).isAncestorOf(plot)
    place.resize(1700, 900)
    assert known.body.isAncestorOf(plot)
    assert not panel(known).isAncestorOf(plot)
    place.resize(880, 580)
    assert panel(known).isAncestorOf(plot)


def test_without_a_curve_there_is_no_plot(budget: LayersPage) -> None:
    assert not panel(budget).plot.isVisible()


def test_a_run_and_a_measurement_do_not_go_together(budget: LayersPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(budget.context.runs), "active", True)
    budget.context.runs.changed.emit()
    button = find(budget, QPushButton, "measure_start")
    assert (button.isEnabled(), button.toolTip()) == (False, "A run is in progress.")


def test_what_nobody_saw_is_caught_up_with(budget: LayersPage) -> None:
    side = budget.body.side
    high = panel(budget).amount.field.value()
    side.show_view("layers")
    budget.select_all()
    budget.set_keys(bits=2)
    assert panel(budget).amount.field.value() == high
    side.show_view("budget")
    assert panel(budget).amount.field.value() < high
