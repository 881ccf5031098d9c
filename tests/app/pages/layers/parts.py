"""A Layers page where the window puts it, and what tests ask of it."""

from __future__ import annotations

from PySide6.QtWidgets import QFrame, QLabel, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from core.model.tree import ModelTree
from tests.app.find import find


def placed(qtbot: QtBot, context: Context) -> tuple[LayersPage, QScrollArea]:
    """An empty page, and the area it is in, in the smallest window."""
    page, area = LayersPage(context), QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidget(page)
    area.resize(880, 580)
    qtbot.addWidget(area)
    with qtbot.waitActive(area):
        area.show()
    return page, area


def model(tree: ModelTree, name: str = "paper") -> OpenedModel:
    """A model that is open."""
    return OpenedModel(name, name, "folder", "", "", tree)


def schemes(page: LayersPage) -> set[str]:
    """The schemes of the selected layers."""
    return {page.context.draft.plans[layer].scheme.label() for layer in page.selection.layers}


def label(page: LayersPage, name: str) -> str:
    """What a label says."""
    found = find(page, QLabel, name)
    return found.text()


def select_kind(page: LayersPage, word: str) -> None:
    """Select all layers of which the filter finds `word`."""
    page.body.filter.field.setText(word)
    page.select_matches()
    page.body.filter.field.clear()
