"""The event file: whole lines are appended and read, also after a crash or on a full disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import Event, Log, Stage
from core.jobs.stream import EventLog, Follower, last_events


def names(events: list[Event]) -> list[str]:
    return [event.name if isinstance(event, Stage) else f"log: {getattr(event, 'message', '')}" for event in events]


def test_a_follower_reads_the_events_since_its_last_call(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    assert follower.read() == []
    with EventLog(path) as emit:
        emit(Stage("a"))
        assert names(follower.read()) == ["a"]
        emit(Stage("b"))
        emit(Stage("c"))
    assert names(follower.read()) == ["b", "c"]
    assert follower.read() == []


def test_an_incomplete_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    with path.open("ab", buffering=0) as stream:
        stream.write(b'{"event": "Stage", "na')
        assert follower.read() == []
        stream.write(b'me": "a"}')
        assert follower.read() == []
        stream.write(b"\n")
        assert names(follower.read()) == ["a"]


def test_a_truncated_last_line_is_not_merged_with_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "Stage", "na')
    with EventLog(path) as emit:
        emit(Stage("after"))
        emit(Stage("and on"))
    assert names(Follower(path).read()) == ["after", "and on"]


def test_a_last_line_that_lacks_only_its_line_break_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "Stage", "name": "before"}')
    with EventLog(path) as emit:
        emit(Stage("after"))
    assert names(Follower(path).read()) == ["before", "after"]


def test_a_line_truncated_by_a_full_disk_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    write, room = os.write, [12, 0]

    def full(descriptor: int, data: bytes) -> int:
        if not room:
            return write(descriptor, data)
        left = room.pop(0)
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:left])

    monkeypatch.setattr(os, "write", full)
    with EventLog(path) as emit:
        with pytest.raises(OSError, match="No space"):
            emit(Stage("cut"))
        emit(Stage("after"))
    assert names(Follower(path).read()) == ["after"]


@pytest.mark.parametrize("torn", [b'{"event": "Sta', b'{"event": "Sta\n'], ids=["without a newline", "with one"])
def test_a_truncated_line_at_the_end_is_ignored(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "Stage", "name": "a"}\n' + torn)
    assert names(Follower(path).read()) == ["a"]


def test_an_invalid_line_in_the_middle_is_a_log_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'nonsense\n{"event": "Stage", "name": "a"}\n')
    assert names(Follower(path).read()) == ["log: nonsense", "a"]


def test_an_invalid_line_is_a_log_event_once_another_line_follows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    path.write_bytes(b"nonsense\n")
    assert follower.read() == []
    with EventLog(path) as emit:
        emit(Stage("a"))
    assert names(follower.read()) == ["log: nonsense", "a"]


def test_a_follower_can_start_at_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as emit:
        emit(Stage("before"))
        follower = Follower(path, start=path.stat().st_size)
        emit(Stage("after"))
    assert names(follower.read()) == ["after"]


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 30))
def test_a_follower_reads_past_any_bytes(tmp_path_factory, pieces: list[bytes], limit: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("garbage") / "events.jsonl"
    path.write_bytes(b"\n".join([*pieces, b""]))
    with EventLog(path) as emit:
        emit(Stage("sound"))
    follower = Follower(path)
    seen: list[Event] = []
    for _ in range(path.stat().st_size // limit + 1):
        seen += follower.read(limit)
    assert names(seen)[-1] == "sound"
    lines = [line for line in b"\n".join(pieces).split(b"\n") if line.strip() and not line.endswith(b"\x18")]
    assert len(seen) == 1 + len(lines)


def test_a_line_above_the_size_limit_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as stream:
        for _ in range(20):
            stream.write(b"x" * (1 << 20))
    with EventLog(path) as emit:
        emit(Stage("after"))
    follower = Follower(path)
    events = [event for _ in range(10) for event in follower.read()]
    assert any(isinstance(event, Log) and "was skipped" in event.message for event in events)
    assert names(events)[-1] == "after"


def test_lines_of_several_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    logs = [EventLog(path) for _ in range(4)]

    def write(number: int) -> None:
        for _ in range(200):
            logs[number](Stage(f"{number}" * 300))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    events = Follower(path).read()
    assert len(events) == 800
    assert all(isinstance(event, Stage) for event in events)


def test_last_events_reads_only_the_end_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as emit:
        for number in range(500):
            emit(Stage(f"stage {number}"))
    last = list(last_events(path, window=300))
    assert names(last)[0] == "stage 499"
    assert 0 < len(last) < 10


def test_last_events_enlarges_the_window_for_a_long_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as emit:
        emit(Stage("short"))
        emit(Stage("x" * 5000))
    assert names(list(last_events(path, window=100)))[0] == "x" * 5000


def test_a_missing_file_has_no_last_events(tmp_path: Path) -> None:
    assert list(last_events(tmp_path / "events.jsonl")) == []
