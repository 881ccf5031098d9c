"""Search results as rows: texts, badges, and selectable rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt

from app.pages.model.results_table import ResultRow, SearchResults, found_row, heading, recent_row
from core.hub.records import FoundModel

FOUND = FoundModel(
    id="Qwen/Qwen3-0.6B", author="Qwen", downloads=12_480_000, likes=812, gated=False, license="apache-2.0",
    parameters=751_632_384, updated="2025-07-26T03:46:27+00:00", tags=("text-generation",), cached=False,
)  # fmt: skip


def model(*rows: ResultRow) -> SearchResults:
    made = SearchResults()
    made.set_rows(rows)
    return made


def test_a_result_says_what_one_chooses_by() -> None:
    row = found_row(FOUND)
    assert (row.name, row.title) == ("Qwen/Qwen3-0.6B", "Qwen3-0.6B")
    assert row.details == "Qwen · 752M · apache-2.0 · 12.5M downloads"
    assert row.badges == ()


def test_the_exact_figures_are_in_the_tip() -> None:
    assert found_row(FOUND).tip.splitlines() == [
        "Qwen/Qwen3-0.6B", "751,632,384 parameters", "12,480,000 downloads, 812 likes", "changed 2025-07-26",
    ]  # fmt: skip


def test_what_the_hub_does_not_know_is_left_out_or_named() -> None:
    row = found_row(replace(FOUND, parameters=None, license="", downloads=0, updated=""))
    assert row.details == "Qwen · unknown license"
    assert row.tip == "Qwen/Qwen3-0.6B"


def test_badges_in_their_order() -> None:
    row = found_row(replace(FOUND, gated=True, tags=("gptq", "4-bit"), cached=True))
    assert row.badges == ("gated", "quantized", "in cache")


@pytest.mark.parametrize(
    ("name", "title", "details"),
    [
        ("demo", "SmolLM2-135M-Instruct", "Demo, no download"),
        ("/home/me/models/mine", "mine", "/home/me/models"),
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B", "Qwen"),
        ("gpt2", "gpt2", ""),
    ],
)
def test_models_opened_before(name: str, title: str, details: str) -> None:
    row = recent_row(name)
    assert (row.name, row.title, row.details) == (name, title, details)


def test_a_heading_can_be_neither_selected_nor_picked() -> None:
    rows = model(heading("On the Hub"), found_row(FOUND))
    assert not rows.flags(rows.index(0)) & (Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
    assert rows.flags(rows.index(1)) & Qt.ItemFlag.ItemIsSelectable
    assert rows.first_model().row() == 1


def test_without_models_there_is_nothing_to_move_to() -> None:
    assert not model().first_model().isValid()


def test_a_screen_reader_hears_the_whole_row() -> None:
    rows = model(found_row(replace(FOUND, cached=True)))
    spoken = rows.data(rows.index(0), Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "Qwen3-0.6B, Qwen, 752 million parameters, apache-2.0, 12.5 million downloads, in cache"


def test_a_strangers_markup_stays_text_in_the_tooltip() -> None:
    rows = model(found_row(replace(FOUND, id="x/<img src='file:///etc/passwd'>")))
    assert "<img" not in rows.data(rows.index(0), Qt.ItemDataRole.ToolTipRole)


def test_the_same_rows_again_do_not_reset_the_view() -> None:
    rows = model(found_row(FOUND))
    resets: list[bool] = []
    rows.modelReset.connect(lambda: resets.append(True))
    rows.set_rows([found_row(FOUND)])
    assert resets == []
    rows.set_rows([])
    assert resets == [True]
