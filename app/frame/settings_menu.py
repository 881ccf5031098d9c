"""The menu of the settings button: the theme and the actions of the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu

from app.state import SCHEMES

if TYPE_CHECKING:
    from app.frame.main_window import MainWindow


def settings_menu(window: MainWindow, made: Mapping[str, QAction]) -> QMenu:
    """Return the menu; `made` are the window's actions by id."""
    menu = QMenu(window)
    menu.setObjectName("settings_menu")
    themes = menu.addMenu(window.tr("&Theme"))
    group = QActionGroup(menu)
    texts = {"system": window.tr("Follow &system"), "light": window.tr("&Light"), "dark": window.tr("&Dark")}
    for scheme in SCHEMES:
        action = themes.addAction(texts[scheme])
        action.setObjectName(f"scheme_{scheme}")
        action.setCheckable(True)
        action.setChecked(window.state.scheme == scheme)
        action.triggered.connect(lambda _checked=False, scheme=scheme: _choose(window, scheme))
        group.addAction(action)
    menu.addSeparator()
    for name in ("devices", "data_folder", "log", "shortcuts", "about"):
        menu.addAction(made[name])
    menu.addSeparator()
    menu.addAction(made["quit"])
    return menu


def _choose(window: MainWindow, scheme: str) -> None:
    window.state.scheme = scheme
    window.theme.set_scheme(scheme)
