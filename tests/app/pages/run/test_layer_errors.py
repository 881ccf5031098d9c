"""The bars of the errors of the layers of a block."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt

from app.pages.run.layer_errors import LayerErrors
from app.shared.run.record import StartErrors
from app.theme import Theme
from tests.app.replayed_runs import window_for

ERRORS = {"q": StartErrors(0.4, 0.1), "k": StartErrors(0.2, 0.1)}


@pytest.fixture
def layers(theme: Theme) -> Iterator[LayerErrors]:
    made = LayerErrors(theme)
    window = window_for(made, 480, 300)
    window.show()
    yield made
    window.close()


def texts(layers: LayerErrors) -> list[tuple[str, str]]:
    return [(row.kind, row.text) for row in layers.rows]


def test_layers_are_in_the_order_of_the_model_and_wait_for_their_errors(layers: LayerErrors) -> None:
    layers.show_errors(("k", "q", "down"), ERRORS)
    arrow = "\N{RIGHTWARDS ARROW}"
    assert texts(layers) == [("k", f"20 % {arrow} 10 %"), ("q", f"40 % {arrow} 10 %"), ("down", "")]


def test_layers_of_other_blocks_have_a_row(layers: LayerErrors) -> None:
    layers.show_errors((), ERRORS)
    assert [kind for kind, _ in texts(layers)] == ["q", "k"]


def test_a_screen_reader_hears_the_errors(layers: LayerErrors) -> None:
    layers.show_errors(("q", "down"), {"q": ERRORS["q"]})
    assert layers.accessibleDescription() == "q: 40 % \N{RIGHTWARDS ARROW} 10 %"


@pytest.mark.parametrize("direction", [Qt.LayoutDirection.LeftToRight, Qt.LayoutDirection.RightToLeft])
def test_the_bar_of_plain_rounding_is_as_long_as_its_error(layers: LayerErrors, direction: Qt.LayoutDirection) -> None:
    """The layer with the largest error has the full length, the one with half of it half the length."""
    layers.setLayoutDirection(direction)
    layers.show_errors(("q", "k"), {"q": StartErrors(0.4, 0.4), "k": StartErrors(0.2, 0.2)})
    picture = layers.grab().toImage()
    color = layers.theme.color("accent").rgb()
    lengths = sorted({
        sum(picture.pixel(x, y) == color for x in range(picture.width())) for y in range(picture.height())
    })  # fmt: skip
    longest, shorter = lengths[-1], next(length for length in reversed(lengths) if length < 0.9 * lengths[-1])
    assert shorter == pytest.approx(longest / 2, abs=3)
