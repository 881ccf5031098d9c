"""Tests of files that only their owner can read: modes, no accidental overwriting, no remains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.private_files import append_private, private_folder, write_private

posix = pytest.mark.skipif(os.name != "posix", reason="rights are others there")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@posix
def test_a_file_is_its_owners_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_there_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    path = tmp_path / "a.md"
    write_private(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_private(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_a_link_that_leads_nowhere_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a.md", b"x", replace=False)


@posix
def test_a_folder_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "conversations"
    folder.mkdir(mode=0o755)
    private_folder(folder)
    assert mode(folder) == 0o700


@posix
def test_a_log_begins_anew_when_it_is_large(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    for _ in range(3):
        append_private(path, "12345", 8)
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("12345", 0o600)
