"""Tests of the client with child processes that work, crash, hang, flood the pipe or send invalid replies."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from core.control import never
from core.errors import BadInput, BitwrightError, Cancelled, ChildDied
from core.events import Event, Log, Progress, Token
from core.service import client as module
from core.service.client import KEPT_LOGS, Service
from core.service.messages import Request
from tests.core.service.fake_service import (
    Buggy,
    Crash,
    Deaf,
    Echo,
    Echoed,
    Leave,
    Noisy,
    Stream,
    Text,
    Unencodable,
    Unknown,
    Untrue,
    Wait,
    Wrong,
)

R = TypeVar("R")
FAKE = Path(__file__).with_name("fake_service.py")
ODD = ["garbage", "flood", "endless-line", "silent", "mute", "grandchild", "at-once"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Create services that are closed at the end, and check that no child is left."""
    before = set(psutil.Process().children(recursive=True))
    made: list[Service] = []

    def make(behaviour: str = "served", **options: Any) -> Service:
        made.append(Service(command=[sys.executable, str(FAKE), behaviour], **options))
        return made[-1]

    yield make
    for service in made:
        service.close()
    assert set(psutil.Process().children(recursive=True)) <= before


def ask(service: Service, request: Request[R], should_stop: Callable[[], bool] = never) -> R:
    return answer(service, request, [], should_stop)


def answer(service: Service, request: Request[R], seen: list[Event], should_stop: Callable[[], bool] = never) -> R:
    events = service.call(request, should_stop)
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            result: R = end.value
            return result


def failure(service: Service, request: Request[Any]) -> BitwrightError:
    with pytest.raises(BitwrightError) as caught:
        ask(service, request)
    return caught.value


def test_call_yields_events_and_returns_the_result(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    values = answer(start(), Echo("zürich \udcff", free=[1, None, 2.5]), seen)
    assert [type(event) for event in seen] == [Progress] * 3
    assert (values.text, values.free) == ("zürich \udcff", [1, None, 2.5])


def test_calls_share_one_child(start: Callable[..., Service]) -> None:
    service = start()
    assert len({ask(service, Echo()).pid for _ in range(3)}) == 1


def test_large_request_and_large_result(start: Callable[..., Service]) -> None:
    assert len(ask(start(), Echo(text="x" * 3_000_000)).text) == 3_000_000


def test_error_of_a_call_keeps_its_type(start: Callable[..., Service]) -> None:
    error = failure(start(), Wrong())
    assert (type(error), error.message, error.hint) == (BadInput, "The request is wrong.", "Change it.")


def test_bug_gives_one_sentence_and_a_traceback_in_the_log(start: Callable[..., Service], home: Path) -> None:
    error = failure(start(), Buggy())
    assert error.message == "Something went wrong inside Bitwright: ZeroDivisionError: a bug"
    log = Path(error.hint.split(" is in ")[1])
    assert log.parent == home / "logs"
    assert "Traceback" in log.read_text()


def test_result_that_cannot_be_encoded_is_an_error(start: Callable[..., Service]) -> None:
    assert "object cannot be encoded" in failure(start(), Unencodable()).message


def test_unknown_request_is_an_error(start: Callable[..., Service]) -> None:
    error = failure(start(), Unknown())
    assert (type(error), error.message) == (BadInput, "Unknown request 'Unknown'.")


def test_invalid_field_is_an_error(start: Callable[..., Service]) -> None:
    request: Any = Leave("three")  # type: ignore[arg-type] # as another version may send it
    assert failure(start(), request).message == "The request Leave is not valid: Leave.code: 'three' is not int."


def test_invalid_result_is_an_error(start: Callable[..., Service]) -> None:
    assert failure(start(), Untrue()).message.startswith("The child process returned an invalid result for Untrue: ")


def test_child_continues_after_an_error(start: Callable[..., Service]) -> None:
    service = start()
    first = ask(service, Echo()).pid
    failure(service, Buggy())
    assert ask(service, Echo()).pid == first


def test_output_of_libraries_is_not_a_reply_and_their_stdin_is_empty(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    assert answer(start(), Noisy(), seen) == Text("")
    assert seen == []


def test_stop_ends_the_call_but_not_the_child(start: Callable[..., Service]) -> None:
    service = start()
    pid = ask(service, Echo()).pid
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Wait(), seen, lambda: bool(seen))
    assert ask(service, Echo()).pid == pid


def test_stopped_answer_is_a_result(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    values = answer(start(), Stream(), seen, lambda: len(seen) > 10)
    assert values.ended_by == "stopped"
    assert values.words == sum(isinstance(event, Token) for event in seen)


def test_call_stopped_before_its_start_does_not_start(start: Callable[..., Service]) -> None:
    service = start()
    list_of: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Wait(), list_of, lambda: True)
    assert ask(service, Echo())


def test_child_that_ignores_a_stop_is_killed(start: Callable[..., Service]) -> None:
    service = start(patience=0.3)
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Deaf(), seen, lambda: bool(seen))
    assert isinstance(seen[0], Log)
    assert not psutil.pid_exists(int(seen[0].message))


def test_next_call_after_a_kill_has_a_new_child(start: Callable[..., Service]) -> None:
    service = start(patience=0.2)
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Deaf(), seen, lambda: bool(seen))
    assert not service.alive
    assert ask(service, Echo())


