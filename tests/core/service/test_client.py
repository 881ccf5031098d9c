"""Children that answer, crash, hang, flood and lie, and what their caller hears of each."""

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
    Talk,
    Text,
    Unknown,
    Unspeakable,
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
    """Services that are closed at the end; afterwards no child may be left."""
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


def test_a_call_gives_its_events_and_its_values(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    values = answer(start(), Echo("zürich \udcff", free=[1, None, 2.5]), seen)
    assert [type(event) for event in seen] == [Progress] * 3
    assert (values.text, values.free) == ("zürich \udcff", [1, None, 2.5])


def test_calls_share_one_child(start: Callable[..., Service]) -> None:
    service = start()
    assert len({ask(service, Echo()).pid for _ in range(3)}) == 1


def test_a_large_request_and_a_large_answer_come_whole(start: Callable[..., Service]) -> None:
    assert len(ask(start(), Echo(text="x" * 3_000_000)).text) == 3_000_000


def test_what_is_wrong_with_a_request_is_told_typed(start: Callable[..., Service]) -> None:
    error = failure(start(), Wrong())
    assert (type(error), error.message, error.hint) == (BadInput, "The request is wrong.", "Make another.")


def test_a_bug_is_one_sentence_and_a_traceback_in_the_log(start: Callable[..., Service], home: Path) -> None:
    error = failure(start(), Buggy())
    assert error.message == "Something went wrong inside Bitwright: ZeroDivisionError: a bug"
    log = Path(error.hint.split(" is in ")[1])
    assert log.parent == home / "logs"
    assert "Traceback" in log.read_text()


def test_a_result_that_cannot_be_sent_is_a_failure(start: Callable[..., Service]) -> None:
    assert "object cannot be encoded" in failure(start(), Unspeakable()).message


def test_a_request_of_another_version_is_one_sentence(start: Callable[..., Service]) -> None:
    error = failure(start(), Unknown())
    assert (type(error), error.message) == (BadInput, "There is no request 'Unknown'.")


def test_a_field_of_another_version_is_one_sentence(start: Callable[..., Service]) -> None:
    request: Any = Leave("three")  # type: ignore[arg-type] # as another version may send it
    assert failure(start(), request).message == "The request Leave is not valid: Leave.code: 'three' is not int."


def test_a_result_of_another_version_is_one_sentence(start: Callable[..., Service]) -> None:
    assert failure(start(), Untrue()).message.startswith("The helper process gave no valid answer to Untrue: ")


def test_after_a_failure_the_child_goes_on(start: Callable[..., Service]) -> None:
    service = start()
    first = ask(service, Echo()).pid
    failure(service, Buggy())
    assert ask(service, Echo()).pid == first


def test_prints_of_libraries_are_no_replies_and_stdin_is_empty_for_them(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    assert answer(start(), Noisy(), seen) == Text("")
    assert seen == []


def test_a_stop_is_obeyed_and_the_child_stays(start: Callable[..., Service]) -> None:
    service = start()
    pid = ask(service, Echo()).pid
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Wait(), seen, lambda: bool(seen))
    assert ask(service, Echo()).pid == pid


def test_an_answer_that_a_stop_cuts_short_is_an_answer(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    values = answer(start(), Talk(), seen, lambda: len(seen) > 10)
    assert values.ended_by == "stopped"
    assert values.words == sum(isinstance(event, Token) for event in seen)


def test_a_call_that_is_stopped_before_it_began_does_not_begin(start: Callable[..., Service]) -> None:
    service = start()
    list_of: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Wait(), list_of, lambda: True)
    assert ask(service, Echo())


def test_a_child_that_does_not_hear_a_stop_is_killed(start: Callable[..., Service]) -> None:
    service = start(patience=0.3)
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Deaf(), seen, lambda: bool(seen))
    assert isinstance(seen[0], Log)
    assert not psutil.pid_exists(int(seen[0].message))


def test_after_a_kill_the_next_call_has_a_new_child(start: Callable[..., Service]) -> None:
    service = start(patience=0.2)
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(service, Deaf(), seen, lambda: bool(seen))
    assert not service.alive
    assert ask(service, Echo())


