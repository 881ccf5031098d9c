"""The KL divergence to the original model over the steps of the end-to-end stage: single steps and a smoothed curve.

Depends on curves and colors only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSize
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from app.pages.run.loss_plot import thinned, whole_ticks
from app.shared.run.record import Curve
from app.theme import Theme, mixed
from app.widgets.plotting import LazyPlot
from core.wording import figure

if TYPE_CHECKING:
    import pyqtgraph

_PARTS, _LEAST_SPAN = 5, 15
"""The smoothed curve averages over one in this number of all steps, and over at least as many."""


class DivergencePlot(LazyPlot):
    """The plot, or a message before the first step."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "divergence_plot", parent)
        self._points: Any = None
        self._line: Any = None
        self._curve = Curve()
        self._steps = 0
        self.setLayout(self.layers)
        self.setMinimumSize(240, 140)
        self.setAccessibleName(self.tr("KL divergence of the end-to-end stage"))
        self.empty.setText(self.tr("The KL divergence of the end-to-end steps appears here."))

    def sizeHint(self) -> QSize:
        """Return a fixed size, as `LossPlot` does."""
        return QSize(320, 180)

    def hasHeightForWidth(self) -> bool:
        """Return False, although the message label has a height for its width."""
        return False

    @property
    def smoothed(self) -> list[float]:
        """The values of the smoothed curve."""
        return [] if self._line is None or self._line.yData is None else [float(value) for value in self._line.yData]

    @property
    def points(self) -> int:
        """Number of the steps that are drawn."""
        return 0 if self._points is None else len(self._points.data)

    def show_curve(self, curve: Curve, steps: int) -> None:
        """Show the divergences of a stage with a number of steps; call again to draw new ones."""
        self._curve, self._steps = curve, steps
        if self.plot is not None:
            self.draw()

    def make_items(self, plot: pyqtgraph.PlotWidget) -> None:
        """Add the points and the curve."""
        import pyqtgraph

        item = plot.getPlotItem()
        for side, text in (("bottom", self.tr("Step")), ("left", self.tr("KL divergence, nats"))):
            item.getAxis(side).setLabel(text)
        item.getAxis("bottom").tickStrings = whole_ticks
        item.getAxis("left").setWidth(76)  # as in the plot of the loss
        self._points = pyqtgraph.ScatterPlotItem(size=5, symbol="o", antialias=True, pen=None)
        self._line = pyqtgraph.PlotDataItem(antialias=True, skipFiniteCheck=True)
        item.addItem(self._points)
        item.addItem(self._line)

    def draw(self) -> None:
        """Show the divergences."""
        import numpy as np

        if self.plot is None:
            return
        # copies: an array with an exported buffer cannot grow
        x, y = np.array(self._curve.iterations), np.array(self._curve.losses)
        sound = np.isfinite(y)
        x, y = x[sound], y[sound]
        self._points.setData(*thinned(x, y))
        self._line.setData(*thinned(x, averaged(y, max(_LEAST_SPAN, self._steps // _PARTS))), skipFiniteCheck=True)
        self.plot.setXRange(0, max(self._steps, int(x[-1]) if len(x) else 1, 1), padding=0.02)
        self.layers.setCurrentWidget(self.plot if len(y) else self.empty)
        if len(y):
            text = self.tr("KL divergence from {first} to {last} nats per token in {count} steps")
            words = text.format(first=figure(float(y[0])), last=figure(float(y[-1])), count=len(y))
            self.setAccessibleDescription(words)

    def tint(self) -> None:
        """Set the colors of the points and the curve."""
        import pyqtgraph

        accent: QColor = self.theme.color("accent")
        self._points.setBrush(mixed(self.theme.color("surface"), accent, 0.45))
        self._line.setPen(pyqtgraph.mkPen(accent, width=2))


def averaged(values: Any, span: int) -> Any:
    """Return the exponential moving average of a NumPy array; the newest value has the weight 2 / (span + 1).

    The first averages are divided by the sum of their weights, so that they do not begin at zero.
    """
    import numpy as np

    keep = 1 - 2 / (span + 1)
    found, total, weight = np.empty(len(values)), 0.0, 0.0
    for number, value in enumerate(values.tolist()):
        total, weight = keep * total + value, keep * weight + 1
        found[number] = total / weight
    return found
