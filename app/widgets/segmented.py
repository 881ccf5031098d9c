"""Segmented buttons: a few values side by side of which one is selected, or each of which is on or off.

The first kind works like radio buttons: one Tab stop, arrow keys change the selection.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QSizePolicy, QWidget

from app.theme import Theme
from app.widgets.radio_focus import settle_focus


@dataclass(frozen=True)
class Option:
    """A value with its text, accessible name, optional color and tooltip."""

    value: Any
    text: str
    name: str = ""
    color: QColor | None = None
    tip: str = ""


class _Row(QWidget):
    """A row of buttons, one for each option."""

    def __init__(self, theme: Theme, options: Sequence[Option], parent: QWidget | None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        self._segments: dict[Any, _Segment] = {}
        for option in options:
            segment = _Segment(theme, option)
            segment.clicked.connect(lambda _checked=False, value=option.value: self._clicked(value))
            row.addWidget(segment)
            self._segments[option.value] = segment
        row.addStretch(1)
        theme.changed.connect(self.update)

    def button(self, value: Any) -> QAbstractButton:
        """Return the button of an option."""
        return self._segments[value]

    def _clicked(self, value: Any) -> None:
        raise NotImplementedError


class Segmented(_Row):
    """A row of options of which one is selected.

    Signals:
        chosen: the value that the user selected (not emitted by `set_value`).
    """

    chosen = Signal(object)

    def __init__(self, theme: Theme, options: Sequence[Option], parent: QWidget | None = None) -> None:
        super().__init__(theme, options, parent)
        self._value: Any = None

    @property
    def value(self) -> Any:
        """The selected value; None if it is not among the options."""
        return self._value

    def set_value(self, value: Any) -> None:
        """Select `value`; if it is not among the options, none is selected."""
        chosen = self._segments.get(value)
        self._value = value if chosen else None
        if chosen is not None:
            chosen.setChecked(True)
        for segment in () if chosen else self._segments.values():
            segment.setAutoExclusive(False)  # otherwise Qt keeps the last one checked
            segment.setChecked(False)
            segment.setAutoExclusive(True)
        settle_focus(self._segments.values())

    def _clicked(self, value: Any) -> None:
        if value != self._value:
            self._value = value
            self.chosen.emit(value)


class Toggles(_Row):
    """A row of options, each on or off, of which at least one is on.

    Signals:
        changed: The user changed an option (not emitted by `set_values`).
    """

    changed = Signal()

    def __init__(self, theme: Theme, options: Sequence[Option], parent: QWidget | None = None) -> None:
        super().__init__(theme, options, parent)
        for segment in self._segments.values():
            segment.setAutoExclusive(False)

    @property
    def values(self) -> tuple[Any, ...]:
        """The values that are on, in order."""
        return tuple(value for value, segment in self._segments.items() if segment.isChecked())

    def set_values(self, values: Collection[Any]) -> None:
        """Set these values on and the others off."""
        for value, segment in self._segments.items():
            segment.setChecked(value in values)

    def _clicked(self, value: Any) -> None:
        if self.values:
            self.changed.emit()
        else:
            self._segments[value].setChecked(True)


class _Segment(QAbstractButton):
    """A button for an option, painted as a rounded field that is filled if it is checked."""

    def __init__(self, theme: Theme, option: Option) -> None:
        super().__init__()
        self._theme, self._color = theme, option.color
        self.setText(option.text)
        self.setToolTip(option.tip or option.name)
        self.setAccessibleName(option.name or option.text)
        self.setAccessibleDescription(option.tip)
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Return the size for bold text, so that checking the button does not change its size."""
        metrics = QFontMetrics(_bold(self.font()))
        return QSize(max(48, metrics.horizontalAdvance(self.text()) + 28), metrics.height() + 14)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint background, border, text and focus ring."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        checked, enabled = self.isChecked(), self.isEnabled()
        fill, text = self._theme.color("surface"), self.palette().color(QPalette.ColorRole.ButtonText)
        line = self._theme.color("line")
        if checked:
            fill = self._theme.color("accent") if enabled else self._theme.color("line")
            line = fill
            text = self._theme.text_on(fill) if enabled else text
        elif self.underMouse() and enabled:
            line = self._theme.color("muted")
        box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setPen(QPen(line, 1))
        painter.setBrush(fill)
        painter.drawRoundedRect(box, 5, 5)
        if self._color is not None:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self._color)
            painter.drawRoundedRect(QRectF(box.left() + 10, box.bottom() - 5, box.width() - 20, 3), 1.5, 1.5)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(text, 1, Qt.PenStyle.DotLine))
            painter.drawRoundedRect(box.adjusted(2.5, 2.5, -2.5, -2.5), 3, 3)
        painter.setPen(text)
        painter.setFont(_bold(self.font()) if checked else self.font())
        raised = box.adjusted(0, 0, 0, -3) if self._color is not None else box
        painter.drawText(raised, Qt.AlignmentFlag.AlignCenter, self.text())


def _bold(font: QFont) -> QFont:
    heavy = QFont(font)
    heavy.setBold(True)
    return heavy
