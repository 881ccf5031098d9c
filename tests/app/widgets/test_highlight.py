"""Colors of code: what is found, and that odd code takes no time."""

from __future__ import annotations

import pytest

from app.widgets.highlight import LONGEST, spans


def found(code: str, language: str) -> list[tuple[str, str]]:
    return [(code[span.start : span.start + span.length], span.kind) for span in spans(code, language)]


def test_python() -> None:
    code = 'def f(x):  # twice\n    return x * 2 + len("a # b")'
    assert found(code, "python") == [
        ("def", "keyword"),
        ("# twice", "comment"),
        ("return", "keyword"),
        ("2", "number"),
        ('"a # b"', "string"),
    ]


def test_c_comments_span_lines() -> None:
    assert found("int a; /* one\ntwo */ // three", "c") == [
        ("int", "keyword"),
        ("/* one\ntwo */", "comment"),
        ("// three", "comment"),
    ]


def test_sql_keywords_in_capitals() -> None:
    assert ("SELECT", "keyword") in found("SELECT a FROM b -- all", "sql")


def test_docstrings_span_lines() -> None:
    assert found('"""one\ntwo"""', "py") == [('"""one\ntwo"""', "string")]


def test_a_keyword_inside_a_word_is_none() -> None:
    assert found("format(classes.import_all)", "python") == []


def test_plain_text_has_no_colors() -> None:
    assert spans("for 1 in all", "text") == []


def test_code_without_end_has_no_colors() -> None:
    assert spans("1 " * LONGEST, "python") == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ['"', "'", '\\"', '\\"""', "/*", "/* *", "<!--", "# ", '"\\\n'])
@pytest.mark.parametrize("language", ["python", "c", "html", ""])
def test_time_does_not_explode(piece: str, language: str) -> None:
    """With a lexer that looks for the other end from every opening one this would take minutes."""
    spans(piece * (LONGEST // len(piece)), language)