def test_abandoned_call_is_stopped_before_the_next_one(start: Callable[..., Service]) -> None:
    service = start()
    events = service.call(Wait())
    next(events)
    events.close()
    assert ask(service, Echo(text="next")).text == "next"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="numbers of signals")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("SIGKILL", "was killed, most likely because memory ran out (signal 9)"),
        ("SIGTERM", "was terminated by another program (signal 15)"),
    ],
)
def test_cause_of_death_is_in_the_message(start: Callable[..., Service], number: str, words: str) -> None:
    error = failure(start(), Crash(signal=number))
    assert (type(error), error.message) == (
        ChildDied, f"The child process {words}. Its last output: about to die",
    )  # fmt: skip


def test_crash_in_native_code_writes_its_stack_to_the_log(start: Callable[..., Service]) -> None:
    # the real service: the fake one does not switch faulthandler on
    error = failure(start(), Crash(signal="SIGSEGV"))
    assert "segmentation fault" in error.message
    assert Path(error.hint.split("The log is ")[1]).is_file()


@pytest.mark.parametrize("code", [0, 3])
def test_exit_without_a_result_is_an_error(start: Callable[..., Service], code: int) -> None:
    assert f"exit code {code}" in failure(start(), Leave(code=code)).message


def test_next_call_after_a_crash_has_a_new_child(start: Callable[..., Service]) -> None:
    service = start()
    failure(service, Leave(code=3))
    assert ask(service, Echo())


def test_child_that_ends_at_once_is_an_error_with_its_output(start: Callable[..., Service]) -> None:
    assert failure(start("at-once"), Echo()).message.endswith("(exit code 7). Its last output: no")


def test_missing_command_is_an_error() -> None:
    with pytest.raises(ChildDied, match="could not be started"), Service(command=["/no/such/python"]) as service:
        service.start()


def test_invalid_lines_become_log_events_and_the_result_is_found(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    assert answer(start("garbage"), Echo(), seen) == Echoed(1, "answer", 42, None)
    assert seen
    assert all(isinstance(event, Log) for event in seen)


def test_stop_ends_a_child_that_floods_the_pipe(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(start("flood", patience=0.2), Echo(), seen, lambda: len(seen) > 2000)


def test_child_that_floods_the_pipe_blocks(start: Callable[..., Service]) -> None:
    service = start("flood")
    events = service.call(Echo())
    next(events)
    child = service._child
    assert child is not None
    pause = threading.Event()
    while not child._incoming.full():
        pause.wait(0.01)
    assert child._incoming.qsize() == module._AHEAD


def test_line_without_an_end_is_limited(start: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 1 << 22)
    assert isinstance(failure(start("endless-line"), Echo()), ChildDied)


def test_child_that_closes_its_stdout_is_ended(start: Callable[..., Service]) -> None:
    assert "closed the connection" in failure(start("mute"), Echo()).message


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_remaining_grandchild_does_not_block_the_caller(start: Callable[..., Service]) -> None:
    error = failure(start("grandchild"), Echo())
    psutil.Process(int(error.message.rpartition(" ")[2])).kill()
    assert "exit code 5" in error.message


def test_child_that_never_reads_does_not_block_the_caller(start: Callable[..., Service]) -> None:
    answers = iter([False, False])
    with pytest.raises(Cancelled):
        ask(start("silent", patience=0.2), Echo(text="x" * 1_000_000), lambda: next(answers, True))


@pytest.mark.parametrize("behaviour", ["served", *ODD])
def test_close_ends_every_child(start: Callable[..., Service], behaviour: str) -> None:
    service = start(behaviour)
    service.start()
    service.close()
    assert not service.alive


def test_close_from_another_thread_cancels_the_call(start: Callable[..., Service]) -> None:
    service = start()
    events = service.call(Deaf())
    next(events)
    closer = threading.Thread(target=service.close)
    closer.start()
    with pytest.raises(Cancelled):
        list(events)
    closer.join()


def test_closed_service_starts_no_child(start: Callable[..., Service]) -> None:
    service = start()
    service.close()
    with pytest.raises(Cancelled):
        ask(service, Echo())


def test_kill_from_another_thread_cancels_the_call(start: Callable[..., Service]) -> None:
    service = start()
    events = service.call(Deaf())
    next(events)
    service.kill()
    with pytest.raises(Cancelled):
        list(events)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors")
def test_no_descriptor_or_thread_remains(start: Callable[..., Service]) -> None:
    def once() -> None:
        service = start()
        failure(service, Leave(code=1))
        ask(service, Echo())
        service.close()

    once()
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(3):
        once()
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


def test_only_the_newest_logs_are_kept(home: Path) -> None:
    folder = home / "logs"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"service-20200101-{number:06}.txt").write_text("old")
    (folder / "mine.txt").write_text("kept")
    with Service(command=[sys.executable, str(FAKE), "served"]) as service:
        service.start()
        names = sorted(path.name for path in folder.iterdir())
    assert len(names) == KEPT_LOGS + 1
    assert "mine.txt" in names


def test_empty_log_is_deleted(home: Path, start: Callable[..., Service]) -> None:
    service = start()
    ask(service, Echo())
    service.close()
    assert list((home / "logs").iterdir()) == []
