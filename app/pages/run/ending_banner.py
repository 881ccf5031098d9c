"""The end of a run without a result: a sentence, a hint, and buttons."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.shared.run.words import Ending
from app.theme import Theme
from app.widgets.panel import Panel
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

_HEADING = 1.2


class EndingBanner(Panel):
    """A panel with the reason and the possible actions.

    Signals:
        again: the user wants to start the same run again.
        log_wanted: the user wants to see the log file of the run.
    """

    again = Signal()
    log_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._headline = TintedLabel(theme, bold=True, wrap=True)
        self._headline.setObjectName("ending_headline")
        font = QFont(self._headline.font())
        font.setPointSizeF(font.pointSizeF() * _HEADING)
        self._headline.setFont(font)
        self._message = TintedLabel(theme, wrap=True)
        self._message.setObjectName("ending_message")
        self._hint = TintedLabel(theme, role="muted", wrap=True)
        self._hint.setObjectName("ending_hint")
        for label in (self._message, self._hint):
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._obstacle = TintedLabel(theme, role="warning", wrap=True)
        self._obstacle.setObjectName("ending_obstacle")
        self._obstacle.hide()
        self._again = make_primary(QPushButton(self.tr("Try again")), theme)
        self._again.setObjectName("try_again")
        self._again.clicked.connect(self.again)
        self._log = QPushButton(self.tr("Show log"))
        self._log.setObjectName("show_log")
        self._log.clicked.connect(self.log_wanted)
        words = QVBoxLayout()
        words.setSpacing(4)
        words.addWidget(self._headline)
        words.addWidget(self._message)
        words.addWidget(self._hint)
        words.addWidget(self._obstacle)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addLayout(words, 1)
        row.addWidget(self._log, 0, Qt.AlignmentFlag.AlignBottom)
        row.addWidget(self._again, 0, Qt.AlignmentFlag.AlignBottom)
        self.column.addLayout(row)

    def show_ending(self, ending: Ending, *, again: bool) -> None:
        """Show the end of a run; `again` if its settings are known."""
        self._headline.setText(ending.headline)
        self._headline.set_role(ending.role if ending.role == "bad" else "")
        self._message.setText(ending.message)
        self._hint.setText(ending.hint)
        self._hint.setVisible(bool(ending.hint))
        self._again.setText(self.tr("Try again") if ending.role == "bad" else self.tr("Start again"))
        self._again.setVisible(again)

    def show_obstacle(self, reason: str) -> None:
        """Show the reason why the run cannot be started again now; "" if it can."""
        if reason == self._obstacle.text():
            return
        self._obstacle.setText(reason)
        self._obstacle.setVisible(bool(reason))
        self._again.setEnabled(not reason)
        self._again.setToolTip(reason)
        self._again.setAccessibleDescription(reason)
