"""Painting what stands around the cells of the bits map: titles of columns, headings of experts, numbers of blocks.

All stay in view however far the map is scrolled. Knows nothing of keys and mouse.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPalette, QPen

from app.pages.layers.map.map_geometry import BOX
from app.pages.layers.map.map_scene import Scene
from app.shared.layer_grid import APART, Band

_SMALLEST: Final = 8
_LARGEST: Final = 13


def paint_titles(painter: QPainter, scene: Scene) -> None:
    """The kinds, and above those of experts what they are."""
    geometry = scene.geometry
    painter.fillRect(0, 0, scene.view.width(), geometry.top, scene.palette.color(QPalette.ColorRole.Window))
    painter.setFont(scene.font)
    plain, accent = scene.palette.color(QPalette.ColorRole.WindowText), scene.theme.color("accent")
    current = scene.place[1] if scene.focused and scene.place is not None and scene.place[0] != APART else -1
    metrics = QFontMetrics(scene.font)
    wide = geometry.cell.width()
    every = -(-metrics.height() // wide) if geometry.upright else 1
    low = QRect(0, geometry.top - metrics.height() - 4, wide + geometry.gap, metrics.height())
    for column in geometry.visible(scene.scroll, scene.view)[1]:
        left = geometry.left + column * wide - scene.scroll.x()
        title = scene.grid.titles[column]
        painter.setPen(accent if column == current else plain)
        if not geometry.upright or metrics.horizontalAdvance(title) + 4 <= wide:
            painter.drawText(low.translated(left, 0), Qt.AlignmentFlag.AlignCenter, title)
        elif column % every == 0:
            room = geometry.top - geometry.band - 6
            painter.save()
            painter.translate(left + (wide + metrics.ascent()) / 2, geometry.top - 4)
            painter.rotate(-90)
            painter.drawText(0, 0, metrics.elidedText(title, Qt.TextElideMode.ElideMiddle, room))
            painter.restore()
    painter.save()
    painter.setClipRect(QRect(geometry.left, 0, scene.view.width(), geometry.top))
    for band in scene.grid.bands:
        _paint_band(painter, scene, band, metrics)
    painter.restore()


def _paint_band(painter: QPainter, scene: Scene, band: Band, metrics: QFontMetrics) -> None:
    """The heading of one module of all experts, with the box that opens or folds them."""
    heading = scene.geometry.heading(band, scene.scroll, scene.view)
    if heading.width() < BOX:
        return
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(scene.palette.color(QPalette.ColorRole.Midlight))
    painter.drawRoundedRect(QRectF(heading), 3, 3)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    box = scene.geometry.box(heading)
    text = scene.palette.color(QPalette.ColorRole.WindowText)
    _paint_box(painter, box, band.folded, text)
    room = QRect(box.right() + 4, heading.top(), heading.right() - box.right() - 6, heading.height())
    count = f"\N{MULTIPLICATION SIGN}{band.experts}"
    words = count if band.folded else f"{band.title}  {count}"
    if metrics.horizontalAdvance(count) <= room.width():
        painter.setPen(scene.theme.color("muted") if band.folded else text)
        words = metrics.elidedText(words, Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, words)


def _paint_box(painter: QPainter, box: QRect, plus: bool, colour: QColor) -> None:
    painter.setPen(QPen(colour, 1))
    painter.drawRect(box.adjusted(0, 0, -1, -1))
    middle, arm = box.center(), BOX // 2 - 2
    painter.drawLine(middle.x() - arm, middle.y(), middle.x() + arm, middle.y())
    if plus:
        painter.drawLine(middle.x(), middle.y() - arm, middle.x(), middle.y() + arm)


def paint_numbers(painter: QPainter, scene: Scene) -> None:
    """The blocks."""
    geometry = scene.geometry
    window = scene.palette.color(QPalette.ColorRole.Window)
    painter.save()
    painter.setClipRect(QRect(0, geometry.top, geometry.left, scene.view.height()))
    painter.fillRect(0, geometry.top, geometry.left, scene.view.height(), window)
    tall = geometry.cell.height()
    font = QFont(scene.font)
    if tall >= _SMALLEST + 2:
        font.setPixelSize(min(tall - 3, _LARGEST))
    painter.setFont(font)
    muted, accent = scene.theme.color("muted"), scene.theme.color("accent")
    current = scene.place[0] if scene.focused and scene.place is not None else APART
    every = max(1, -(-QFontMetrics(font).ascent() // tall))
    flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    for row in geometry.visible(scene.scroll, scene.view)[0]:
        if row % every == 0:
            painter.setPen(accent if row == current else muted)
            top = geometry.first_row + row * tall - scene.scroll.y()
            painter.drawText(QRect(0, top, geometry.left - 8, tall * every + geometry.gap), flags, str(row))
    painter.restore()
    painter.fillRect(0, 0, geometry.left, geometry.top, window)
