"""The sentence about the support by an engine."""

from __future__ import annotations

import pytest

from app.shared.engine_words import engine_line
from core.formats.engines import EngineIssue

CANNOT, SLOW = (
    EngineIssue("a", "cannot", "no kernel for 2 bits", None),
    EngineIssue("b", "slow", "3 bits are unpacked", None),
)
WHOLE = EngineIssue("", "cannot", "it reads GGUF only", None)


@pytest.mark.parametrize(
    ("marks", "text", "role"),
    [
        ([], "vLLM on a CPU supports all layers.", "good"),
        ([SLOW], "vLLM on a CPU runs 1 layer slowly.", "warning"),
        ([CANNOT], "vLLM on a CPU cannot load 1 layer.", "bad"),
        ([CANNOT, SLOW], "vLLM on a CPU cannot load 1 layer and runs 1 layer slowly.", "bad"),
        ([WHOLE, SLOW], "vLLM on a CPU cannot load this output.", "bad"),
    ],
)
def test_the_sentence_is_about_the_most_serious_mark(marks: list[EngineIssue], text: str, role: str) -> None:
    assert engine_line("vllm-cpu", marks) == (text, role)


def test_no_engine_gives_no_text() -> None:
    assert engine_line("", []) == ("", "")
