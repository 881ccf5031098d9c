"""Base class of the plots, and their style.

pyqtgraph is imported when a plot is first shown. As that takes half a second, a thread does it, after the main thread
has created PySide6's types.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QPalette, QShowEvent
from PySide6.QtWidgets import QLabel, QStackedLayout, QWidget

if TYPE_CHECKING:
    import pyqtgraph

    from app.theme import Theme

_POLL_MS: Final = 20
_SLICE_SECONDS: Final = 0.005
_importer: list[threading.Thread] = []


def begin_import() -> None:
    """Start the import of pyqtgraph unless it was started before. It needs the event loop."""
    if not _importer:
        _importer.append(threading.Thread(target=_import, name="plotting", daemon=True))
        _create_types(_qt_names())


def ready() -> bool:
    """Return whether pyqtgraph has been imported."""
    return bool(_importer) and _importer[0].ident is not None and not _importer[0].is_alive()


def _qt_names() -> Iterator[tuple[ModuleType, str]]:
    return ((module, name) for module in (QtCore, QtGui, QtWidgets) for name in dir(module))


def _create_types(names: Iterator[tuple[ModuleType, str]]) -> None:
    """Create the types of PySide6 in short slices, and then start the thread of the import.

    PySide6 creates a type when its name is first used, and the process crashes if two threads do that at the same time.
    The import of pyqtgraph uses all names.
    """
    end = time.perf_counter() + _SLICE_SECONDS
    for module, name in names:
        getattr(module, name)
        if time.perf_counter() > end:
            QTimer.singleShot(0, lambda: _create_types(names))
            return
    _importer[0].start()


class LazyPlot(QWidget):
    """A plot that is created when it is first shown and pyqtgraph has been imported, and a text to show in its place.

    The plot cannot be dragged, zoomed or focused, so that it takes no keys from the page. A subclass puts `layers` into
    its layout, adds its items in `make_items` and draws them in `draw` and `tint`.
    """

    def __init__(self, theme: Theme, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme, self._name = theme, name
        self.plot: pyqtgraph.PlotWidget | None = None
        self.empty = QLabel(self)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setWordWrap(True)
        self.empty.setAutoFillBackground(True)
        self.layers = QStackedLayout()
        self.layers.addWidget(self.empty)
        theme.changed.connect(self._paint_new)
        self._paint_new()

    def make_items(self, plot: pyqtgraph.PlotWidget) -> None:
        """Add the axes and items to the new plot."""
        raise NotImplementedError

    def draw(self) -> None:
        """Show the values in the plot, if it exists."""
        raise NotImplementedError

    def tint(self) -> None:
        """Set the colors of the items."""
        raise NotImplementedError

    def showEvent(self, event: QShowEvent) -> None:
        """Start the import of pyqtgraph, and create the plot after it."""
        super().showEvent(event)
        if self.plot is None:
            begin_import()
            self._try_to_make()

    def _try_to_make(self) -> None:
        if not ready():
            QTimer.singleShot(_POLL_MS, self, self._try_to_make)
        elif self.plot is None:
            self._make()
            self.draw()

    def _make(self) -> None:
        import pyqtgraph

        plot = pyqtgraph.PlotWidget(self)
        plot.setObjectName(self._name)
        plot.setAccessibleName(self.accessibleName())
        plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        plot.setFrameShape(plot.Shape.NoFrame)
        item = plot.getPlotItem()
        item.setMenuEnabled(False)
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.showGrid(x=False, y=True, alpha=0.15)
        for side in ("bottom", "left"):
            item.getAxis(side).enableAutoSIPrefix(False)
        self.make_items(plot)
        self.plot = plot
        self.layers.addWidget(plot)
        self._paint_new()

    def _paint_new(self) -> None:
        palette = self.empty.palette()
        palette.setColor(QPalette.ColorRole.Window, self.theme.color("surface"))
        palette.setColor(QPalette.ColorRole.WindowText, self.theme.color("muted"))
        self.empty.setPalette(palette)
        if self.plot is None:
            return
        import pyqtgraph

        self.plot.setBackground(self.theme.color("surface"))
        for side in ("bottom", "left"):
            axis = self.plot.getPlotItem().getAxis(side)
            axis.setPen(pyqtgraph.mkPen(self.theme.color("line"), width=1))
            axis.setTextPen(self.theme.color("muted"))
        self.tint()


def _import() -> None:
    import numpy  # noqa: F401
    import pyqtgraph  # noqa: F401
