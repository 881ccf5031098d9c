"""pyqtgraph without a wait: it takes half a second to import, so that is done in a thread when a plot is first seen.

In the window's thread everything would stand still for as long. And what all plots look like; knows no plot by itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from app.theme import Theme

_importer: list[threading.Thread] = []


def begin_import() -> None:
    """Start to import pyqtgraph, unless that was done before; returns at once."""
    if not _importer:
        _importer.append(threading.Thread(target=_import, name="plotting", daemon=True))
        _importer[0].start()


def ready() -> bool:
    """Whether pyqtgraph can be used without a wait."""
    return bool(_importer) and not _importer[0].is_alive()


def tint_ground(widget: QWidget, theme: Theme) -> None:
    """The colours of what stands in the place of a plot while there is none."""
    palette = widget.palette()
    palette.setColor(QPalette.ColorRole.Window, theme.color("surface"))
    palette.setColor(QPalette.ColorRole.WindowText, theme.color("muted"))
    widget.setPalette(palette)


def tint_axes(plot: Any, theme: Theme) -> None:
    """The colours of a `pyqtgraph.PlotWidget` around its curves."""
    import pyqtgraph

    plot.setBackground(theme.color("surface"))
    for side in ("bottom", "left"):
        axis = plot.getPlotItem().getAxis(side)
        axis.setPen(pyqtgraph.mkPen(theme.color("line"), width=1))
        axis.setTextPen(theme.color("muted"))


def _import() -> None:
    import numpy  # noqa: F401
    import pyqtgraph  # noqa: F401
