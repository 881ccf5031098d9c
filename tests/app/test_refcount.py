"""The fault of PySide6 6.12.0 on Python 3.11: each call that returns nothing took a reference to None with it."""

from __future__ import annotations

import sys

from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

CALLS = 1000


def test_calls_that_return_nothing_leave_none_alone(qtbot: QtBot) -> None:
    widget = QWidget()
    qtbot.addWidget(widget)
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        widget.setEnabled(True)
    assert abs(sys.getrefcount(None) - before) < CALLS // 2
