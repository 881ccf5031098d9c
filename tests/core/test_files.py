"""Tests of writing files atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core import files
from core.errors import CorruptFile


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"name": "Grüße, 世界", "list": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


def test_a_name_that_is_not_utf8_can_be_written_and_read(tmp_path: Path) -> None:
    value = {"path": os.fsdecode(b"/data/\xff\xfe")}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


def test_writing_leaves_only_the_file(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"1")
    files.write_atomic(tmp_path / "a", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"2"


def test_a_failed_write_keeps_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "a", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_what_is_not_json_is_a_corrupt_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(CorruptFile, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


def test_a_byte_order_mark_is_no_part_of_the_value(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
def test_a_mistake_is_named_by_line_and_column(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a.json").write_bytes(mark + b'{"a": 1,\n "b" 2}')
    with pytest.raises(CorruptFile, match=r"line 2, column 6"):
        files.read_json(tmp_path / "a.json")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}", encoding="utf-16")
    with pytest.raises(CorruptFile, match="UTF-16"):
        files.read_json(tmp_path / "a.json")


def test_a_file_far_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + "1, " * 100 + "1]")
    with pytest.raises(CorruptFile, match="larger than"):
        files.read_json(tmp_path / "a.json", limit=100)


@pytest.mark.parametrize(
    ("text", "what"),
    [("version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n", "LFS"), ("\n<!DOCTYPE html>", "web page")],
)
def test_a_stand_in_for_the_file_is_told_from_a_damaged_one(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CorruptFile, match=what):
        files.read_json(tmp_path / "a.json")


def test_a_missing_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="cannot be read"):
        files.read_json(tmp_path / "a.json")


def test_the_nearest_existing_folder_is_found(tmp_path: Path) -> None:
    assert files.existing_parent(tmp_path / "a" / "b" / "c") == tmp_path
    assert files.existing_parent(tmp_path) == tmp_path


def test_free_bytes_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") > 0


def test_a_free_name_has_the_next_number(tmp_path: Path) -> None:
    (tmp_path / "demo-4bit").mkdir()
    (tmp_path / "demo-4bit-2").mkdir()
    assert files.free_name(tmp_path / "demo-4bit") == tmp_path / "demo-4bit-3"


def test_json_is_readable_by_people(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": "ü"}


def test_a_key_twice_is_refused_where_people_write_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"layers": {"a.b": 1, "c": 2, "a.b": 3}}', encoding="utf-8")
    assert files.read_json(path) == {"layers": {"a.b": 3, "c": 2}}
    with pytest.raises(CorruptFile, match=r"has 'a\.b' twice"):
        files.read_json(path, unique=True)
