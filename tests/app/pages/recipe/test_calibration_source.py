"""Which text is meant, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.pages.recipe.calibration_source import found_text, kind_of, named, use_text
from core import recipes
from core.calibration.preview import Preview
from core.errors import BadCalibration


def test_the_kind_of_a_text(tmp_path: Path) -> None:
    assert kind_of("builtin") == "builtin"
    assert kind_of(str(tmp_path / "a.txt")) == "file"
    assert kind_of("NeelNanda/pile-10k") == "hub"


def test_a_file_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words", encoding="utf-8")
    assert named("file", f" {tmp_path}/a.txt ") == str(tmp_path / "a.txt")


@pytest.mark.parametrize("written", ["/no/such/text.txt", "owner/name", "no such file"])
def test_a_file_that_is_not_there_is_refused(written: str) -> None:
    with pytest.raises(BadCalibration, match="does not exist"):
        named("file", written)


def test_a_data_set_keeps_its_options() -> None:
    assert named("hub", "owner/name:split=test") == "owner/name:split=test"


@pytest.mark.parametrize("written", ["/texts/a.txt", "owner/name:color=red", "what is this"])
def test_what_is_no_data_set_is_refused(written: str) -> None:
    with pytest.raises(BadCalibration):
        named("hub", written)


@pytest.mark.parametrize("kind", ["file", "hub"])
def test_nothing_written_yet_says_what_is_used_until_then(kind: str) -> None:
    with pytest.raises(BadCalibration) as caught:
        named(kind, " ")
    assert "bundled" in caught.value.hint


def test_how_much_is_used() -> None:
    assert use_text(recipes.load("quick")) == "A run uses 50 rows of 256 tokens: 12,800 tokens."
    assert "does not use" in use_text(recipes.load("rtn"))


def test_what_a_preview_found() -> None:
    counted = found_text(Preview("builtin", 12, 4096, 32768, (), ""))
    assert counted == "4,096 tokens from 12 documents, drawn from 32,768 tokens of the text."
    assert "once a model" in found_text(Preview("builtin", 12, 0, 0, (), ""))
