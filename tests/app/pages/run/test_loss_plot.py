"""The loss curve of a block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from app.pages.run.loss_plot import LossPlot, thinned
from app.shared.run.record import Curve
from app.theme import Theme
from app.widgets import plotting
from tests.app.replayed_runs import window_for


def curve(*losses: float) -> Curve:
    made = Curve()
    for number, loss in enumerate(losses, 1):
        made.add(number, loss)
    return made


@pytest.fixture
def plot(qtbot: QtBot, theme: Theme) -> Iterator[LossPlot]:
    made = LossPlot(theme)
    window = window_for(made, 480, 300)
    window.show()
    qtbot.waitUntil(lambda: plotting.ready() and made.plot is not None, timeout=60_000)
    yield made
    window.close()


def marked(plot: LossPlot) -> list[tuple[float, float]]:
    return [(spot.pos().x(), spot.pos().y()) for spot in plot._mark.points()]


def test_the_lowest_loss_so_far_is_marked(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0, 1.0, 2.0), 10)
    assert (plot.points, marked(plot)) == (3, [(2.0, 1.0)])


def test_what_was_kept_is_marked_though_another_was_lower(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0, 1.0, 2.0), 10, kept=3)
    assert marked(plot) == [(3.0, 2.0)]


def test_losses_that_are_no_numbers_are_left_out(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0, math.nan, math.inf, 2.0), 10)
    assert plot.points == 2


def test_the_scale_is_logarithmic_while_the_curve_has_outliers(plot: LossPlot) -> None:
    found = []
    for losses in ((3.0, 100.0, 400.0, 2.0, 4.0, 3.0), (3.0, 20.0, 2.0)):
        plot.show_curve(curve(*losses), 10)
        ((_, height),) = marked(plot)
        found.append((plot.logarithmic, round(height, 6)))
    assert found == [(True, round(math.log10(2.0), 6)), (False, 2.0)]


def test_a_curve_without_a_point_is_no_error(plot: LossPlot) -> None:
    plot.show_curve(curve(), 10)
    assert (plot.points, marked(plot)) == (0, [])


def test_a_curve_grows_while_it_is_shown(plot: LossPlot) -> None:
    growing = curve(3.0)
    plot.show_curve(growing, 10)
    growing.add(2, 1.0)
    plot.show_curve(growing, 10)
    assert plot.points == 2


def test_a_very_long_curve_is_drawn_with_few_points_and_keeps_its_extremes() -> None:
    y = np.sin(np.arange(100_000))
    y[54_321], y[98_765] = 7.0, -7.0
    x, thin = thinned(np.arange(100_000), y)
    assert len(thin) < 5000
    assert (thin.max(), thin.min()) == (7.0, -7.0)
    assert (np.diff(x) >= 0).all()
    assert (x[0] < 50, x[-1] >= 99_950) == (True, True)


@pytest.mark.parametrize("length", [0, 1, 3999, 4000, 4001, 8001])
def test_no_length_is_an_odd_one(length: int) -> None:
    x, y = thinned(np.arange(length), np.zeros(length))
    assert len(x) == len(y) <= 4100


def test_the_axis_is_as_long_as_the_tuning_will_be(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0, 2.0), 200)
    assert plot.plot is not None
    low, high = plot.plot.getPlotItem().viewRange()[0]
    assert low <= 0
    assert high >= 200


def test_a_screen_reader_hears_where_the_curve_goes(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0, 2.0, 1.5), 10)
    assert plot.accessibleDescription() == "Loss from 3 to 1.5 in 3 iterations"


def test_colors_follow_the_theme(plot: LossPlot, theme: Theme) -> None:
    plot.show_curve(curve(3.0, 2.0), 10)

    def pen() -> Any:
        return plot._line.opts["pen"].color().name()

    assert pen() == theme.color("accent").name()
    theme.set_scheme("dark")
    assert pen() == theme.color("accent").name()


def test_a_sentence_takes_the_place_of_the_curve(plot: LossPlot) -> None:
    plot.show_curve(curve(3.0), 10)
    plot.show_message("Nothing yet.")
    assert plot.layers.currentWidget() is plot.empty
    plot.show_curve(curve(3.0), 10)
    assert plot.layers.currentWidget() is plot.plot
