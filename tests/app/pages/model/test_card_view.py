"""Display of untrusted cards: Markdown is laid out, the rest is plain text; no access to network or files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QColor, QImage, QTextDocument
from pytestqt.qtbot import QtBot

from app.pages.model.card import fit_card
from app.pages.model.card_view import CardView
from app.theme import Theme

BASE = "https://huggingface.co/a/b/blob/main/"


@pytest.fixture
def view(qtbot: QtBot, theme: Theme) -> CardView:
    made = CardView(theme)
    qtbot.addWidget(made)
    made.resize(400, 300)
    return made


def followed(view: CardView, target: str, base: str = BASE) -> list[str]:
    found: list[str] = []
    view.followed.connect(found.append)
    view.show_card("text", base)
    view.anchorClicked.emit(QUrl(target))
    return found


def test_markdown_is_laid_out(view: CardView) -> None:
    view.show_card("# Title\n\nSome **bold** text.")
    assert view.toPlainText().split() == ["Title", "Some", "bold", "text."]


def test_a_table_behind_code_has_its_first_title(view: CardView) -> None:
    view.show_card("```\ncode\n```\n\n| Metric | A |\n|---|---|\n| x | 1 |\n")
    assert view.toPlainText().split("\n")[:3] == ["code", "Metric", "A"]


def test_html_stays_letters(view: CardView) -> None:
    view.show_card("<script>x()</script>\n\n<b>bold</b> <img src='https://example.com/x.png'>")
    assert view.toPlainText().split("\n")[-1] == "<b>bold</b> <img src='https://example.com/x.png'>"
    assert "<script>x()</script>" in view.toPlainText()


@pytest.mark.parametrize(
    "address",
    ["file:///etc/hostname", "https://example.com/x.png", "data:image/png;base64,iVBORw0KGgo=", "qrc:/x.png", "x.png"],
)
def test_nothing_is_fetched_or_read_for_a_card(view: CardView, address: str) -> None:
    view.show_card(f"![words][p]\n\n[p]: {address}\n")
    view.grab()
    found = view.document().resource(QTextDocument.ResourceType.ImageResource, QUrl(address))
    assert (found.width(), found.pixel(0, 0)) == (1, 0)


def test_not_even_a_picture_that_is_there(view: CardView, tmp_path: Path) -> None:
    picture = QImage(8, 8, QImage.Format.Format_RGB32)
    picture.fill(QColor("red"))
    assert picture.save(str(tmp_path / "x.png"))
    view.show_card(f"![words][p]\n\n[p]: {QUrl.fromLocalFile(str(tmp_path / 'x.png')).toString()}\n")
    image = view.grab().toImage()
    colors = {image.pixel(x, y) for x in range(image.width()) for y in range(image.height())}
    assert QColor("red").rgb() not in colors


def test_a_link_to_the_web_is_handed_out(view: CardView) -> None:
    assert followed(view, "https://example.com/a?b=c") == ["https://example.com/a?b=c"]


def test_a_relative_link_starts_at_the_models_page(view: CardView) -> None:
    assert followed(view, "docs/LICENSE") == ["https://huggingface.co/a/b/blob/main/docs/LICENSE"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "smb://host/x", "#part", ""]
)
def test_a_link_elsewhere_leads_nowhere(view: CardView, target: str) -> None:
    assert followed(view, target) == []


def test_a_relative_link_of_a_folder_leads_nowhere(view: CardView) -> None:
    assert followed(view, "docs/LICENSE", base="") == []


@pytest.mark.parametrize(
    "text",
    [
        "> " * 3000 + "x", "- " * 3000 + "x", "[" * 20_000, "*" * 20_000, "`" * 20_001, "|" * 5000 + "\n" + "|-" * 2500,
        "a\0b\ud800c\u202ed", "---\n" * 2000, "# " * 5000, "[a](" * 5000, "![" * 5000, "<" * 20_000, "&" * 20_000,
    ],
    ids=range(13),
)  # fmt: skip
def test_a_hostile_card_is_shown_and_nothing_more(view: CardView, text: str) -> None:
    view.show_card(fit_card(text), BASE)
    view.grab()
    assert view.document().blockCount() >= 1


def test_a_sentence_is_no_markdown(view: CardView) -> None:
    view.show_message("**not bold**")
    assert view.toPlainText() == "**not bold**"


def test_a_new_card_starts_at_its_top(view: CardView, qtbot: QtBot) -> None:
    view.show()
    view.show_card("line\n\n" * 200)
    bar: Any = view.verticalScrollBar()
    bar.setValue(bar.maximum())
    view.show_card("other\n\n" * 200)
    assert bar.value() == 0


def test_one_document_is_kept(view: CardView, qtbot: QtBot) -> None:
    for number in range(3):
        view.show_card(f"card {number}")
    qtbot.waitUntil(lambda: len(view.findChildren(QTextDocument)) == 1)
    assert view.toPlainText().strip() == "card 2"


def test_headings_and_code_stand_out(view: CardView) -> None:
    view.show_card("text\n\n# Title\n\n```\ncode\n```")
    ground = {}
    block = view.document().begin()
    while block.isValid():
        ground[block.text()] = block.blockFormat()
        block = block.next()
    assert ground["Title"].topMargin() > ground["text"].topMargin()
    assert ground["code"].background().style() != Qt.BrushStyle.NoBrush
    assert not ground["code"].nonBreakableLines()


def test_the_grounds_follow_light_and_dark(view: CardView, theme: Theme) -> None:
    view.show_card("```\ncode\n```")
    light = view.document().firstBlock().blockFormat().background().color()
    theme.set_scheme("dark")
    assert view.document().firstBlock().blockFormat().background().color() != light
