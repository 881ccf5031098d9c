"""The formats of a run: ticked by family, one type of each, and why one cannot be written."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QComboBox, QLabel
from pytestqt.qtbot import QtBot

from app.pages.recipe.format_box import FormatBox
from app.shared.formats.fit import FormatFit
from app.theme import Theme
from tests.app.find import find

FITS: dict[str, FormatFit] = {}


@pytest.fixture
def box(qtbot: QtBot, theme: Theme) -> FormatBox:
    made = FormatBox(theme)
    qtbot.addWidget(made)
    made.resize(800, 300)
    made.show_formats(("auto_round",), lambda _name: FormatFit(size=1_000_000))
    made.show()
    return made


@pytest.fixture
def chosen(box: FormatBox) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    box.chosen.connect(found.append)
    return found


def tick(box: FormatBox, family: str) -> QCheckBox:
    return find(box, QCheckBox, f"format-{family}")


def types(box: FormatBox, family: str) -> QComboBox:
    return find(box, QComboBox, f"format-type-{family}")


def said(box: FormatBox, name: str) -> str:
    found = find(box, QLabel, name)
    return "" if found.isHidden() else found.text()


def pick(box: FormatBox, family: str, name: str) -> None:
    found = types(box, family)
    found.setCurrentIndex(found.findData(name))
    found.activated.emit(found.currentIndex())


def test_families_are_ticked_in_their_order(qtbot: QtBot, box: FormatBox, chosen: list[tuple[str, ...]]) -> None:
    for family in ("gguf", "gptq"):
        qtbot.keyClick(tick(box, family), Qt.Key.Key_Space)
    assert chosen == [("auto_round", "gguf"), ("auto_round", "auto_gptq", "gguf")]


def test_one_format_at_least(box: FormatBox, chosen: list[tuple[str, ...]]) -> None:
    tick(box, "auto_round").click()
    assert tick(box, "auto_round").isChecked()
    assert "at least one format" in said(box, "format-note")
    tick(box, "gguf").click()
    assert (said(box, "format-note"), chosen) == ("", [("auto_round", "gguf")])


def test_who_picks_a_type_wants_it_written(box: FormatBox, chosen: list[tuple[str, ...]]) -> None:
    pick(box, "gguf", "gguf:q4_k_m")
    assert chosen == [("auto_round", "gguf:q4_k_m")]


def test_a_type_is_in_place_of_the_other_types(box: FormatBox, chosen: list[tuple[str, ...]]) -> None:
    box.show_formats(("gptqmodel",), lambda _name: FormatFit())
    assert types(box, "gptq").currentData() == "gptqmodel"
    pick(box, "gptq", "auto_gptq")
    assert chosen == [("auto_gptq",)]


def test_a_reason_stands_beside_a_format_that_is_not_ticked_too(box: FormatBox) -> None:
    box.show_formats(
        ("auto_round",), lambda name: FormatFit(("3 bits do not fit.",)) if name == "auto_awq" else FormatFit(size=5)
    )
    assert said(box, "format-note-awq") == "3 bits do not fit."
    assert tick(box, "awq").accessibleDescription() == "3 bits do not fit."
    assert (said(box, "format-size-awq"), said(box, "format-size-gptq")) == ("", "5 bytes")


def test_costs_are_told_of_what_is_written(box: FormatBox) -> None:
    box.show_formats(("gguf",), lambda _name: FormatFit(notes=("It takes more.",)))
    assert said(box, "format-note-gguf").endswith("It takes more.")
    assert said(box, "format-note-gptq") == ""


def test_a_grid_of_its_own_is_told_once(box: FormatBox) -> None:
    box.show_formats(
        ("auto_round", "gguf:q4_k_m"),
        lambda name: FormatFit() if name.startswith("gguf") else FormatFit(("Long reason.",)),
    )
    assert said(box, "format-note-auto_round").startswith("Not in one run with GGUF Q4_K_M")
    assert said(box, "format-note-gptq") == ""


def test_an_open_list_tells_sizes(box: FormatBox) -> None:
    found = types(box, "gguf")
    found.showPopup()
    assert found.itemText(found.findData("gguf:q4_k_m")) == "Q4_K_M: the usual choice, 1 MB"
    found.hidePopup()
    assert found.itemText(found.findData("gguf:q4_k_m")) == "Q4_K_M: the usual choice"


def test_long_lists_begin_with_the_usual(box: FormatBox) -> None:
    names = [types(box, "gguf").itemData(place) for place in range(3)]
    assert names == ["gguf", None, "gguf:q4_k_m"]
