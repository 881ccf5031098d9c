"""Tests of the parsing of a calibration argument, the check before a run, and the bundled text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.calibration import text
from core.errors import BadCalibration
from core.recipes import RESOURCES


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("builtin", "builtin"),
        ("NeelNanda/pile-10k", "hub"),
        ("wikitext:name=wikitext-2-raw-v1:split=test", "hub"),
        ("missing.txt", "file"),
        ("some/missing.jsonl", "file"),
        ("./wikitext", "file"),
        ("../wikitext", "file"),
        ("/wikitext", "file"),
        ("~/wikitext", "file"),
        ("C:\\texts\\mine", "file"),
    ],
)
def test_paths_and_data_sets_are_told_apart(argument: str, kind: str) -> None:
    assert text.parse(argument).kind == kind


def test_an_existing_file_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wikitext").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert text.parse("wikitext").kind == "file"


def test_the_options_of_a_data_set() -> None:
    source = text.parse("a/b:split=test:name=c")
    assert (source.dataset, source.options) == ("a/b", {"split": "test", "name": "c"})


@pytest.mark.parametrize(
    "argument",
    ["", " ", "a\0b", "two words", "a/b/c", "a/b:color=red", "a/b:split", "a/b:split=", "x" * 5000 + "/a b"],
)
def test_neither_a_path_nor_a_data_set_is_refused(argument: str) -> None:
    with pytest.raises(BadCalibration):
        text.parse(argument)


def test_the_check_refuses_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{')
    with pytest.raises(BadCalibration, match="Line 2"):
        text.check(str(path))


def test_the_check_reads_only_the_beginning_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_CHECK_CHARS", 100)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a few words"}\n' * 20 + "{")
    text.check(str(path))


def test_the_check_of_a_data_set_sends_no_request() -> None:
    text.check("acme/there-is-no-network-here")


def test_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a b ü.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert list(text.documents(str(path), lambda _: None)) == ["a", "b"]


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("mine")
    assert list(text.documents("~/mine.txt", lambda _: None)) == ["mine"]


def test_the_bundled_text_passes_its_own_check() -> None:
    text.check("builtin")


def test_the_bundled_text_is_long_enough_for_the_default_recipe() -> None:
    """128 samples of 2048 tokens, at the 4.3 characters per token of a vocabulary of 49,000."""
    assert sum(len(document) for document in text.documents("builtin", lambda _: None)) > 4.3 * 128 * 2048


def test_the_bundled_text_has_conversations() -> None:
    assert any(document.messages for document in text.records(text.parse("builtin"), lambda _: None))


def test_the_evaluation_text_is_not_in_the_calibration_text() -> None:
    def paragraphs(folder: str) -> set[str]:
        found = text.bundled(RESOURCES / folder)
        return {part for document in found for part in document.plain().split("\n\n") if len(part) > 60}

    assert paragraphs("calibration") & paragraphs("evaluation") == set()


def test_no_tensor_library_is_loaded_to_check_a_text() -> None:
    program = "import sys; from core.calibration import text; text.check('builtin'); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=RESOURCES.parent
    )
    assert done.stdout.strip() == "False"
