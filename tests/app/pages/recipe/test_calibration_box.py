"""The calibration text: which it is, and a look at it that starts only when somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QLabel, QLineEdit, QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.recipe.calibration_box import CalibrationBox
from app.shared.context import Context
from app.widgets.segmented import Segmented
from core import recipes
from core.calibration.preview import Preview
from core.errors import HubUnreachable
from core.events import Log
from core.service.messages import PreviewText
from tests.app.find import find
from tests.app.recorded_calls import RecordedCalls
from tests.app.surroundings import surroundings_with

QUICK = recipes.load("quick")
FOUND = Preview("builtin", documents=12, tokens=4096, available=32768, rows=("Once upon", "a time"), sha256="")


def request(calibration: str = "builtin", seqlen: int = 256) -> PreviewText:
    return PreviewText(calibration, 16, seqlen, 42, "demo")


@pytest.fixture
def box(qtbot: QtBot, context: Context, calls: RecordedCalls) -> CalibrationBox:
    widget = CalibrationBox(surroundings_with(context, calls=calls))
    qtbot.addWidget(widget)
    widget.show_values(request(), QUICK)
    widget.chosen.connect(lambda text: widget.show_values(request(text), QUICK))  # as the page does
    widget.show()
    return widget


@pytest.fixture
def chosen(box: CalibrationBox) -> list[str]:
    values: list[str] = []
    box.chosen.connect(values.append)
    return values


def pick(qtbot: QtBot, box: CalibrationBox, kind: str) -> None:
    segmented = find(box, Segmented, "calibration-kind")
    qtbot.mouseClick(segmented.button(kind), Qt.MouseButton.LeftButton)


def edit(box: CalibrationBox) -> QLineEdit:
    return find(box, QLineEdit, "calibration")


def button(box: CalibrationBox) -> QPushButton:
    return find(box, QPushButton, "calibration-preview")


def said(box: CalibrationBox, name: str) -> str:
    found = find(box, QLabel, name)
    return "" if found.isHidden() else found.text()


def rows(box: CalibrationBox) -> str:
    found = find(box, QPlainTextEdit, "preview")
    return "" if found.isHidden() else found.toPlainText()


def test_the_bundled_text_needs_nothing_more(box: CalibrationBox) -> None:
    assert edit(box).isHidden()
    assert said(box, "calibration-use") == "A run uses 50 rows of 256 tokens: 12,800 tokens."


def test_a_file_that_is_there_is_chosen(qtbot: QtBot, box: CalibrationBox, chosen: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    pick(qtbot, box, "file")
    assert "bundled text is used" in said(box, "calibration-problem")
    qtbot.keyClicks(edit(box), str(tmp_path / "text.txt"))
    qtbot.keyClick(edit(box), Qt.Key.Key_Return)
    assert chosen == [str(tmp_path / "text.txt")]
    assert said(box, "calibration-problem") == ""


def test_a_file_that_is_not_there_is_refused_in_place(qtbot: QtBot, box: CalibrationBox, chosen: list[str]) -> None:
    pick(qtbot, box, "file")
    qtbot.keyClicks(edit(box), "/no/such/text.txt")
    qtbot.keyClick(edit(box), Qt.Key.Key_Return)
    assert said(box, "calibration-problem").startswith("The file /no/such/text.txt does not exist")
    assert chosen == []


def test_a_file_can_be_looked_for(
    qtbot: QtBot, box: CalibrationBox, chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.md").write_text("words", encoding="utf-8")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "text.md"), ""))
    pick(qtbot, box, "file")
    browse = find(box, QPushButton, "calibration-browse")
    browse.click()
    assert chosen == [str(tmp_path / "text.md")]


def test_a_data_set_is_chosen_and_not_fetched(
    qtbot: QtBot, box: CalibrationBox, chosen: list[str], calls: RecordedCalls
) -> None:
    pick(qtbot, box, "hub")
    qtbot.keyClicks(edit(box), "NeelNanda/pile-10k")
    qtbot.keyClick(edit(box), Qt.Key.Key_Return)
    assert chosen == ["NeelNanda/pile-10k"]
    assert calls.started == []


def test_leaving_the_other_kind_empty_stays_with_the_bundled_text(
    qtbot: QtBot, box: CalibrationBox, chosen: list[str]
) -> None:
    pick(qtbot, box, "hub")
    pick(qtbot, box, "builtin")
    assert chosen == []
    assert edit(box).isHidden()


def test_going_to_another_kind_gives_up_the_text_before(qtbot: QtBot, box: CalibrationBox, chosen: list[str]) -> None:
    box.show_values(request("owner/data"), QUICK)
    pick(qtbot, box, "file")
    assert chosen == ["builtin"]
    assert edit(box).isVisible()


def test_a_preview_is_asked_for_with_what_a_run_would_use(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    (call,) = calls.of(PreviewText)
    assert call.request == request()
    assert button(box).text() == "Stop"


def test_what_it_found_is_shown(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    calls.started[0].on_event(Log("info", "Fetching owner/data."))
    assert said(box, "calibration-found") == "Fetching owner/data."
    calls.started[0].on_success(FOUND)
    assert "4,096 tokens from 12 documents" in said(box, "calibration-found")
    assert rows(box) == "Row 1\nOnce upon\n\nRow 2\na time"
    assert button(box).text() == "Preview"


def test_it_can_be_stopped(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    button(box).click()
    assert calls.started[0].stopped
    assert (button(box).text(), said(box, "calibration-found")) == ("Preview", "")


def test_a_failure_is_said_in_place(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    calls.started[0].on_failure(HubUnreachable("The Hub does not answer.", "Check the network."))
    assert said(box, "calibration-found") == "The Hub does not answer. Check the network."
    assert button(box).text() == "Preview"


def test_a_preview_of_something_else_is_taken_away(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    calls.started[0].on_success(FOUND)
    box.show_values(request(seqlen=512), QUICK)
    assert (rows(box), said(box, "calibration-found")) == ("", "")


def test_a_late_answer_about_something_else_is_ignored(box: CalibrationBox, calls: RecordedCalls) -> None:
    button(box).click()
    box.show_values(request(seqlen=512), QUICK)
    assert calls.started[0].stopped
    calls.started[0].on_success(FOUND)
    assert rows(box) == ""
