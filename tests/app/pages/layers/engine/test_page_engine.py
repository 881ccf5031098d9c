"""What the output must run on: marks, reasons that select, the repair, and where it is told."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.pages.layers.engine.control import EngineControl
from app.pages.layers.page import LayersPage
from app.pages.run.welcome import RunWelcome
from app.shared.context import Context
from core.bitsmap import BitsMap, Rule
from core.formats import engines
from core.schemes import LayerScheme
from tests.app.find import find
from tests.app.pages.layers.parts import label

ODD = BitsMap(LayerScheme(4, 64), (Rule("*.o_proj", 2), Rule("*.down_proj", 3)))


@pytest.fixture
def odd(page: LayersPage) -> LayersPage:
    page.context.draft.edit_map(ODD, "odd")
    page.body.side.show_view("engine")
    return page


def choose(page: LayersPage, engine: str) -> None:
    box = page.body.side.engine.choice
    box.setCurrentIndex(box.findData(engine))
    box.activated.emit(box.currentIndex())


def reasons(page: LayersPage) -> list[str]:
    view = page.body.side.engine.reasons
    return [view.item(place).text() for place in range(view.count())]


def test_no_engine_marks_nothing(odd: LayersPage) -> None:
    assert (reasons(odd), odd._engine.marks) == ([], {})
    assert label(odd, "engine_summary").startswith("Layers that the engine cannot load")


def test_all_engines_are_offered_by_name(odd: LayersPage) -> None:
    box = odd.body.side.engine.choice
    assert [box.itemText(place) for place in range(1, box.count())] == [engines.title(one) for one in engines.ENGINES]


def test_reasons_are_counted_and_select_their_layers(odd: LayersPage) -> None:
    choose(odd, "vllm-cuda")
    assert label(odd, "engine_summary") == "vLLM on a graphics card cannot load 60 layers."
    place = next(place for place, text in enumerate(reasons(odd)) if text.startswith("no kernel for 3 bits"))
    assert reasons(odd)[place].endswith("30 layers")
    view = odd.body.side.engine.reasons
    view.itemClicked.emit(view.item(place))
    assert {odd.context.draft.plans[layer].linear.kind for layer in odd.selection.layers} == {"mlp.down_proj"}
    odd.body.side.show_view("layers")
    assert label(odd, "selection_marks") == "no kernel for 3 bits"


def test_the_repair_is_one_step_and_leaves_nothing_that_cannot(qtbot: QtBot, odd: LayersPage) -> None:
    choose(odd, "vllm-cuda")
    odd.body.side.engine.repair.click()
    qtbot.waitUntil(lambda: odd.context.draft.choices.bits_map != ODD)
    assert not any(mark.cannot for mark in odd.context.draft.marks)
    assert label(odd, "engine_summary").endswith("supports all layers.")
    assert not odd.body.side.engine.repair.isVisible()
    odd.context.draft.undo_stack.undo()
    assert odd.context.draft.choices.bits_map == ODD


def test_marks_reach_the_sheet(odd: LayersPage) -> None:
    choose(odd, "vllm-cuda")
    assert odd._sheet is not None
    assert len(odd._sheet.marks) == 60
    odd.select_all()
    odd.set_keys(bits=4)
    assert odd._sheet.marks == {}


def test_the_whole_checkpoint_can_be_wrong(odd: LayersPage) -> None:
    choose(odd, "llama-cpp")
    assert len(reasons(odd)) == 1
    odd.body.side.engine.reasons.itemClicked.emit(odd.body.side.engine.reasons.item(0))
    assert odd.selection.layers == frozenset()
    assert not odd.body.side.engine.repair.isVisible()


def test_a_large_model_is_looked_at_in_the_background(
    qtbot: QtBot, odd: LayersPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pages.layers.engine.control._AT_ONCE", 10)
    choose(odd, "vllm-cuda")
    qtbot.waitUntil(lambda: len(odd._engine.marks) == 60)
    assert odd._sheet is not None
    assert len(odd._sheet.marks) == 60


def test_the_engine_is_remembered(odd: LayersPage, context: Context) -> None:
    choose(odd, "gptqmodel")
    context.draft.set_engine("")
    EngineControl(context, odd.selection, odd.body.side.engine)
    assert context.draft.engine == "gptqmodel"


def test_it_stops_no_run_and_the_run_page_says_so(qtbot: QtBot, odd: LayersPage) -> None:
    choose(odd, "vllm-cuda")
    assert odd.body.next.isEnabled()
    welcome = RunWelcome(odd.context)
    qtbot.addWidget(welcome)
    text = find(welcome, QLabel, "welcome_what").text()
    assert text == "paper is ready. vLLM on a graphics card cannot load 60 layers."
