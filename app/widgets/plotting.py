"""Import of pyqtgraph in a thread when a plot is first shown, as that takes half a second, and the style of plots."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from app.theme import Theme

_importer: list[threading.Thread] = []


def begin_import() -> None:
    """Start the import of pyqtgraph in a thread unless it was started before."""
    if not _importer:
        _importer.append(threading.Thread(target=_import, name="plotting", daemon=True))
        _importer[0].start()


def ready() -> bool:
    """Return whether pyqtgraph has been imported."""
    return bool(_importer) and not _importer[0].is_alive()


def tint_ground(widget: QWidget, theme: Theme) -> None:
    """Set the colours of the placeholder of a plot."""
    palette = widget.palette()
    palette.setColor(QPalette.ColorRole.Window, theme.color("surface"))
    palette.setColor(QPalette.ColorRole.WindowText, theme.color("muted"))
    widget.setPalette(palette)


def tint_axes(plot: Any, theme: Theme) -> None:
    """Set the colours of the background and axes of a `pyqtgraph.PlotWidget`."""
    import pyqtgraph

    plot.setBackground(theme.color("surface"))
    for side in ("bottom", "left"):
        axis = plot.getPlotItem().getAxis(side)
        axis.setPen(pyqtgraph.mkPen(theme.color("line"), width=1))
        axis.setTextPen(theme.color("muted"))


def _import() -> None:
    import numpy  # noqa: F401
    import pyqtgraph  # noqa: F401
