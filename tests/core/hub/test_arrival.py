"""Checksums of downloaded files, and partial files of killed downloads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import Cancelled
from core.hub.arrival import Arrival, Checksums, forget, sweep
from core.jobs.process import ROOT
from core.lock import take

PLACE = "models--some--model"
CONTENT = b"some bytes"
SHA1 = "0" * 39 + "a"


@pytest.fixture(autouse=True)
def home(own_home: Path) -> Path:
    return own_home


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    folder = tmp_path / "hub" / PLACE / "blobs"
    folder.mkdir(parents=True)
    return folder


def sibling(**values: Any) -> Checksums:
    return Checksums.of(SimpleNamespace(**{"lfs": None, "blob_id": None, **values}))


@pytest.mark.parametrize(
    ("sums", "same"),
    [
        (sibling(lfs={"sha256": hashlib.sha256(CONTENT).hexdigest()}, blob_id=SHA1), True),
        (sibling(lfs={"sha256": hashlib.sha256(b"other").hexdigest()}, blob_id=SHA1), False),
        (sibling(blob_id=hashlib.sha1(b"blob 10\0" + CONTENT).hexdigest()), True),
        (sibling(blob_id=hashlib.sha1(CONTENT).hexdigest()), True),
        (sibling(blob_id=SHA1), False),
        (sibling(blob_id="W/odd"), True),
        (sibling(), True),
    ],
)
def test_a_file_is_compared_with_the_checksums_of_the_hub(tmp_path: Path, sums: Checksums, same: bool) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert sums.match(tmp_path / "file", lambda: False) == same


def test_should_stop_cancels_a_verification(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with pytest.raises(Cancelled):
        sibling(blob_id=SHA1).match(tmp_path / "file", lambda: True)


@pytest.mark.skipif(os.name == "nt", reason="the cache has no links there")
def test_forget_removes_the_link_and_only_blobs_of_this_cache(tmp_path: Path, blobs: Path) -> None:
    snapshot = blobs.parent / "snapshots" / "commit"
    snapshot.mkdir(parents=True)
    (blobs / "etag").write_bytes(CONTENT)
    (tmp_path / "theirs").write_bytes(CONTENT)
    (snapshot / "ours").symlink_to(blobs / "etag")
    (snapshot / "link").symlink_to(tmp_path / "theirs")
    for name in ("ours", "link"):
        forget(snapshot / name)
    assert list(snapshot.iterdir()) == []
    assert list(blobs.iterdir()) == []
    assert (tmp_path / "theirs").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from core.hub.arrival import Arrival
blobs = Path(sys.argv[1])
arrival = Arrival(blobs.parent.parent, blobs.parent.name, ["model.safetensors"])
arrival.__enter__()
for name in ("e1.00000001.incomplete", "e2.00000002.incomplete", "e3.incomplete"):
    (blobs / name).write_bytes(b"half")
arrival.look()
os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_sweep_removes_only_partial_files_of_killed_downloads(blobs: Path, home: Path) -> None:
    theirs = "e1.99999999.incomplete"
    (blobs / theirs).write_bytes(b"half")
    subprocess.run([sys.executable, "-c", KILLED, str(blobs)], cwd=ROOT, check=False)
    cache = blobs.parent.parent
    in_use = cache / ".locks" / PLACE / "e2.lock"
    in_use.parent.mkdir(parents=True)
    lock = take(in_use)
    assert lock is not None
    assert sweep(cache, "models--another--model") == set()
    assert sweep(cache, PLACE) == {"model.safetensors"}
    # files that can be resumed, are in use, or are from another program are kept
    assert names(blobs) == {theirs, "e2.00000002.incomplete", "e3.incomplete"}
    lock.close()
    sweep(cache, PLACE)
    assert names(blobs) == {theirs, "e3.incomplete"}
    assert names(home / "downloads") == set()


def test_sweep_ignores_a_running_download(blobs: Path, home: Path) -> None:
    cache = blobs.parent.parent
    with Arrival(cache, PLACE, ["model.safetensors"]) as arrival:
        (blobs / "e1.00000001.incomplete").write_bytes(b"half")
        arrival.look()
        assert sweep(cache, PLACE) == set()
        assert names(blobs) == {"e1.00000001.incomplete"}
        (blobs / "e1.00000001.incomplete").unlink()
    assert names(home / "downloads") == set()


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"cache": 1, "place": 2, "names": 3, "partial": 4}'])
def test_sweep_ignores_a_damaged_record(blobs: Path, home: Path, value: str) -> None:
    note = home / "downloads" / "0123"
    note.mkdir(parents=True)
    (note / "files.json").write_text(value)
    assert sweep(blobs.parent.parent, PLACE) == set()


def test_a_record_cannot_remove_a_file_outside_the_cache(blobs: Path, home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "e1.00000001.incomplete"
    precious.touch()
    note = home / "downloads" / "0123"
    note.mkdir(parents=True)
    value = {"cache": str(blobs.parent.parent), "place": PLACE, "names": [], "partial": [f"../../../{precious.name}"]}
    (note / "files.json").write_text(json.dumps(value))
    sweep(blobs.parent.parent, PLACE)
    assert precious.exists()
