"""Plot of the predicted loss increase over the size of the output: the Pareto curve, and the current map as a point.

The mouse reads values from the curve, a click applies the map of a point; so do arrow keys and Enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.plotting import LazyPlot
from core.wording import figure, human

if TYPE_CHECKING:
    import numpy as np
    import pyqtgraph
    from numpy.typing import NDArray

_MOST: Final = 600
"""Maximum number of points that are drawn and that the arrow keys stop at."""
_PAGE: Final = 20


@dataclass(frozen=True, eq=False)
class ParetoCurve:
    """The points of the curve in order of size: bytes of the output, bits per weight, loss increase."""

    bytes: NDArray[np.int64]
    bits: NDArray[np.float64]
    loss_increase: NDArray[np.float64]


class ParetoPlot(LazyPlot):
    """The plot with a line of text above it.

    Signals:
        taken(int): the point of the curve whose map is to be applied.
    """

    taken = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "pareto_plot", parent)
        self._items: dict[str, Any] = {}
        self._curve: ParetoCurve | None = None
        self._shown: NDArray[np.int64] | None = None
        self._now: tuple[int, float, float] | None = None
        self._at = -1
        self._words = ElidedLabel(theme, role="muted", parent=self)
        self._words.setObjectName("pareto_words")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self._words)
        column.addLayout(self.layers, 1)
        self.setMinimumSize(200, 150)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Predicted loss increase over size"))
        self.setWhatsThis(self.tr("Arrow keys move along the curve, Enter applies the map of the point."))

    def sizeHint(self) -> QSize:
        """Return a fixed size, as the size hint of a graphics view is its current size."""
        return QSize(320, 200)

    @property
    def at(self) -> int:
        """The index of the highlighted point; -1 for none."""
        return self._at

    def show_curve(self, curve: ParetoCurve | None) -> None:
        """Show the points of a curve; None clears it."""
        import numpy as np

        self._curve, self._at, self._shown = curve, -1, None
        if curve is not None:
            sound = np.flatnonzero(curve.loss_increase > 0)
            if len(sound) > _MOST:
                sound = sound[np.linspace(0, len(sound) - 1, _MOST).round().astype(int)]
            self._shown = sound
        self.draw()

    def show_now(self, size: int, bits: float, loss_increase: float | None) -> None:
        """Show the current map as a point; None for `loss_increase` hides it."""
        self._now = None if loss_increase is None else (size, bits, loss_increase)
        self._draw_points()
        self._show_text()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move along the curve with the arrow keys, apply the map of the point with Enter."""
        steps = {
            Qt.Key.Key_Left: -1, Qt.Key.Key_Down: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Up: 1,
            Qt.Key.Key_PageUp: -_PAGE, Qt.Key.Key_PageDown: _PAGE, Qt.Key.Key_Home: -_MOST, Qt.Key.Key_End: _MOST,
        }  # fmt: skip
        key = Qt.Key(event.key())
        if self._shown is None or not len(self._shown):
            super().keyPressEvent(event)
        elif key in steps:
            self._read(self._place() + steps[key])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and self._at >= 0:
            self.taken.emit(self._at)
        else:
            super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Highlight the point nearest to the current map."""
        super().focusInEvent(event)
        if self._at < 0 and self._shown is not None and len(self._shown):
            self._read(self._place())

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Remove the highlight."""
        super().focusOutEvent(event)
        self._read(-1)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Highlight the point under the mouse, apply its map with a click."""
        if event.type() == QEvent.Type.Leave:
            self._read(-1)
        elif isinstance(event, QMouseEvent) and self._shown is not None and len(self._shown):
            place = self._near(event.position().x())
            if event.type() == QEvent.Type.MouseMove:
                self._read(place)
            elif event.type() == QEvent.Type.MouseButtonRelease and event.button() == Qt.MouseButton.LeftButton:
                self._read(place)
                self.taken.emit(self._at)
            event.accept()
            return True
        return False

    # --- highlighted point ---

    def _place(self) -> int:
        """Return the index among the shown points that is highlighted, or that is nearest to the current map."""
        import numpy as np

        assert self._curve is not None
        assert self._shown is not None
        if self._at >= 0:
            return int(np.searchsorted(self._shown, self._at))
        size = self._now[0] if self._now is not None else 0
        return int(np.abs(self._curve.bytes[self._shown] - size).argmin())

    def _near(self, x: float) -> int:
        import numpy as np

        if self.plot is None or self._curve is None or self._shown is None:
            return -1
        scene = self.plot.mapToScene(round(x), 0)
        size = self.plot.getPlotItem().vb.mapSceneToView(scene).x() * self._scale()[0]
        return int(np.abs(self._curve.bytes[self._shown] - size).argmin())

    def _read(self, place: int) -> None:
        """Highlight a point by its index among the shown points; -1 for none."""
        if self._shown is None or not len(self._shown):
            self._at = -1
        else:
            self._at = (
                -1 if place < 0 and not self.hasFocus() else int(self._shown[min(max(place, 0), len(self._shown) - 1)])
            )
        self._draw_points()
        self._show_text()

    def _show_text(self) -> None:
        curve = self._curve
        if curve is not None and self._at >= 0:
            values = (int(curve.bytes[self._at]), float(curve.bits[self._at]), float(curve.loss_increase[self._at]))
            text = self.tr("{}; click or press Enter to apply").format(_point_text(*values))
        elif self._now is not None:
            text = self.tr("Current map: {}").format(_point_text(*self._now))
        else:
            text = ""
        self._words.setText(text)
        self.setAccessibleDescription(text)

    # --- drawing ---

    def make_items(self, plot: pyqtgraph.PlotWidget) -> None:
        """Add the curve and the points, and handle the mouse."""
        import pyqtgraph

        plot.setMouseTracking(True)
        plot.viewport().setMouseTracking(True)
        plot.viewport().installEventFilter(self)
        item = plot.getPlotItem()
        left = item.getAxis("left")
        left.setLabel(self.tr("Loss increase"))
        left.tickStrings = _powers
        left.setWidth(64)
        self._items = {
            "line": pyqtgraph.PlotDataItem(antialias=True),
            "now": pyqtgraph.ScatterPlotItem(size=11, symbol="o", antialias=True),
            "read": pyqtgraph.ScatterPlotItem(size=9, symbol="d", antialias=True),
        }
        for drawn in self._items.values():
            item.addItem(drawn)

    def draw(self) -> None:
        """Show the curve and the points."""
        import numpy as np

        curve, shown = self._curve, self._shown
        self._show_text()
        if self.plot is None:
            return
        if curve is None or shown is None or not len(shown):
            self.layers.setCurrentWidget(self.empty)
            return
        scale, unit = self._scale()
        x, y = curve.bytes[shown] / scale, np.log10(curve.loss_increase[shown])
        self._items["line"].setData(x, y)
        self.plot.getPlotItem().getAxis("bottom").setLabel(self.tr("Output size ({})").format(unit))
        self._draw_points()
        self.layers.setCurrentWidget(self.plot)

    def _draw_points(self) -> None:
        import math

        if self.plot is None or self._curve is None or self._shown is None or not len(self._shown):
            return
        scale = self._scale()[0]
        now = self._now
        seen = [(now[0] / scale, math.log10(now[2]))] if now is not None and now[2] > 0 else []
        self._items["now"].setData([x for x, _ in seen], [y for _, y in seen])
        read = []
        if self._at >= 0 and self._curve.loss_increase[self._at] > 0:
            read = [(float(self._curve.bytes[self._at]) / scale, math.log10(self._curve.loss_increase[self._at]))]
        self._items["read"].setData([x for x, _ in read], [y for _, y in read])

    def _scale(self) -> tuple[float, str]:
        most = float(self._curve.bytes[-1]) if self._curve is not None and len(self._curve.bytes) else 0.0
        return (1e9, "GB") if most >= 2e9 else (1e6, "MB") if most >= 2e6 else (1e3, "kB")

    def tint(self) -> None:
        """Set the colors of the curve and the points."""
        import pyqtgraph

        self._items["line"].setPen(pyqtgraph.mkPen(self.theme.color("accent"), width=2))
        self._items["now"].setBrush(self.theme.color("warning"))
        self._items["read"].setBrush(self.theme.color("accent"))
        for name in ("now", "read"):
            self._items[name].setPen(pyqtgraph.mkPen(self.theme.color("surface"), width=1))


def _point_text(size: int, bits: float, loss_increase: float) -> str:
    return f"{human(size)}, {bits:.2f} bits, loss increase {figure(loss_increase)}"


def _powers(values: list[float], _scale: float, spacing: float) -> list[str]:
    """Return the ticks of a logarithmic axis as numbers."""
    return [figure(10**value) if spacing >= 0.1 else "" for value in values]
