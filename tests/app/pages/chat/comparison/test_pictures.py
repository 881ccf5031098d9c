"""Pictures in a comparison: both sides get them, and a model that does not read them says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.pages.chat.comparison.view import ComparisonView
from app.pages.chat.conversations.picture_files import display_name
from tests.app.pages.chat.comparison.parts import answer, button, child_of, label_of, load
from tests.app.pages.chat.pictures.samples import picture, settle
from tests.app.scripted_session import ScriptedCalls, ScriptedSession

READS = ("text", "pictures")


def asked(
    view: ComparisonView, calls: ScriptedCalls, path: str, right: tuple[str, ...] = READS
) -> tuple[ScriptedSession, ScriptedSession]:
    """Both models, asked about a picture; `right` is what the right one reads."""
    view._composer.attach([path])
    settle(view._pictures)
    view._composer.set_text("What is this?")
    button(view, "send").click()
    first, second = child_of(calls, "original"), child_of(calls, "quantized")
    load(first, reads=READS)
    load(second, reads=right)
    return first, second


@pytest.fixture
def cat(tmp_path: Path) -> str:
    return picture(tmp_path, "cat.png")


def names(child: ScriptedSession) -> list[list[str]]:
    """The names of the pictures in each message of the last request of a child."""
    return [[display_name(path) for path in each.get("pictures", ())] for each in child.calls[-1].request.messages]


def test_both_models_get_the_picture(view: ComparisonView, calls: ScriptedCalls, cat: str) -> None:
    for child in asked(view, calls, cat):
        assert names(child) == [["cat.png"]]


def test_the_picture_is_shown_once(view: ComparisonView, calls: ScriptedCalls, cat: str) -> None:
    asked(view, calls, cat)
    assert len(view._turn_list.turns[0]._question.pictures) == 1


def test_a_model_that_does_not_read_pictures_says_so(view: ComparisonView, calls: ScriptedCalls, cat: str) -> None:
    left, right = asked(view, calls, cat, right=("text",))
    assert len(right.calls) == 1
    assert label_of(view, "comparison_problem_B") == "quantized does not read pictures."
    answer(left, "A cat.")
    assert not view.session.busy


def test_later_questions_reach_both(view: ComparisonView, calls: ScriptedCalls, cat: str) -> None:
    left, right = asked(view, calls, cat, right=("text",))
    answer(left, "A cat.")
    view.ask("Thank you")
    assert (names(left), names(right)) == ([["cat.png"], [], []], [[]])


def test_asking_again_sends_the_picture_again(view: ComparisonView, calls: ScriptedCalls, cat: str) -> None:
    left, right = asked(view, calls, cat)
    answer(left, "A cat.")
    answer(right, "A dog.")
    button(view, "comparison_again").click()
    assert (names(left), names(right)) == ([["cat.png"]], [["cat.png"]])


def test_pictures_cannot_be_attached_if_neither_reads_them(view: ComparisonView, calls: ScriptedCalls) -> None:
    view.ask("hello")
    for name in ("original", "quantized"):
        child = child_of(calls, name)
        load(child, reads=("text",))
        answer(child, "hi")
    assert not button(view, "attach").isEnabled()
    assert button(view, "attach").toolTip() == "Neither model reads pictures."


def test_a_bad_file_is_told(view: ComparisonView, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("text")
    view._composer.attach([str(tmp_path / "notes.png")])
    settle(view._pictures)
    assert label_of(view, "notice").startswith("notes.png is not a picture")
