"""The backends that are not used, with the reason and the command that installs each; collapsed by default."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from app.pages.chat.fold_button import FoldButton
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.inference.backends.backend import BackendRow


class UnusedBackends(QWidget):
    """A button that expands the reasons."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: tuple[BackendRow, ...] = ()
        self._button = FoldButton(self)
        self._button.setObjectName("why_not")
        self._button.toggled.connect(self._fold)
        self._inner: QWidget | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(4)
        self._column.addWidget(self._button, 0, Qt.AlignmentFlag.AlignLeft)
        self._fold(False)
        self.hide()

    def show_rows(self, rows: Sequence[BackendRow]) -> None:
        """Show these backends; hidden if there are none."""
        if tuple(rows) == self._rows:
            return
        self._rows = tuple(rows)
        self._button.setText(self.tr("Other backends ({count})").format(count=len(rows)))
        self.setVisible(bool(rows))
        if self._inner is not None:
            self._inner.hide()
            self._inner.deleteLater()
            self._inner = None
        self._fold(self._button.isChecked())

    def _fold(self, opened: bool) -> None:
        if opened and self._inner is None:
            self._inner = self._made()
            self._column.addWidget(self._inner)
        if self._inner is not None:
            self._inner.setVisible(opened)

    def _made(self) -> QWidget:
        inner = QWidget(self)
        column = QVBoxLayout(inner)
        column.setContentsMargins(12, 0, 0, 4)
        column.setSpacing(2)
        for row in self._rows:
            column.addWidget(TintedLabel(self._theme, row.title or row.name, wrap=True, parent=inner))
            reason = Note(self._theme, row.why_not or self.tr("Not used: faster backends are available."), parent=inner)
            reason.setObjectName(f"why_{row.name}")
            column.addWidget(reason)
            if row.install:
                column.addLayout(self._command(row, inner))
            column.addSpacing(6)
        return inner

    def _command(self, row: BackendRow, parent: QWidget) -> QHBoxLayout:
        words = ElidedLabel(self._theme, row.install, middle=True, parent=parent)
        words.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        words.set_exact(row.install)
        copy = QToolButton(parent)
        copy.setObjectName(f"copy_{row.name}")
        copy.setText(self.tr("Copy"))
        copy.setAccessibleName(self.tr("Copy install command of {title}").format(title=row.title or row.name))
        copy.setToolTip(self.tr("Copy install command"))
        copy.setAutoRaise(True)
        copy.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(row.install))
        line = QHBoxLayout()
        line.addWidget(words, 1)
        line.addWidget(copy)
        return line
