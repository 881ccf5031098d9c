"""Fixtures of a comparison of two folders with scripted sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from app.pages.chat.comparison.view import ComparisonView
    from app.shared.context import Context


@pytest.fixture
def view(qtbot: QtBot, surroundings: Context, tmp_path: Path) -> ComparisonView:
    from app.pages.chat.comparison.view import ComparisonView
    from core.inference.machine import Device, Machine
    from tests.app.pages.chat.comparison.parts import folders

    cpu = Device("cpu", "cpu", "Test CPU", 8_000_000_000, 0)
    surroundings.draft.set_machine(Machine((cpu,), {"cpu": 1e9}, "cpu"))
    made = ComparisonView(surroundings)
    qtbot.addWidget(made)
    made.open_pair(*folders(tmp_path))
    made.resize(880, 580)
    made.show()
    return made
