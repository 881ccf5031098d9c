"""Pairs of pictures and text from folders and JSON lines files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.calibration.pairs import QUESTION, PicturePair, read_pairs
from core.errors import BadCalibration

CAPTION = (("user", QUESTION), ("assistant", "A dog."))


def lines(folder: Path, *records: Any, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_a_folder_has_pictures_with_captions(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "c.png", "notes.txt", "a.txt"):
        (tmp_path / name).write_text("A dog." if name == "a.txt" else "")
    (tmp_path / "b.txt").write_text("  ")
    assert read_pairs(tmp_path, 9, 0) == [PicturePair((tmp_path / "a.jpg",), CAPTION)]


def test_the_metadata_of_a_folder_has_the_captions(tmp_path: Path) -> None:
    lines(tmp_path, {"file_name": "sub/a.jpg", "text": "A dog."}, name="metadata.jsonl")
    assert read_pairs(tmp_path, 9, 0) == [PicturePair((tmp_path / "sub/a.jpg",), CAPTION)]


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"image": "a.jpg", "text": "A dog."}, CAPTION),
        ({"image": "a.jpg", "caption": "A dog."}, CAPTION),
        ({"images": ["a.jpg"], "question": "What?", "answer": "A dog."}, (("user", "What?"), ("assistant", "A dog."))),
        (
            {
                "image": "a.jpg",
                "conversations": [
                    {"from": "human", "value": "<image>\nWhat is it?"},
                    {"from": "gpt", "value": "A dog."},
                ],
            },
            (("user", "What is it?"), ("assistant", "A dog.")),
        ),
    ],
    ids=["text", "caption", "question", "llava"],
)
def test_the_usual_fields_of_data_sets_are_known(
    tmp_path: Path, record: dict[str, Any], messages: tuple[tuple[str, str], ...]
) -> None:
    assert read_pairs(lines(tmp_path, record), 9, 0) == [PicturePair((tmp_path / "a.jpg",), messages)]


@pytest.mark.parametrize(
    "record",
    [{"text": "A dog."}, {"image": "", "text": "A dog."}, {"image": "a.jpg"}, {"image": 3, "text": "A dog."}, [1], "x"],
)
def test_records_without_a_picture_or_a_text_are_skipped(tmp_path: Path, record: Any) -> None:
    path = lines(tmp_path, record, {"image": "b.jpg", "text": "A dog."})
    assert [pair.pictures for pair in read_pairs(path, 9, 0)] == [(tmp_path / "b.jpg",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pair"),
        (b"{", "Line 1 .* not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"text": "no picture"}', "no pair"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadCalibration, match=message):
        read_pairs(path, 9, 0)


def test_a_path_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match="does not exist"):
        read_pairs(tmp_path / "none", 9, 0)


def test_pairs_are_drawn_by_the_seed(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"image": f"{number}.jpg", "text": "x"} for number in range(20)))
    first, second, other = (read_pairs(path, 5, seed) for seed in (1, 1, 2))
    assert first == second != other
    assert len(first) == 5
