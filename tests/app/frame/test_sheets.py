"""The settings menu: theme, sheets and the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtGui import QAction, QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.frame import actions
from app.frame.main_window import MainWindow
from app.frame.sheets import Sheets, open_data_folder
from app.logs import LogFeed
from app.shared.context import Context, Remedy
from app.theme import Theme
from core.errors import BitwrightError
from tests.app import frame_pages
from tests.app.find import find


@pytest.fixture
def ground(qtbot: QtBot) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    made.resize(900, 600)
    made.show()
    return made


@pytest.fixture
def sheets(theme: Theme, ground: QWidget) -> Sheets:
    return Sheets(theme, ground, actions.TABLE)


def test_one_sheet_is_shown_at_a_time(sheets: Sheets, ground: QWidget) -> None:
    sheets.show_keys({})
    sheets.show_about()
    assert sheets.shown is find(ground, QWidget, "about_sheet")


def test_the_same_key_takes_a_sheet_away(sheets: Sheets) -> None:
    sheets.show_keys({})
    sheets.show_keys({})
    assert sheets.shown is None


def test_about_names_version_license_and_folder(sheets: Sheets, ground: QWidget, tmp_path: Path) -> None:
    sheets.show_about()
    said = " ".join(label.text() for label in ground.findChildren(QLabel))
    assert "Apache License 2.0" in said
    assert str(tmp_path / "home") in said


@pytest.mark.parametrize(("opened", "told"), [(True, 0), (False, 1)])
def test_a_data_folder_that_no_program_opens_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: bool, told: int
) -> None:
    reports: list[BitwrightError] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: opened)
    open_data_folder(lambda error, _remedy: reports.append(error), lambda _text: Remedy("Copy", lambda: None))
    assert len(reports) == told
    assert (tmp_path / "home").is_dir()


def test_the_path_of_the_data_folder_can_be_copied(
    qtbot: QtBot, context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    window = shown_window(qtbot, context)
    find(window, QAction, "action.data_folder").trigger()
    window.strip.press_remedy()
    assert QGuiApplication.clipboard().text() == str(tmp_path / "home")


def test_a_theme_of_the_menu_is_taken_and_remembered(qtbot: QtBot, context: Context) -> None:
    window = shown_window(qtbot, context)
    find(window, QAction, "scheme_dark").trigger()
    assert (context.theme.dark, context.state.scheme) == (True, "dark")


def shown_window(qtbot: QtBot, context: Context) -> MainWindow:
    """A window with small pages."""
    window = MainWindow(
        context.theme, context.state, LogFeed(), pages=frame_pages.PAGES, make_context=lambda _window: context
    )
    qtbot.addWidget(window)
    with qtbot.waitSignal(window.stack.complete):
        window.show()
    return window
