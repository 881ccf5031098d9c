"""The curve of the KL divergence of the end-to-end stage."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from app.pages.run.divergence_plot import DivergencePlot, averaged
from app.shared.run.record import Curve
from app.theme import Theme
from app.widgets import plotting
from tests.app.replayed_runs import window_for


def curve(*values: float) -> Curve:
    made = Curve()
    for number, value in enumerate(values, 1):
        made.add(number, value)
    return made


@pytest.fixture
def plot(qtbot: QtBot, theme: Theme) -> Iterator[DivergencePlot]:
    made = DivergencePlot(theme)
    window = window_for(made, 480, 300)
    window.show()
    qtbot.waitUntil(lambda: plotting.ready() and made.plot is not None, timeout=60_000)
    yield made
    window.close()


def test_each_step_is_a_point_and_the_line_their_average(plot: DivergencePlot) -> None:
    plot.show_curve(curve(2.0, 1.0, 1.5), 60)
    assert plot.points == 3
    assert plot.smoothed[0] == 2.0
    assert all(1.0 < value < 2.0 for value in plot.smoothed[1:])


def test_steps_that_are_no_numbers_are_left_out(plot: DivergencePlot) -> None:
    plot.show_curve(curve(2.0, math.nan, math.inf), 60)
    assert (plot.points, plot.smoothed) == (1, [2.0])


def test_without_a_step_a_text_is_shown(plot: DivergencePlot) -> None:
    plot.show_curve(Curve(), 60)
    assert plot.layers.currentWidget() is plot.empty
    plot.show_curve(curve(1.0), 60)
    assert plot.layers.currentWidget() is plot.plot


def test_the_axes_have_units(plot: DivergencePlot) -> None:
    assert plot.plot is not None
    axes = [plot.plot.getPlotItem().getAxis(side).labelText for side in ("left", "bottom")]
    assert axes == ["KL divergence, nats", "Step"]


@pytest.mark.parametrize("span", [1, 15])
def test_the_average_of_a_constant_is_that_constant(span: int) -> None:
    assert averaged(np.full(40, 0.7), span) == pytest.approx(0.7)


def test_the_average_follows_a_change_within_its_span() -> None:
    found = averaged(np.array([1.0] * 50 + [0.0] * 50), 15)
    assert 0.3 < found[55] < 0.6
    assert found[-1] < 0.01
