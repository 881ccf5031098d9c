"""The report of a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QComboBox, QLabel, QPushButton, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.run.report_facts import facts_of, fallbacks_of, files_of, formats_of, provenance, verified_words
from app.pages.run.report_view import ReportView
from app.shared.context import Context
from app.shared.run.record import RunRecord
from app.widgets.fact_row import FactRow
from core.events import Done
from core.report.verdict import VERSION, judge
from tests.app.find import find
from tests.app.recorded_runs import record_of
from tests.app.replayed_runs import recorded, window_for


def finished(output: Path | str, **changes: Any) -> RunRecord:
    """The recorded run, with changes to its report."""
    *events, done = recorded()
    assert isinstance(done, Done)
    return record_of([*events, dataclasses.replace(done, output=str(output), report={**done.report, **changes})])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "smol 4bit"
    folder.mkdir()
    return folder


@pytest.fixture
def view(context: Context, output: Path) -> Iterator[ReportView]:
    made = ReportView(context)
    window = window_for(made, 880, 580)
    made.show_report(finished(output))
    window.show()
    yield made
    window.close()


def text(view: QWidget, name: str) -> str:
    label = find(view, QLabel, name)
    return label.text()


def press(qtbot: QtBot, view: QWidget, name: str) -> None:
    button = find(view, QPushButton, name)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_the_verdict_stands_first(view: ReportView) -> None:
    assert text(view, "verdict") == judge(finished("/o").report).headline
    assert text(view, "verdict_figures").startswith("Perplexity ")


def test_figures_are_those_of_the_report(view: ReportView) -> None:
    facts = find(view, FactRow, "report_facts")
    assert facts.values()["Size"].startswith("269 MB")
    assert set(facts.values()) == {"Size", "Bits per weight", "Time", "Peak memory", "Recipe"}


def test_chat_tells_which_model_and_goes_there(
    view: ReportView, qtbot: QtBot, context: Context, output: Path, visited: list[str]
) -> None:
    press(qtbot, view, "next")
    assert context.state.value("chat/model", "") == str(output)
    assert visited == ["chat"]


def test_with_several_formats_the_first_is_chatted_with(view: ReportView, output: Path) -> None:
    view.show_report(finished(output, output_bytes={"auto_round": 1, "auto_gptq": 2}))
    assert view.folder == str(output / "auto_round")


def test_open_folder_opens_it(view: ReportView, qtbot: QtBot, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[QUrl] = []

    def open_url(url: QUrl) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(QDesktopServices, "openUrl", open_url)
    press(qtbot, view, "open_folder")
    assert [url.toLocalFile() for url in opened] == [str(output)]


def test_where_nothing_opens_a_folder_its_path_can_be_copied(
    view: ReportView, qtbot: QtBot, output: Path, monkeypatch: pytest.MonkeyPatch, reports: list[tuple[Any, Any]]
) -> None:
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    press(qtbot, view, "open_folder")
    ((error, remedy),) = reports
    assert error.code == "output"
    remedy.act()
    assert QGuiApplication.clipboard().text() == str(output)


def test_an_output_that_is_gone_cannot_be_chatted_with(view: ReportView, tmp_path: Path) -> None:
    view.show_report(finished(tmp_path / "gone"))
    assert not find(view, QPushButton, "next").isEnabled()
    assert not find(view, QPushButton, "open_folder").isEnabled()


def test_how_to_load_it_can_be_copied(view: ReportView, qtbot: QtBot, output: Path) -> None:
    press(qtbot, view, "show_loading")
    program = find(view, QComboBox, "loading_program")
    program.setCurrentText("transformers")
    copy = find(view, QToolButton, "copy_code")
    qtbot.mouseClick(copy, Qt.MouseButton.LeftButton)
    assert f"folder = {str(output)!r}" in QGuiApplication.clipboard().text()


def test_every_program_has_its_note(view: ReportView, qtbot: QtBot) -> None:
    press(qtbot, view, "show_loading")
    program = find(view, QComboBox, "loading_program")
    notes = set()
    for number in range(program.count()):
        program.setCurrentIndex(number)
        notes.add(text(view, "loading_note"))
    assert len(notes) == program.count() >= 5


def test_what_fell_back_is_said(view: ReportView, output: Path) -> None:
    view.show_report(finished(output, fallbacks={"a": "group 128 does not divide 576: 64"}))
    assert text(view, "fallbacks") == "a: group 128 does not divide 576: 64"


def test_a_note_on_the_source_is_shown(view: ReportView, output: Path) -> None:
    view.show_report(finished(output, source_note="The weights came from a GGUF file, quantized there as Q4_1."))
    assert "quantized there as Q4_1" in text(view, "verdict_notes")


@pytest.mark.parametrize("width", [880, 1700])
def test_nothing_has_to_be_scrolled_sideways(view: ReportView, qtbot: QtBot, width: int) -> None:
    view.resize(width, 700)
    assert view.minimumSizeHint().width() <= 880
    inner = view._scroll.widget()
    assert inner is not None
    assert inner.width() <= width


def test_the_report_of_a_stranger_is_shown_without_complaint(qtbot: QtBot, context: Context) -> None:
    made = ReportView(context)
    qtbot.addWidget(made)
    made.show_report(
        record_of([Done("/nowhere", 1.0, {"blocks": 3, "files": [], "verification": "x", "perplexity": []})])
    )
    assert text(made, "verdict") == "Unknown loss"


def test_the_report_of_an_earlier_version_is_shown_and_marked(qtbot: QtBot, context: Context) -> None:
    made = ReportView(context)
    qtbot.addWidget(made)
    old = {
        "version": 1, "bits": {"4": 14}, "effective_bits": 4.5, "tensors": {"auto_round": {"W4 g32 sym": 14}},
        "verified": {"auto_round": {"layers": 14}}, "output_bytes": {"auto_round": 5},
        "perplexity": {"original": 20.0, "quantized": 21.0, "increase": 0.05, "increase_error": 0.01},
    }  # fmt: skip
    made.show_report(record_of([Done("/nowhere", 1.0, old)]))
    assert "earlier version" in text(made, "verdict_notes")
    assert "does not contain" in text(made, "verified")


# --- The figures, as pure functions ---


def test_one_reason_is_said_once_for_all_its_layers() -> None:
    assert fallbacks_of({"fallbacks": {"a": "x", "b": "x", "c": "y"}}) == ["2 layers: x", "c: y"]


def test_the_largest_file_comes_first() -> None:
    assert [file.path for file in files_of({"files": {"b": 1, "a": 1, "c": 9}})] == ["c", "a", "b"]


def test_mixed_bits_are_all_named() -> None:
    assert (
        provenance({"model": "m", "layers_by_bits": {"4": 1, "8": 2, "16": 1}}, "/o")
        == "m, quantized to 4 and 8 bits, in /o"
    )


def test_nothing_known_gives_no_figures() -> None:
    assert facts_of({}) == []


def test_files_that_were_not_checked_are_not_called_checked() -> None:
    assert verified_words({"version": VERSION}) == ("The written files were not verified.", False, "")


def test_what_the_model_wrote_is_one_line() -> None:
    found = {"verification": {"auto_round": {"layers": 1200, "other_tensors": 3, "sample": "Paris.\n\n It is."}}}
    words, sound, sample = verified_words(found)
    assert "1,200 layers" in words
    assert (sound, sample) == (True, "Sample: \u201cParis. It is.\u201d")


# --- formats ---

TWO = {
    "output_bytes": {"auto_round": 118_000_000, "gguf:q4_0": 121_000_000},
    "format_bits_per_weight": {"auto_round": 4.3125, "gguf:q4_0": 4.5},
    "verification": {"gguf:q4_0": {"layers": 210, "other_tensors": 62, "perplexity": 49.3}},
    "notes": {"gguf:q4_0": ["It takes more.", 3], "auto_round": None},
    "layer_schemes": {"gguf:q4_0": {"Q4_0": 210}},
}


def test_each_format_says_what_it_takes_and_what_was_checked() -> None:
    first, second = formats_of(TWO)
    assert (first.title, first.amount, first.checked) == ("AutoRound", "118 MB, 4.31 bits per weight", "")
    assert (second.title, second.folder, second.schemes) == ("GGUF Q4_0", "gguf-q4_0", "210 Q4_0")
    assert second.checked.endswith("210 layers and 62 other tensors; perplexity of the files 49.3")
    assert second.notes == ("It takes more.",)


def test_the_one_format_of_an_older_report_is_named() -> None:
    (found,) = formats_of({"output_bytes": {"auto_gptq": 5}, "bits_per_weight": 4.25})
    assert (found.title, found.folder, found.amount) == ("GPTQ", "", "5 bytes, 4.25 bits per weight")


def test_formats_are_listed_with_their_checks(view: ReportView, qtbot: QtBot, output: Path) -> None:
    view.show_report(finished(output, **TWO))

    def shown(name: str) -> list[str]:
        return [label.text() for label in view.findChildren(QLabel, name) if label.isVisible()]

    checks = ["Files not verified", formats_of(TWO)[1].checked]
    qtbot.waitUntil(lambda: shown("format_checked") == checks)
    assert shown("format_notes") == ["It takes more."]


def test_an_output_can_be_converted_from_here(
    view: ReportView, qtbot: QtBot, context: Context, output: Path, visited: list[str]
) -> None:
    press(qtbot, view, "convert_output")
    assert (visited, context.state.value("convert/source", "")) == (["convert"], str(output))


def test_copied_parts_are_told_with_the_formats_that_have_them() -> None:
    tower = {"prefix": "model.visual", "kind": "vision", "nbytes": 812_000_000}
    report = {"output_bytes": {"auto_round": 9, "gguf:q4_0": 8}, "towers": [tower]}
    first, second = formats_of(report)
    assert first.notes == ("Copied unchanged: vision tower (model.visual, 812 MB).",)
    assert second.notes == ()
