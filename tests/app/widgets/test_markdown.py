"""Text of a model as data: parts, tamed documents, and nothing that loads, runs or deceives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QColor, QTextCharFormat, QTextDocument, QTextTable
from pytestqt.qtbot import QtBot

from app.widgets.markdown import MessagePart, SafeDocument, TextStyle, clean, fill, opens_in_browser, split

LOOK = TextStyle(QColor("blue"), QColor("silver"), QColor("gray"), "monospace")


@pytest.fixture
def document(qtbot: QtBot) -> SafeDocument:
    return SafeDocument()


def shown(document: QTextDocument, text: str) -> str:
    fill(document, text, LOOK)
    return document.toPlainText()


def format_at(document: QTextDocument, words: str) -> QTextCharFormat:
    cursor = document.find(words)
    assert not cursor.isNull(), words
    return cursor.charFormat()


# --- clean ---


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\x00b\x1b[31mc", "ab[31mc"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u2028b", "a\nb"),
        ("\ufeffa\tb", "a\tb"),
        ("gnp.exe\u202egpj", "gnp.exegpj"),
        ("a\ufdd0b\ufffcc", "abc"),
        ("\ud83d", "\N{REPLACEMENT CHARACTER}"),
        ("\N{FAMILY}\u200d\N{GIRL} \u05e9\u05dc\u05d5\u05dd", "\N{FAMILY}\u200d\N{GIRL} \u05e9\u05dc\u05d5\u05dd"),
    ],
)
def test_clean(raw: str, expected: str) -> None:
    assert clean(raw) == expected


# --- split ---


def test_prose_and_code_are_told_apart() -> None:
    text = "Before\n\n```python\nx = 1\n```\nafter"
    assert split(text) == [MessagePart("Before\n"), MessagePart("x = 1", True, "python"), MessagePart("after")]


def test_code_that_is_still_coming_goes_to_the_end() -> None:
    assert split("```\nx = 1\ny") == [MessagePart("x = 1\ny", True)]


def test_a_longer_fence_may_hold_a_shorter_one() -> None:
    assert split("````md\n```\na\n```\n````") == [MessagePart("```\na\n```", True, "md")]


def test_tildes_are_a_fence_too() -> None:
    assert split("~~~\n```\n~~~") == [MessagePart("```", True)]


def test_code_in_a_list_loses_its_indentation() -> None:
    text = "1. One:\n   ```c\n   int a;\n     b;\n   ```\n   more\n2. Two"
    assert split(text) == [MessagePart("1. One:"), MessagePart("int a;\n  b;", True, "c"), MessagePart("more\n2. Two")]


def test_code_between_backticks_in_a_line_is_no_block() -> None:
    assert split("```x``` is code") == [MessagePart("```x``` is code")]


def test_long_prose_comes_in_parts() -> None:
    """So that one that grows does not have to be laid out as a whole."""
    text = "\n\n".join(["word " * 200] * 12)
    parts = split(text)
    assert len(parts) > 1
    assert "\n".join(part.text for part in parts) == text
    assert split(text + "\n\nmore")[: len(parts) - 1] == parts[:-1]


def test_a_long_list_stays_whole() -> None:
    assert len(split("\n".join(f"{number}. word {'word ' * 20}" for number in range(60)))) == 1


def test_nothing_is_no_part() -> None:
    assert split("\n\n") == []


@pytest.mark.parametrize("language", ["c++", "objective-c", "c#"])
def test_languages_with_signs(language: str) -> None:
    assert split(f"```{language} title=1\n```") == [MessagePart("", True, language)]


# --- fill ---


def test_html_stays_text(document: SafeDocument) -> None:
    assert shown(document, "a <b>c</b> <script>x</script>") == "a <b>c</b> <script>x</script>"


def test_a_picture_becomes_words(document: SafeDocument) -> None:
    assert shown(document, "see ![a cat](https://example.org/cat.png) there") == "see [picture: a cat] there"


def test_nothing_is_ever_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot) -> None:
    """A document that lays itself out while it is filled asks for its pictures; it gets a blank one and no file."""
    asked: list[Any] = []
    real = SafeDocument.loadResource

    def noting(self: SafeDocument, kind: int, name: QUrl | str) -> Any:
        asked.append(real(self, kind, name))
        return asked[-1]

    monkeypatch.setattr(SafeDocument, "loadResource", noting)
    document = SafeDocument()
    document.setMarkdown(f"![x](file://{tmp_path}/a.png) ![y](data:image/png;base64,AAAA)")
    document.size()
    assert {(found.width(), found.height()) for found in asked} == {(1, 1)}


def test_a_link_to_the_web_is_shown_as_one(document: SafeDocument) -> None:
    assert fill(document, "[here](https://example.org/a)", LOOK)
    format = format_at(document, "here")
    assert format.isAnchor()
    assert format.anchorHref() == "https://example.org/a"
    assert "https://example.org/a" in format.toolTip()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "javascript:alert(1)", "vscode://x/y", "data:text/html,x", "../a", "http:"]
)
def test_a_link_that_is_not_for_a_browser_becomes_text(document: SafeDocument, target: str) -> None:
    assert not fill(document, f"[here]({target}) and on", LOOK)
    assert document.toPlainText() == f"here ({target}) and on"
    assert not format_at(document, "here").isAnchor()


def test_a_mail_address_becomes_text(document: SafeDocument) -> None:
    assert shown(document, "to a@example.org now") == "to a@example.org now"


def test_lines_stay_lines(document: SafeDocument) -> None:
    """A haiku is three lines, though Markdown would make one of them."""
    assert (
        shown(document, "small things\nin the grass\nsing").replace("\u2028", "\n")
        == "small things\nin the grass\nsing"
    )


def test_a_line_in_an_item_is_no_item_of_its_own(document: SafeDocument) -> None:
    fill(document, "- one\n  still one\n- two", LOOK)
    assert [document.findBlockByNumber(n).text() for n in range(document.blockCount())] == [
        "one\N{LINE SEPARATOR}still one",
        "two",
    ]


def test_marks_of_markdown_survive_at_the_end_of_a_line(document: SafeDocument) -> None:
    text = '**"bold"**\nhttps://example.org/a\nTitle\n===\n| a | b |\n|---|---|\n| 1 | 2 |\n> ```\n> code\n> ```\n\nend'
    fill(document, text, LOOK)
    assert format_at(document, '"bold"').fontWeight() > 400
    assert format_at(document, "example").anchorHref() == "https://example.org/a"
    assert "\N{MEDIUM MATHEMATICAL SPACE}" not in document.toPlainText()
    assert "===" not in document.toPlainText()
    assert "```" not in document.toPlainText()
    assert any(isinstance(frame, QTextTable) for frame in document.rootFrame().childFrames())


def test_a_table_behind_a_quotation_has_no_empty_line(document: SafeDocument) -> None:
    """Qt leaves an empty paragraph in its first cell."""
    fill(document, "> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |", LOOK)
    (table,) = document.rootFrame().childFrames()
    assert isinstance(table, QTextTable)
    assert table.cellAt(0, 0).firstCursorPosition().block().text() == "a"
    assert format_at(document, "a").fontWeight() > 400
    assert format_at(document, "1").fontWeight() == 400


def test_code_in_a_quotation_has_its_ground_and_wraps(document: SafeDocument) -> None:
    fill(document, "> ```\n> code\n> ```", LOOK)
    format = document.find("code").blockFormat()
    assert format.background().color() == LOOK.code
    assert not format.nonBreakableLines()


def test_lists_do_not_nest_out_of_sight(document: SafeDocument) -> None:
    fill(document, "\n".join(f"{'  ' * depth}- item {depth}" for depth in range(60)), LOOK)
    document.setTextWidth(400)
    assert document.size().height() < 60 * 60


def test_dashes_at_the_start_hide_nothing(document: SafeDocument) -> None:
    assert "title: x" in shown(document, "---\ntitle: x\n---\nbody")


def test_code_in_a_line_is_in_fixed_width(document: SafeDocument) -> None:
    fill(document, "call `f()` now", LOOK)
    assert format_at(document, "f()").fontFamilies() == ["monospace"]
    assert format_at(document, "f()").background().color() == LOOK.code


def test_headings_are_modest(document: SafeDocument) -> None:
    fill(document, "# Title\n\ntext", LOOK)
    assert format_at(document, "Title").property(QTextCharFormat.Property.FontSizeAdjustment) <= 2


def test_tables_have_lines(document: SafeDocument) -> None:
    fill(document, "| a | b |\n|---|---|\n| 1 | 2 |", LOOK)
    (table,) = document.rootFrame().childFrames()
    assert isinstance(table, QTextTable)
    assert table.format().borderCollapse()


def test_quotes_without_end_do_not_nest_without_end(document: SafeDocument) -> None:
    fill(document, "> " * 5000 + "deep", LOOK)
    assert format_at(document, "deep") is not None
    assert document.size().width() < 2000


def test_the_first_and_the_last_block_add_no_space(document: SafeDocument) -> None:
    fill(document, "one\n\ntwo", LOOK)
    assert document.firstBlock().blockFormat().topMargin() == 0
    assert document.lastBlock().blockFormat().bottomMargin() == 0


@pytest.mark.parametrize(
    ("target", "opens"),
    [
        ("https://example.org/a?b#c", True),
        ("http://example.org", True),
        ("HTTPS://example.org", True),
        ("ftp://example.org", False),
        ("https:///etc/passwd", False),
        ("https://exa mple.org", False),
        ("", False),
    ],
)
def test_what_opens_in_a_browser(target: str, opens: bool) -> None:
    assert opens_in_browser(target) == opens
