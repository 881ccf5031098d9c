"""Painting of the bits map: the cells as one image, then texts, marks, outlines and the headers around them.

The cells are one image with a pixel for each, because 20,000 rectangles take longer than a frame. Texts, marks and
outlines are painted only where they are visible. Headers stay visible when the map is scrolled.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from PySide6.QtCore import QLine, QPoint, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPainterPath, QPalette, QPen

from app.pages.layers.layer_grid import NOTHING, OUTER_ROW, Band
from app.pages.layers.map.geometry import BOX
from app.pages.layers.map.scene import Scene
from core.schemes import UNTOUCHED

_SMALLEST_TEXT: Final = 8
_LARGEST_TEXT: Final = 13
_NO_ROOM: Final = 8
"""Side in pixels below which selected cells are outlined as an area, as outlines would cover their colors."""
_MARK: Final = 5
"""Side of the corner that marks a layer with a fallback scheme."""
_WARNINGS: Final = (4, 9)
"""Sides of the corner for marks of the target inference engine, in low and in high cells."""
_STRIPS: Final = (2, 8)
"""Heights of the strip that shows the bits of a collapsed cell with different bits."""
_SLIVER: Final = 3
"""Minimum width of a part of that strip."""


def paint(painter: QPainter, scene: Scene) -> None:
    """Paint the whole map."""
    ground = scene.palette.color(QPalette.ColorRole.Base)
    painter.fillRect(QRect(QPoint(0, 0), scene.view), ground)
    painter.save()
    painter.setClipRect(QRect(scene.geometry.left, scene.geometry.top, scene.view.width(), scene.view.height()))
    _paint_colors(painter, scene, ground)
    _paint_mixes(painter, scene)
    _paint_outer(painter, scene)
    _paint_copied(painter, scene)
    _paint_outlines(painter, scene)
    _paint_texts(painter, scene)
    _paint_marks(painter, scene)
    painter.restore()
    paint_titles(painter, scene)
    paint_numbers(painter, scene)


def _paint_colors(painter: QPainter, scene: Scene, ground: QColor) -> None:
    rows, columns = scene.geometry.visible(scene.scroll, scene.view)
    if not rows or not columns or scene.image.isNull():
        return
    gap, cell = scene.geometry.gap, scene.geometry.cell
    corner = scene.rect(rows[0], columns[0]).topLeft() - QPoint(gap, gap)
    target = QRect(corner, QSize(len(columns) * cell.width(), len(rows) * cell.height()))
    painter.drawImage(target, scene.image, QRect(columns[0], rows[0], len(columns), len(rows)))
    if gap:
        for number in range(len(columns)):
            painter.fillRect(corner.x() + number * cell.width(), corner.y(), gap, target.height(), ground)
        for number in range(len(rows)):
            painter.fillRect(corner.x(), corner.y() + number * cell.height(), target.width(), gap, ground)


def _strip(rect: QRect) -> int:
    """Return the height of the strip of a mixed cell."""
    return min(max(rect.height() // 4, _STRIPS[0]), _STRIPS[1])


def _paint_mixes(painter: QPainter, scene: Scene) -> None:
    """Paint collapsed cells with different bits: the most frequent color above, a strip with all shares below."""
    if scene.coloring != "bits" or not scene.cells.mixes:
        return
    for layer, rect in scene.visible:
        mix = scene.cells.mixes.get(layer)
        if mix is None:
            continue
        faded = scene.lit is not None and layer not in scene.lit
        painter.setOpacity(0.3 if faded else 1.0)
        high, total = _strip(rect), sum(count for _, count in mix)
        top, left, done = rect.bottom() + 1 - high, rect.left(), 0
        for number, (bits, count) in enumerate(mix):
            done += count
            last = number == len(mix) - 1
            right = rect.right() + 1 if last else rect.left() + round(rect.width() * done / total)
            # At least the minimum width for each part.
            right = min(max(right, left + _SLIVER), rect.right() + 1 - _SLIVER * (len(mix) - 1 - number))
            painter.fillRect(left, top, right - left, high, scene.theme.bits_color(bits))
            left = right
    painter.setOpacity(1.0)


def _text(scene: Scene, layer: int) -> str:
    return scene.cells.text(layer, scene.coloring, scene.values[layer])


def _paint_outer(painter: QPainter, scene: Scene) -> None:
    painter.setFont(scene.font)
    for number, one in enumerate(scene.grid.outer):
        rect = scene.rect(OUTER_ROW, number)
        if one.layer == NOTHING:
            painter.setPen(QPen(scene.theme.color("line"), 1))
            painter.drawRect(rect.adjusted(0, 0, -1, -1))
            painter.setPen(scene.theme.color("muted"))
            text = f"{one.title}  16"
        else:
            painter.fillRect(rect, QColor.fromRgba(scene.colors[one.layer]))
            painter.setPen(scene.text_color(one.layer))
            text = f"{one.title}  {_text(scene, one.layer)}"
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)


def _paint_copied(painter: QPainter, scene: Scene) -> None:
    """Paint the parts besides the language model as rows above the blocks, grey if they are copied."""
    painter.setFont(scene.font)
    metrics, ground = QFontMetrics(scene.font), scene.palette.color(QPalette.ColorRole.Window)
    for number, part in enumerate(scene.grid.copied):
        rect = scene.geometry.copied_rect(number, scene.scroll, scene.view)
        given = next((layer for layer in part.layers if scene.cells.bits(layer) != UNTOUCHED), None)
        painter.fillRect(rect, ground if given is None else QColor.fromRgba(scene.colors[given]))
        chosen = bool(part.layers) and scene.selected.issuperset(part.layers)
        painter.setPen(
            QPen(scene.palette.color(QPalette.ColorRole.Highlight) if chosen else scene.theme.color("line"), 1)
        )
        painter.drawRect(rect.adjusted(0, 0, -1, -1))
        painter.setPen(scene.theme.color("muted") if given is None else scene.text_color(given))
        words = metrics.elidedText(scene.cells.part_title(part), Qt.TextElideMode.ElideMiddle, rect.width() - 12)
        painter.drawText(rect.adjusted(6, 0, -6, 0), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, words)


def _paint_texts(painter: QPainter, scene: Scene) -> None:
    size = min(scene.geometry.cell.height() - 3, _LARGEST_TEXT)
    if size < _SMALLEST_TEXT:
        return
    mixes = scene.cells.mixes if scene.coloring == "bits" else {}
    _paint_words(painter, scene, size, [(layer, rect) for layer, rect in scene.visible if layer not in mixes])
    above = [(layer, rect.adjusted(0, 2, 0, -_strip(rect))) for layer, rect in scene.visible if layer in mixes]
    if above and above[0][1].height() >= _SMALLEST_TEXT:
        # Between the outline and the strip.
        _paint_words(painter, scene, min(above[0][1].height(), size), above)


def _paint_words(painter: QPainter, scene: Scene, size: int, cells: list[tuple[int, QRect]]) -> None:
    """Paint the texts of cells if they fit into the width."""
    font = QFont(scene.font)
    font.setPixelSize(size)
    painter.setFont(font)
    room = scene.geometry.cell.width() - 2 * scene.geometry.gap
    metrics = QFontMetrics(font)
    fits: dict[str, bool] = {}
    pen = None
    for layer, rect in cells:
        text = _text(scene, layer)
        if text not in fits:
            fits[text] = metrics.horizontalAdvance(text) <= room
        if fits[text]:
            color = scene.text_color(layer)
            if color != pen:
                pen = color
                painter.setPen(color)
            painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)


def _paint_marks(painter: QPainter, scene: Scene) -> None:
    """Paint a corner at the right for a fallback scheme, and at the left for a mark of the target inference engine.

    The tooltip and the side panel show the reason.
    """
    low = min(scene.geometry.cell.width(), scene.geometry.cell.height())
    fallen, marks = scene.cells.fallen, scene.cells.marks
    if not marks and (not fallen or low < 2 * _MARK):
        return
    path = QPainterPath()
    corners: dict[str, QPainterPath] = {"warning": QPainterPath(), "bad": QPainterPath()}
    edges = QPainterPath()
    side = min(max(2 * low // 5, _WARNINGS[0]), _WARNINGS[1], low)
    for layer, rect in (*scene.visible, *scene.outer):
        if layer in fallen and low >= 2 * _MARK:
            _corner(path, QPointF(rect.x() + rect.width(), rect.y()), -_MARK, _MARK)
        if layer in marks:
            corner = QPointF(rect.x(), rect.y())
            # A smaller corner for slow layers, distinguishable without colors.
            own = side if marks[layer].cannot else max(side * 3 // 4, 3)
            _corner(edges, corner, own + 2, own + 2)
            _corner(corners["bad" if marks[layer].cannot else "warning"], corner, own, own)
    painter.fillPath(path, scene.palette.color(QPalette.ColorRole.Text))
    if marks:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        if low > _NO_ROOM:
            painter.fillPath(edges, scene.palette.color(QPalette.ColorRole.Base))
        for role, corner_path in corners.items():
            painter.fillPath(corner_path, scene.theme.color(role))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def _corner(path: QPainterPath, corner: QPointF, across: float, down: float) -> None:
    path.moveTo(corner)
    path.lineTo(corner.x() + across, corner.y())
    path.lineTo(corner.x(), corner.y() + down)
    path.closeSubpath()


def _paint_outlines(painter: QPainter, scene: Scene) -> None:
    smaller = min(scene.geometry.cell.width(), scene.geometry.cell.height())
    thick = 3 if smaller >= 20 else 2
    over = min(1, scene.geometry.gap) if smaller < 20 else 0  # within the gap, as a low cell needs its height for text
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if smaller < _NO_ROOM:
        _outline_areas(painter, scene)
        return
    places = [(layer, rect.adjusted(-over, -over, over, over)) for layer, rect in (*scene.visible, *scene.outer)]
    chosen = [rect for layer, rect in places if scene.chosen(layer)]
    # A thin line in the background color separates the outline from the cell.
    _outline(painter, chosen, scene.palette.color(QPalette.ColorRole.Base), thick, 1)
    _outline(painter, chosen, scene.palette.color(QPalette.ColorRole.Text), 0, thick)
    if scene.cells.folded:
        parts = [rect for layer, rect in places if scene.partly(layer)]
        _outline(painter, parts, scene.palette.color(QPalette.ColorRole.Base), 0, 2)
        _outline(painter, parts, scene.palette.color(QPalette.ColorRole.Text), 0, 2, dashed=True)
    if scene.focused and scene.place is not None:
        layer = scene.grid.layer_at(*scene.place)
        inset = thick - over if scene.chosen(layer) else 0
        rect = scene.rect(*scene.place).adjusted(inset, inset, -inset - 1, -inset - 1)
        color = scene.palette.color(QPalette.ColorRole.Text) if inset else scene.text_color(layer)
        painter.setPen(QPen(color, 1, Qt.PenStyle.DotLine))
        painter.drawRect(rect)


def _outline_areas(painter: QPainter, scene: Scene) -> None:
    """Paint lines between selected and other cells."""
    rows, columns = scene.geometry.visible(scene.scroll, scene.view)
    if not rows or not columns:
        return
    wide, tall, gap = scene.geometry.cell.width(), scene.geometry.cell.height(), scene.geometry.gap
    corner = scene.rect(rows[0], columns[0]).topLeft() - QPoint(gap, gap)
    inside = [[False, *(scene.chosen_at(row, column) for column in columns), False] for row in rows]
    nothing = [False] * (len(columns) + 2)
    lines = []
    for number, (above, here) in enumerate(pairwise([nothing, *inside, nothing])):
        top = corner.y() + number * tall
        for place in range(len(columns)):
            left = corner.x() + place * wide
            if above[place + 1] != here[place + 1]:
                lines.append(QLine(left, top, left + wide, top))
            if here[place] != here[place + 1]:
                lines.append(QLine(left, top, left, top + tall))
        if here[-2]:
            right = corner.x() + len(columns) * wide
            lines.append(QLine(right, top, right, top + tall))
    painter.setPen(QPen(scene.palette.color(QPalette.ColorRole.Text), 1))
    painter.drawLines(lines)


def _outline(
    painter: QPainter, rects: list[QRect], color: QColor, inset: int, thick: int, *, dashed: bool = False
) -> None:
    """Paint outlines inside `rects`, with this distance from their edges."""
    first = inset + thick // 2
    last = -2 * inset - thick
    pen = QPen(color, thick)
    if dashed:
        pen.setDashPattern([2, 2])
    pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
    painter.setPen(pen)
    painter.drawRects(
        [QRect(r.x() + first, r.y() + first, max(r.width() + last, 1), max(r.height() + last, 1)) for r in rects]
    )


def paint_titles(painter: QPainter, scene: Scene) -> None:
    """Paint the titles of the columns, and the headings of experts above them."""
    geometry = scene.geometry
    painter.fillRect(0, 0, scene.view.width(), geometry.top, scene.palette.color(QPalette.ColorRole.Window))
    painter.setFont(scene.font)
    plain, accent = scene.palette.color(QPalette.ColorRole.WindowText), scene.theme.color("accent")
    current = scene.place[1] if scene.focused and scene.place is not None and scene.place[0] != OUTER_ROW else -1
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
    """Paint the heading of a module of experts, with the box that expands or collapses them."""
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


def _paint_box(painter: QPainter, box: QRect, plus: bool, color: QColor) -> None:
    painter.setPen(QPen(color, 1))
    painter.drawRect(box.adjusted(0, 0, -1, -1))
    middle, arm = box.center(), BOX // 2 - 2
    painter.drawLine(middle.x() - arm, middle.y(), middle.x() + arm, middle.y())
    if plus:
        painter.drawLine(middle.x(), middle.y() - arm, middle.x(), middle.y() + arm)


def paint_numbers(painter: QPainter, scene: Scene) -> None:
    """Paint the numbers of the blocks."""
    geometry = scene.geometry
    window = scene.palette.color(QPalette.ColorRole.Window)
    painter.save()
    painter.setClipRect(QRect(0, geometry.top, geometry.left, scene.view.height()))
    painter.fillRect(0, geometry.top, geometry.left, scene.view.height(), window)
    tall = geometry.cell.height()
    font = QFont(scene.font)
    if tall >= _SMALLEST_TEXT + 2:
        font.setPixelSize(min(tall - 3, _LARGEST_TEXT))
    painter.setFont(font)
    muted, accent = scene.theme.color("muted"), scene.theme.color("accent")
    current = scene.place[0] if scene.focused and scene.place is not None else OUTER_ROW
    every = max(1, -(-QFontMetrics(font).ascent() // tall))
    flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    for row in geometry.visible(scene.scroll, scene.view)[0]:
        if row % every == 0:
            painter.setPen(accent if row == current else muted)
            top = geometry.first_row + row * tall - scene.scroll.y()
            painter.drawText(QRect(0, top, geometry.left - 8, tall * every + geometry.gap), flags, str(row))
    painter.restore()
    painter.fillRect(0, 0, geometry.left, geometry.top, window)
