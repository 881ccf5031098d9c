"""The loss of a block over its iterations, with a mark at the lowest or the chosen iteration.

Depends on curves and colors only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QWidget

from app.shared.run.record import Curve
from app.theme import Theme
from app.widgets.plotting import LazyPlot
from core.wording import figure

if TYPE_CHECKING:
    import pyqtgraph
_MOST_POINTS = 4000
_OUTLIER = 10
"""Ratio of the largest loss to the median from which the scale is logarithmic: a sample with massive activations can
have a hundred times the loss of the others, whose curve would be a flat line."""


class LossPlot(LazyPlot):
    """The plot, or a message if there is nothing to plot."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "loss_plot", parent)
        self._line: Any = None
        self._mark: Any = None
        self._curve: Curve | None = None
        self._kept = 0
        self._length = 0
        self.setLayout(self.layers)
        self.setMinimumSize(240, 140)
        self.setAccessibleName(self.tr("Loss curve"))

    def sizeHint(self) -> QSize:
        """Return a fixed size: a graphics view's own hint is its current size, so a scrolling page would grow."""
        return QSize(320, 180)

    def hasHeightForWidth(self) -> bool:
        """Return False, although the message label has a height for its width."""
        return False

    @property
    def points(self) -> int:
        """Number of losses in the curve."""
        return 0 if self._line is None or self._line.xData is None else len(self._line.xData)

    @property
    def logarithmic(self) -> bool:
        """True if the losses have a logarithmic scale."""
        return self.plot is not None and bool(self.plot.getPlotItem().getAxis("left").logMode)

    def show_curve(self, curve: Curve, iterations: int, kept: int = 0) -> None:
        """Show a curve.

        Args:
            curve: the losses. It may grow; call this method again to draw the new ones.
            iterations: length of the complete curve.
            kept: the iteration whose result was chosen; 0 if not decided yet.
        """
        self._curve, self._length, self._kept = curve, iterations, kept
        if self.plot is not None:
            self.draw()

    def show_message(self, text: str) -> None:
        """Show a message in place of a curve."""
        self._curve = None
        self.empty.setText(text)
        self.setAccessibleDescription(text)
        self.layers.setCurrentWidget(self.empty)

    def make_items(self, plot: pyqtgraph.PlotWidget) -> None:
        """Add the curve and its mark."""
        import pyqtgraph

        item = plot.getPlotItem()
        for side, text in (("bottom", self.tr("Iteration")), ("left", self.tr("Loss (mean squared error)"))):
            item.getAxis(side).setLabel(text)
        item.getAxis("bottom").tickStrings = whole_ticks
        item.getAxis("left").setWidth(76)  # a fixed width, so that longer figures do not move the curve
        self._line = pyqtgraph.PlotDataItem(antialias=False, skipFiniteCheck=True)
        self._mark = pyqtgraph.ScatterPlotItem(size=9, symbol="o", antialias=True)
        item.addItem(self._line)
        item.addItem(self._mark)

    def draw(self) -> None:
        """Show the curve and its mark."""
        import numpy as np

        curve = self._curve
        if self.plot is None or curve is None:
            return
        # copies: an array with an exported buffer cannot grow
        x, y = np.array(curve.iterations), np.array(curve.losses)
        sound = np.isfinite(y)
        if not sound.all():
            x, y = x[sound], y[sound]
        x, y = thinned(x, y)
        log = bool(len(y)) and float(y.min()) > 0 and float(y.max()) > _OUTLIER * float(np.median(y))
        if log != self.logarithmic:
            self.plot.getPlotItem().setLogMode(x=False, y=log)
        self._line.setData(x, y, skipFiniteCheck=True)
        at = self._marked(curve)
        # a scatter plot does not follow the mode of the axes
        self._mark.setData([at[0]] if at else [], [math.log10(at[1]) if log else at[1]] if at else [])
        self.plot.setXRange(0, max(self._length, int(x[-1]) if len(x) else 1, 1), padding=0.02)
        self.layers.setCurrentWidget(self.plot)
        if len(y):
            text = self.tr("Loss from {first} to {last} in {count} iterations")
            words = text.format(first=figure(float(y[0])), last=figure(float(y[-1])), count=len(y))
            self.setAccessibleDescription(words)

    def _marked(self, curve: Curve) -> tuple[float, float] | None:
        """Return the position of the mark: the chosen iteration, else the lowest loss so far."""
        if self._kept > 0:
            try:
                place = curve.iterations.index(self._kept)
            except ValueError:
                return None
            loss = curve.losses[place]
            return (self._kept, loss) if math.isfinite(loss) else None
        return (curve.lowest_at, curve.lowest) if math.isfinite(curve.lowest) else None

    def tint(self) -> None:
        """Set the colors of the curve and its mark."""
        import pyqtgraph

        self._line.setPen(pyqtgraph.mkPen(self.theme.color("accent"), width=1))
        self._mark.setBrush(self.theme.color("warning"))
        self._mark.setPen(pyqtgraph.mkPen(self.theme.color("surface"), width=1))


def whole_ticks(values: list[float], _scale: float, _spacing: float) -> list[str]:
    """Return the tick labels of iterations, which are integers."""
    return [f"{value:.0f}" if float(value).is_integer() else "" for value in values]


def thinned(x: Any, y: Any, most: int = _MOST_POINTS) -> tuple[Any, Any]:
    """Return about `most` points of a curve of NumPy arrays: the lowest and the highest of each interval.

    Drawing 100,000 points takes half a second, and the screen cannot show more.
    """
    import numpy as np

    if len(x) <= most:
        return x, y
    stretch = -(-2 * len(x) // most)
    whole = len(x) // stretch * stretch
    parts = y[:whole].reshape(-1, stretch)
    starts = np.arange(len(parts)) * stretch
    places = np.stack([starts + parts.argmin(axis=1), starts + parts.argmax(axis=1)], axis=1)
    places.sort(axis=1)
    kept = np.concatenate([places.ravel(), np.arange(whole, len(x))])
    return x[kept], y[kept]
