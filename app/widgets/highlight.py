"""Syntax highlighting: the comments, strings, numbers and keywords of a piece of code. Does not depend on Qt.

Uses one pass of one regular expression without nested repetition, because the code comes from a model and a lexer
with exponential time would block the window. Covers the common syntax of most languages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

Kind = Literal["comment", "string", "number", "keyword"]

LONGEST: Final = 100_000
"""Maximum number of characters that are highlighted."""

_HASH: Final = {
    "python", "py", "sh", "bash", "zsh", "shell", "console", "yaml", "yml", "toml", "ini", "r", "ruby", "rb", "perl",
    "make", "makefile", "dockerfile", "cmake", "julia", "nim",
}  # fmt: skip
_DASHES: Final = {"sql", "lua", "haskell", "hs", "elm", "ada"}
_PLAIN: Final = {"text", "txt", "plain", "plaintext", "output", "markdown", "md"}
_KEYWORDS: Final = (
    "and|as|assert|async|await|break|case|catch|class|const|continue|def|default|defer|del|do|done|echo|elif|else|end|enum|"
    "except|export|extends|extern|false|fi|final|finally|fn|for|foreach|from|func|function|global|go|if|impl|implements|"
    "import|in|include|interface|is|lambda|let|local|loop|match|mod|module|mut|namespace|new|nil|none|nonlocal|not|null|or|"
    "override|package|pass|private|protected|pub|public|raise|return|self|static|struct|super|switch|template|then|"
    "this|throw|trait|true|try|type|typedef|typename|union|unless|until|use|using|val|var|virtual|void|where|while|with|"
    "yield|int|float|double|char|bool|boolean|string|str|long|short|unsigned|byte"
)
_SQL: Final = (
    "as|and|or|not|null|in|is|case|when|then|else|end|distinct|union|with|from|where|set|like|between|exists|primary|key|"
    "select|insert|update|delete|create|table|values|into|join|left|right|inner|outer|on|group|by|order|having|limit"
)


class Span(NamedTuple):
    """A span of code: its start, length and kind."""

    start: int
    length: int
    kind: Kind


def spans(code: str, language: str) -> list[Span]:
    """Return the highlighted spans of `code`; none if it is plain text or too long."""
    name = language.lower()
    if name in _PLAIN or len(code) > LONGEST:
        return []
    return [
        Span(found.start(), found.end() - found.start(), kind)  # type: ignore[arg-type] # groups are named for kinds
        for found in _pattern(name).finditer(code)
        if (kind := found.lastgroup)
    ]


@lru_cache(maxsize=8)
def _pattern(language: str) -> re.Pattern[str]:
    # An unclosed span ends at the end of its line or of the code: searching for the other end from every start
    # would take quadratic time.
    if language in _HASH:
        comment = r"#[^\n]*"
    elif language in _DASHES:
        comment = r"--[^\n]*"
    elif language in ("html", "xml", "svg"):
        comment = r"<!--[^>]*>?"
    elif language:
        comment = r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"
    else:
        comment = r"//[^\n]*|(?<!\S)#\s[^\n]*"
    keywords = _SQL if language == "sql" else _KEYWORDS
    flags = re.IGNORECASE if language == "sql" else re.NOFLAG
    return re.compile(
        rf"(?P<comment>{comment})"
        r'|(?P<string>"""(?:[^"\\]|\\[\s\S]|"(?!""))*+(?:""")?|"(?:[^"\\\n]|\\.)*+"?|'
        r"'(?:[^'\\\n]|\\.){0,200}')"
        r"|(?P<number>(?<!\w)\d[\w.]*)"
        rf"|(?P<keyword>(?<![\w.])(?:{keywords}|None|True|False|Self)(?!\w))",
        flags,
    )
