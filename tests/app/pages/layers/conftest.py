"""A Layers page where the window puts it, empty and with a model of 30 blocks.

Imports nothing of Qt at the top: where it cannot be loaded the tests are skipped, and this file must not fail first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from PySide6.QtWidgets import QScrollArea
    from pytestqt.qtbot import QtBot

    from app.pages.layers.page import LayersPage
    from app.pages.layers.selection import Selection
    from app.shared.context import Context


@pytest.fixture
def parts(qtbot: QtBot, context: Context) -> tuple[LayersPage, QScrollArea]:
    from tests.app.pages.layers.parts import placed

    return placed(qtbot, context)


@pytest.fixture
def place(parts: tuple[LayersPage, QScrollArea]) -> QScrollArea:
    return parts[1]


@pytest.fixture
def empty(parts: tuple[LayersPage, QScrollArea]) -> LayersPage:
    return parts[0]


@pytest.fixture
def page(context: Context, empty: LayersPage) -> LayersPage:
    from tests.app.pages.layers.parts import model
    from tests.core.paper_model import llama

    context.draft.choose(model=model(llama(30)))
    return empty


@pytest.fixture
def selection(qapp: object) -> Selection:
    from app.pages.layers.selection import Selection

    return Selection()
