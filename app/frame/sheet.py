"""A non-modal panel over the middle of the window. Esc or its button closes it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QToolButton, QVBoxLayout, QWidget
from shiboken6 import isValid

from app.theme import Theme

_MARGIN = 32


class Sheet(QFrame):
    """A title, a close button and content.

    Signals:
        closed: the sheet was closed.
    """

    closed = Signal()

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAutoFillBackground(True)
        self.setFrameShape(QFrame.Shape.NoFrame)  # `paintEvent` draws a border that is visible in the dark scheme too
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._theme = theme
        self._before: QWidget | None = None
        self._heading = QLabel()
        font = self._heading.font()
        font.setWeight(font.Weight.DemiBold)
        font.setPointSizeF(font.pointSizeF() * 1.25)
        self._heading.setFont(font)
        self._close = QToolButton()
        self._close.setObjectName("sheet_close")
        self._close.setAutoRaise(True)
        self._close.setAccessibleName(self.tr("Close"))
        self._close.setToolTip(self.tr("Close (Esc)"))
        self._close.clicked.connect(self.dismiss)
        head = QHBoxLayout()
        head.addWidget(self._heading, 1)
        head.addWidget(self._close)
        self._scroll = QScrollArea()
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setWidgetResizable(True)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._column = column = QVBoxLayout(self)
        column.setContentsMargins(24, 16, 16, 24)
        column.setSpacing(16)
        column.addLayout(head)
        column.addWidget(self._scroll, 1)
        self._ground = parent
        parent.installEventFilter(self)
        theme.changed.connect(self._paint_new)
        self._paint_new()
        self.hide()

    def set_title(self, title: str) -> None:
        """Set the title."""
        self._heading.setText(title)
        self.setAccessibleName(title)

    def set_content(self, content: QWidget) -> None:
        """Set the content."""
        self._scroll.setWidget(content)

    def present(self) -> None:
        """Show the sheet above all other children of its parent, with the focus."""
        self._before = self.window().focusWidget()
        self._place()
        self.show()
        self.raise_()
        self._close.setFocus(Qt.FocusReason.OtherFocusReason)

    def dismiss(self) -> None:
        """Close the sheet and restore the focus."""
        if self.isHidden():
            return
        self.hide()
        if self._before is not None and isValid(self._before):
            self._before.setFocus(Qt.FocusReason.OtherFocusReason)
        self._before = None
        self.closed.emit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize and not self.isHidden():
            self._place()
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setPen(self._theme.color("muted"))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

    def _place(self) -> None:
        ground = self._ground.rect().adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        content = self._scroll.widget()
        wanted = content.sizeHint() if content is not None else self.sizeHint()
        extra = self._column.contentsMargins()
        width = min(ground.width(), wanted.width() + extra.left() + extra.right() + 24)
        height = min(ground.height(), wanted.height() + extra.top() + extra.bottom() + 64)
        self.resize(width, height)
        self.move(ground.center().x() - width // 2, ground.center().y() - height // 2)

    def _paint_new(self) -> None:
        self._close.setIcon(self._theme.icon("close"))
