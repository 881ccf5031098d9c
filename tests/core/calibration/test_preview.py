"""Tests of the preview of a calibration text: rows of the run with a tokenizer, documents without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.calibration import tokens
from core.calibration.preview import CHARACTERS, ROWS, Preview, preview
from core.errors import BadCalibration, Cancelled
from core.events import Event
from core.model.tokenizer import load_tokenizer
from tests.core.tiny_model import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("preview") / "model")


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text number {number} " * 20}) + "\n" for number in range(40)))
    return str(path)


def make_preview(calibration: str, folder: Path | None, samples: int = 4, seqlen: int = 32) -> Preview:
    return preview(calibration, folder, samples, seqlen, 42, list[Event]().append, lambda: False)


def test_the_rows_are_those_of_a_run(texts: str, folder: Path) -> None:
    seen = make_preview(texts, folder)
    real = tokens.load(texts, load_tokenizer(folder), 4, 32, 42, list[Event]().append)
    assert (seen.sha256, seen.documents, seen.available) == (real.sha256, real.documents, real.available)
    assert seen.tokens == 4 * 32


def test_the_first_rows_can_be_read(texts: str, folder: Path) -> None:
    rows = make_preview(texts, folder).rows
    assert len(rows) == ROWS
    assert all("text number" in row for row in rows)


def test_long_rows_are_cut(texts: str, folder: Path) -> None:
    assert all(len(row) <= CHARACTERS for row in make_preview(texts, folder, samples=3, seqlen=1000).rows)


def test_without_a_model_the_documents_are_shown(texts: str) -> None:
    seen = make_preview(texts, None)
    assert (seen.documents, seen.tokens, seen.available, seen.sha256) == (40, 0, 0, "")
    assert seen.rows[0].startswith("text number 0")


def test_a_folder_without_a_tokenizer_gives_documents(texts: str, tmp_path: Path) -> None:
    assert make_preview(texts, tmp_path).tokens == 0


def test_the_bundled_text_is_shown_without_a_model() -> None:
    assert make_preview("builtin", None).documents > 100


def test_too_little_text_is_an_error(texts: str, folder: Path) -> None:
    with pytest.raises(BadCalibration):
        make_preview(texts, folder, samples=1000, seqlen=128)


def test_a_missing_text_is_an_error() -> None:
    with pytest.raises(BadCalibration):
        make_preview("/no/such/text.txt", None)


def test_a_preview_is_json(texts: str, folder: Path) -> None:
    assert set(json.loads(json.dumps(make_preview(texts, folder).to_json()))) == {
        "source", "documents", "tokens", "available", "rows", "sha256",
    }  # fmt: skip


def test_a_stop_ends_the_preview(texts: str) -> None:
    with pytest.raises(Cancelled):
        preview(texts, None, 4, 32, 42, list[Event]().append, lambda: True)
