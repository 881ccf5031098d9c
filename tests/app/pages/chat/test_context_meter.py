"""The context meter: use of the context, and omitted messages."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QProgressBar
from pytestqt.qtbot import QtBot

from app.pages.chat.context_meter import ContextMeter
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from tests.app.find import find
from tests.app.pages.chat.parts import shown


@pytest.fixture
def meter(theme: Theme, qtbot: QtBot) -> ContextMeter:
    return shown(qtbot, ContextMeter(theme), 600, 30)


def words(meter: ContextMeter) -> ElidedLabel:
    return find(meter, ElidedLabel, "figure_context")


def test_nothing_is_shown_while_nothing_is_known(meter: ContextMeter) -> None:
    assert not words(meter).isVisible()


def test_it_keeps_its_height(meter: ContextMeter) -> None:
    before = meter.sizeHint().height(), meter.height()
    meter.show_use(12, 2048)
    assert (meter.sizeHint().height(), meter.height())[1] == before[1]


def test_the_room_is_told_before_anything_was_said(meter: ContextMeter) -> None:
    meter.show_use(0, 8192)
    assert words(meter).text() == "Context: 8,192 tokens"


def test_what_is_used_is_told(meter: ContextMeter) -> None:
    meter.show_use(1204, 8192)
    assert words(meter).text() == "1,204 of 8,192 tokens"
    bar = find(meter, QProgressBar)
    assert (bar.value(), bar.maximum()) == (1204, 8192)


def test_little_room_is_told_before_there_is_none(meter: ContextMeter) -> None:
    meter.show_use(1900, 2048)
    assert (words(meter).text(), words(meter).role) == ("1,900 of 2,048 tokens, nearly full", "warning")


@pytest.mark.parametrize(("count", "said"), [(1, "oldest message omitted"), (4, "4 oldest messages omitted")])
def test_what_the_model_does_not_see_any_more_is_told(meter: ContextMeter, count: int, said: str) -> None:
    meter.show_use(2000, 2048, count)
    assert said in words(meter).text()
