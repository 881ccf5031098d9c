"""How a checkpoint is loaded elsewhere, as code that is at least code, and honest notes."""

from __future__ import annotations

import ast
import shlex
from typing import Any

import pytest

from core.loading_snippets import Snippet, folder_to_open, snippets


def report(*formats: str, bits: dict[str, int] | None = None, **default: Any) -> dict[str, Any]:
    scheme = {"bits": 4, "group_size": 128, "sym": True, **default}
    return {
        "output_bytes": dict.fromkeys(formats or ("auto_round",), 1),
        "bits": bits or {str(scheme["bits"]): 7, "16": 2},
        "bits_map": {"version": 1, "default": scheme, "rules": [], "layers": {}},
        "fallbacks": {},
    }


def named(found: tuple[Snippet, ...], name: str) -> Snippet:
    return next(snippet for snippet in found if snippet.name == name)


@pytest.mark.parametrize("folder", ["/models/out", '/my models/it\'s "four" bits', "C:\\models\\out"])
def test_code_is_code_whatever_the_folder_is_called(folder: str) -> None:
    for snippet in snippets(report("auto_round"), folder):
        if snippet.language == "python":
            strings = [node.value for node in ast.walk(ast.parse(snippet.code)) if isinstance(node, ast.Constant)]
            assert folder in strings
        elif snippet.code:
            assert folder in shlex.split(snippet.code, comments=True)


def test_several_formats_have_a_folder_each() -> None:
    found = snippets(report("auto_round", "auto_gptq"), "/out")
    assert "/out/auto_round" in named(found, "transformers").code
    assert "/out/auto_gptq" in named(found, "transformers (GPTQ)").code
    assert folder_to_open(report("auto_round", "auto_gptq"), "/out") == "/out/auto_round"


def test_one_format_is_the_folder_itself() -> None:
    assert folder_to_open(report("auto_gptq"), "/out") == "/out"


def test_only_what_was_written_is_offered() -> None:
    assert "transformers" not in [snippet.name for snippet in snippets(report("auto_gptq"), "/out")]


def test_what_the_tests_load_is_said_to_be_tested() -> None:
    found = snippets(report("auto_round", "auto_gptq"), "/out")
    assert [snippet.name for snippet in found if snippet.support == "tested"] == ["Bitwright", "transformers"]


def test_the_usual_scheme_is_documented_for_servers() -> None:
    assert named(snippets(report(), "/out"), "vLLM").support == "documented"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (report(bits={"4": 3, "8": 3}), "fuses"),
        (report(bits={"2": 3}), "2 and 3 bits"),
        (report(sym=False), "fastest kernels"),
        (report(sym=False, bits={"8": 3}), "own packing"),
    ],
)
def test_unusual_schemes_are_not_promised(found: dict[str, Any], reason: str) -> None:
    snippet = named(snippets(found, "/out"), "vLLM")
    assert snippet.support == "partly"
    assert reason in snippet.note


def test_groups_that_fell_back_are_not_the_usual_scheme() -> None:
    found = report()
    found["fallbacks"] = {"model.layers.0.q": "group 128 does not divide 576: 64"}
    assert named(snippets(found, "/out"), "vLLM").support == "partly"


def test_a_program_that_cannot_load_it_gets_no_code() -> None:
    found = named(snippets(report(), "/out"), "llama.cpp")
    assert (found.code, found.support) == ("", "no")


def test_a_report_that_says_nothing_still_gives_ways() -> None:
    assert [snippet.name for snippet in snippets({}, "/out")][:2] == ["Bitwright", "transformers"]