def test_an_abandoned_call_is_stopped_and_the_next_one_answered(start: Callable[..., Service]) -> None:
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
        ("SIGTERM", "was ended from outside (signal 15)"),
    ],
)
def test_a_death_is_explained_in_one_sentence(start: Callable[..., Service], number: str, words: str) -> None:
    error = failure(start(), Crash(signal=number))
    assert (type(error), error.message) == (
        ChildDied, f"The helper process {words}. Its last words: about to die",
    )  # fmt: skip


def test_a_crash_in_native_code_leaves_its_stack_in_the_log(start: Callable[..., Service]) -> None:
    # the real service: the fake one does not switch faulthandler on
    error = failure(start(), Crash(signal="SIGSEGV"))
    assert "segmentation fault" in error.message
    assert Path(error.hint.split("The log is ")[1]).is_file()


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_without_an_answer_is_a_death(start: Callable[..., Service], code: int) -> None:
    assert f"exit code {code}" in failure(start(), Leave(code=code)).message


def test_after_a_death_the_next_call_has_a_new_child(start: Callable[..., Service]) -> None:
    service = start()
    failure(service, Leave(code=3))
    assert ask(service, Echo())


def test_a_child_that_dies_at_once_is_a_death_with_its_words(start: Callable[..., Service]) -> None:
    assert failure(start("at-once"), Echo()).message.endswith("(exit code 7). Its last words: no")


def test_a_command_that_is_not_there_is_said() -> None:
    with pytest.raises(ChildDied, match="could not be started"), Service(command=["/no/such/python"]) as service:
        service.start()


def test_garbage_is_passed_on_as_log_and_the_answer_is_found(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    assert answer(start("garbage"), Echo(), seen) == Echoed(1, "answer", 42, None)
    assert seen
    assert all(isinstance(event, Log) for event in seen)


def test_a_stop_ends_a_child_that_floods(start: Callable[..., Service]) -> None:
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        answer(start("flood", patience=0.2), Echo(), seen, lambda: len(seen) > 2000)


def test_a_child_that_floods_waits_for_its_reader(start: Callable[..., Service]) -> None:
    service = start("flood")
    events = service.call(Echo())
    next(events)
    child = service._child
    assert child is not None
    pause = threading.Event()
    while not child._incoming.full():
        pause.wait(0.01)
    assert child._incoming.qsize() == module._AHEAD


def test_a_line_without_an_end_is_no_reason_to_read_for_ever(
    start: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 1 << 22)
    assert isinstance(failure(start("endless-line"), Echo()), ChildDied)


def test_a_child_that_closes_its_end_is_ended(start: Callable[..., Service]) -> None:
    assert "broke off" in failure(start("mute"), Echo()).message


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_a_process_that_it_left_behind_does_not_hold_the_caller(start: Callable[..., Service]) -> None:
    error = failure(start("grandchild"), Echo())
    psutil.Process(int(error.message.rpartition(" ")[2])).kill()
    assert "exit code 5" in error.message


def test_a_child_that_never_reads_holds_nobody(start: Callable[..., Service]) -> None:
    answers = iter([False, False])
    with pytest.raises(Cancelled):
        ask(start("silent", patience=0.2), Echo(text="x" * 1_000_000), lambda: next(answers, True))


@pytest.mark.parametrize("behaviour", ["served", *ODD])
def test_close_is_certain(start: Callable[..., Service], behaviour: str) -> None:
    service = start(behaviour)
    service.start()
    service.close()
    assert not service.alive


def test_closing_from_another_thread_cancels_the_call(start: Callable[..., Service]) -> None:
    service = start()
    events = service.call(Deaf())
    next(events)
    closer = threading.Thread(target=service.close)
    closer.start()
    with pytest.raises(Cancelled):
        list(events)
    closer.join()


def test_after_close_nothing_starts(start: Callable[..., Service]) -> None:
    service = start()
    service.close()
    with pytest.raises(Cancelled):
        ask(service, Echo())


def test_a_kill_from_another_thread_cancels_the_call(start: Callable[..., Service]) -> None:
    service = start()
    events = service.call(Deaf())
    next(events)
    service.kill()
    with pytest.raises(Cancelled):
        list(events)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors")
def test_nothing_is_left_open(start: Callable[..., Service]) -> None:
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


def test_a_log_without_a_word_is_removed(home: Path, start: Callable[..., Service]) -> None:
    service = start()
    ask(service, Echo())
    service.close()
    assert list((home / "logs").iterdir()) == []
