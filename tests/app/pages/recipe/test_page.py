"""The Recipe page shows the draft and changes it: cards, parameters, bits, formats, folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QCheckBox, QDoubleSpinBox, QLineEdit
from pytestqt.qtbot import QtBot

from app.pages.recipe.page import RecipePage
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from core import recipes
from core.bitsmap import BitsMap, Rule
from core.model.towers import Tower
from core.recipes import Recipe
from core.schemes import LayerScheme
from core.wording import human
from tests.app.find import find
from tests.app.pages.recipe.parts import MACHINE, button, open_more, press_segment, said_by, write


@pytest.fixture
def bare(qtbot: QtBot, context: Context) -> RecipePage:
    """The page while no model is picked."""
    page = RecipePage(context)
    qtbot.addWidget(page)
    page.resize(880, 580)
    page.show()
    return page


@pytest.fixture
def page(bare: RecipePage, context: Context, opened: OpenedModel) -> RecipePage:
    context.draft.choose(model=opened)
    context.draft.set_machine(MACHINE)
    return bare


# --- without a model ---


def test_without_a_model_every_card_says_what_is_missing(bare: RecipePage) -> None:
    cards = bare.form.cards
    assert {cards.card(name).texts()[1] for name in cards.names()} == {""}


def test_without_a_model_nothing_can_be_copied_or_fitted(bare: RecipePage, context: Context) -> None:
    before = context.draft.choices
    button(bare, "goal-fit").click()
    assert button(bare, "copy-command").isHidden()
    assert said_by(bare, "answer").startswith("Select a model first")
    assert context.draft.choices == before


def test_the_other_goals_do_without_a_model(bare: RecipePage, context: Context) -> None:
    button(bare, "goal-best").click()
    assert context.draft.choices.recipe == recipes.load("best")


def test_a_model_that_is_refused_says_why(bare: RecipePage, context: Context, opened: OpenedModel) -> None:
    context.draft.choose(model=replace(opened, tree=replace(opened.tree, refusal="It has experts.")))
    button(bare, "goal-fit").click()
    assert said_by(bare, "answer") == "It has experts."
    assert said_by(bare, "size") == "It has experts."


# --- cards ---


def test_every_recipe_has_a_card_with_purpose_time_and_stages(page: RecipePage) -> None:
    assert page.form.cards.names() == list(recipes.NAMES)
    for name in recipes.NAMES:
        purpose, time, stages = page.form.cards.card(name).texts()
        assert purpose == recipes.load(name).purpose
        assert time.endswith("(estimate)")
        assert stages.startswith("Stages: ")


def test_until_the_machine_is_measured_cards_say_so(bare: RecipePage, context: Context, opened: OpenedModel) -> None:
    context.draft.choose(model=opened)
    assert bare.form.cards.card("quick").texts()[1] == "Time: measuring this machine"


def test_more_work_is_estimated_longer(page: RecipePage, context: Context) -> None:
    times = page._times
    model = context.draft.model
    assert model is not None
    found = [times.seconds(model.tree, recipes.load(name), 1e9) for name in ("quick", "light", "default", "best")]
    highs = [seconds.high for seconds in found if seconds is not None]
    assert len(highs) == 4
    assert highs == sorted(highs)


def test_a_press_on_a_card_picks_the_recipe(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    qtbot.mouseClick(page.form.cards.card("light"), Qt.MouseButton.LeftButton)
    assert context.draft.choices.recipe == recipes.load("light")


def test_a_recipe_that_came_from_elsewhere_gets_a_card(page: RecipePage, context: Context) -> None:
    context.draft.choose(recipe=Recipe("poems", "For poems."))
    assert page.form.cards.card("poems").isChecked()


def test_nothing_is_made_again_when_the_draft_changes(page: RecipePage, context: Context) -> None:
    before = page.findChildren(QAbstractButton)
    context.draft.choose(seed=7, recipe=recipes.load("best"), formats=("auto_gptq",))
    assert page.findChildren(QAbstractButton) == before


# --- parameters ---


def test_a_turned_parameter_marks_its_card(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    open_more(page)
    write(qtbot, page, "parameter-iters", "60")
    assert context.draft.choices.recipe.iters == 60
    assert page.form.cards.card("quick").modified
    assert said_by(page, "changed-count") == "1 parameter changed"


def test_the_parameters_of_a_card_stay_as_it_was_left(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    open_more(page)
    write(qtbot, page, "parameter-iters", "60")
    qtbot.mouseClick(page.form.cards.card("light"), Qt.MouseButton.LeftButton)
    assert context.draft.choices.recipe == recipes.load("light")
    assert page.form.cards.card("quick").modified
    qtbot.mouseClick(page.form.cards.card("quick"), Qt.MouseButton.LeftButton)
    assert context.draft.choices.recipe.iters == 60


def test_parameters_of_the_job_are_no_part_of_the_recipe(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    open_more(page)
    write(qtbot, page, "parameter-seed", "7")
    box = find(page, QCheckBox, "parameter-low_memory")
    box.click()
    assert (context.draft.choices.seed, context.draft.choices.low_memory) == (7, True)
    assert not page.form.cards.card("quick").modified
    assert said_by(page, "changed-count") == "2 parameters changed"


def test_all_parameters_go_back_at_once(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    before = context.draft.choices
    open_more(page)
    write(qtbot, page, "parameter-iters", "60")
    write(qtbot, page, "parameter-seed", "7")
    button(page, "reset-all").click()
    assert context.draft.choices == before
    assert said_by(page, "changed-count") == ""


# --- bits, formats, device, folder ---


@pytest.mark.parametrize(
    ("name", "value", "scheme"),
    [
        ("bits", 2, LayerScheme(2, 64, True)),
        ("group", -1, LayerScheme(4, -1, True)),
        ("sym", False, LayerScheme(4, 64, False)),
    ],
)
def test_the_scheme_is_the_default_of_the_map_and_can_be_undone(
    qtbot: QtBot, page: RecipePage, context: Context, name: str, value: object, scheme: LayerScheme
) -> None:
    before = context.draft.choices.bits_map
    press_segment(qtbot, page, name, value)
    assert context.draft.choices.bits_map == BitsMap(scheme)
    context.draft.undo_stack.undo()
    assert context.draft.choices.bits_map == before


def test_the_rules_of_the_map_stay(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    rule = Rule("*.down_proj", bits=8)
    context.draft.edit_map(BitsMap(rules=(rule,)), "rule")
    assert "Layers page" in said_by(page, "size")
    press_segment(qtbot, page, "bits", 3)
    assert context.draft.choices.bits_map.rules == (rule,)


def test_a_ticked_format_is_chosen(page: RecipePage, context: Context) -> None:
    box = find(page, QCheckBox, "format-gptq")
    box.click()
    assert context.draft.choices.formats == ("auto_round", "auto_gptq")


def test_all_formats_together_are_what_is_written(page: RecipePage, context: Context) -> None:
    context.draft.choose(formats=("auto_round", "auto_gptq"))
    sizes = [context.draft.fit(name).size for name in context.draft.choices.formats]
    assert f"{human(sum(sizes))} on disk" in said_by(page, "summary")


def test_a_folder_that_is_taken_gives_the_rail_a_dot(
    qtbot: QtBot, page: RecipePage, context: Context, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert not page.dot()
    with qtbot.waitSignal(page.dot_changed):
        write(qtbot, page, "output", str(tmp_path / "taken"))
    assert page.dot()
    assert "is not empty" in said_by(page, "output-note")


def test_a_folder_filled_while_the_page_was_away_is_noticed(page: RecipePage, context: Context) -> None:
    page.hide()
    (context.draft.output).mkdir(parents=True)
    context.draft.choose(output=str(context.draft.output.with_name("taken")))
    Path(context.draft.choices.output).mkdir()
    (Path(context.draft.choices.output) / "file").touch()
    page.show()
    assert page.dot()


def test_what_was_chosen_while_the_page_was_away_is_shown(page: RecipePage, context: Context) -> None:
    page.hide()
    context.draft.choose(recipe=recipes.load("best"))
    assert page.form.cards.card("quick").isChecked()
    page.show()
    assert page.form.cards.card("best").isChecked()


# --- the whole page ---


@pytest.mark.parametrize("width", [880, 1700])
def test_it_never_scrolls_sideways(qtbot: QtBot, page: RecipePage, width: int) -> None:
    page.resize(width, 580)
    open_more(page)
    qtbot.wait(0)
    inner = page.form.widget()
    assert inner is not None
    assert inner.minimumSizeHint().width() <= page.form.viewport().width()
    assert inner.width() == page.form.viewport().width()


def test_every_widget_has_a_name(page: RecipePage) -> None:
    open_more(page)
    silent = [
        widget.objectName() or type(widget).__name__
        for kind in (QAbstractButton, QLineEdit, QDoubleSpinBox)
        for widget in page.findChildren(kind)
        if not (widget.accessibleName() or (isinstance(widget, QAbstractButton) and widget.text()))
        and not widget.objectName().startswith("qt_")
    ]
    assert silent == []


def test_tab_goes_in_the_order_of_reading(qtbot: QtBot, page: RecipePage) -> None:
    open_more(page)
    page.activateWindow()
    button(page, "goal-fast").setFocus()
    stops: list[str] = []
    for _ in range(24):
        widget = page.focusWidget()
        assert widget is not None
        stops.append(widget.accessibleName() or widget.objectName())
        qtbot.keyClick(widget, Qt.Key.Key_Tab)
    assert stops[:6] == ["goal-fast", "Quick", "keep", "open-recipe", "4 bits", "Groups of 64 weights"]
    place = stops.index("more")
    assert stops[place + 1] == "Iterations, steps per block"
    assert stops[6:14] == [
        "Symmetric", "format-auto_round", "Type of AutoRound", "format-gptq", "Type of GPTQ", "format-awq",
        "format-gguf", "Type of GGUF",
    ]  # fmt: skip


# --- pictures ---


def reading_pictures(context: Context, opened: OpenedModel) -> None:
    """Replace the model by one with a vision tower."""
    tower = Tower("model.visual", "vision", 1, 16, 32, "BF16")
    context.draft.choose(model=replace(opened, tree=replace(opened.tree, towers=(tower,))))


def test_pictures_can_be_chosen_for_a_model_that_reads_them(
    qtbot: QtBot, page: RecipePage, context: Context, opened: OpenedModel, tmp_path: Path
) -> None:
    assert page.form.pictures.isHidden()
    reading_pictures(context, opened)
    assert not page.form.pictures.isHidden()
    write(qtbot, page, "pictures", str(tmp_path))
    assert context.draft.spec().pictures == str(tmp_path)


def test_pictures_that_do_not_exist_are_not_chosen(
    qtbot: QtBot, page: RecipePage, context: Context, opened: OpenedModel, tmp_path: Path
) -> None:
    reading_pictures(context, opened)
    write(qtbot, page, "pictures", str(tmp_path / "none"))
    assert context.draft.choices.pictures == ""
    assert "does not exist" in said_by(page, "pictures-note")


def test_a_model_without_pictures_runs_without_them(
    page: RecipePage, context: Context, opened: OpenedModel, tmp_path: Path
) -> None:
    reading_pictures(context, opened)
    context.draft.choose(pictures=str(tmp_path))
    context.draft.choose(model=opened)
    assert page.form.pictures.isHidden()
    assert context.draft.spec().pictures == ""
