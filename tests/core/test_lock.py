"""Tests of locks that are released at the end of their process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core import lock
from core.jobs.process import ROOT
from core.lock import Holder, here, holder_from_json, is_held, take

HOLD = """
import sys
from pathlib import Path
from core.lock import take
held = take(Path(sys.argv[1]))
print(held is not None, flush=True)
input()
"""


def test_a_lock_keeps_others_out_until_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    held = take(file)
    assert held is not None
    assert (take(file), is_held(file)) == (None, True)
    held.close()
    held.close()
    assert is_held(file) is False
    again = take(file)
    assert again is not None
    again.close(remove=True)
    assert not file.exists()


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert (take(file), is_held(file)) == (None, True)
        process.kill()
        process.wait()
    assert is_held(file) is False


def test_what_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    assert is_held(tmp_path / "nothing") is False
    assert not (tmp_path / "nothing").exists()


def test_a_place_that_cannot_be_looked_at_is_not_called_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    assert is_held(tmp_path / "lock") is None


def test_a_process_is_found_by_what_it_noted() -> None:
    me = holder_from_json(here().to_json())
    assert me == here()
    found = me.process()
    assert found is not None
    assert found.pid == psutil.Process().pid


@pytest.mark.parametrize("changes", [{"started": 1.0}, {"pid": 2**30}, {"host": "a", "boot": "b"}])
def test_another_process_is_not_taken_for_it(changes: dict[str, object]) -> None:
    assert holder_from_json({**here().to_json(), **changes}).process() is None


@pytest.mark.parametrize("value", [None, [], {}, {"host": 1, "boot": "", "pid": 1, "started": 1.0}, "text"])
def test_what_describes_no_process_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"host and boot|invalid description"):
        holder_from_json(value)


def test_a_container_on_the_same_kernel_is_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_machine", lambda: ("host", "boot"))
    assert not Holder("container", "boot", 1, 1.0).elsewhere
    assert not Holder("host", "earlier boot", 1, 1.0).elsewhere
    assert Holder("other", "other boot", 1, 1.0).elsewhere
    assert Holder("other", "", 1, 1.0).elsewhere
