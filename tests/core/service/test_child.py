"""The real service as a process: what it answers, what it hears while it works, and how it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import BitwrightError
from core.events import Event, Token
from core.model.headers import read_folder
from core.service.client import Service
from tests.core.tiny_model import CONFIG, save_model

FAKE = Path(__file__).with_name("fake_service.py")
ROOT = Path(__file__).resolve().parents[3]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("service") / "model")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, take_home: Callable[[Path, pytest.MonkeyPatch], Path]
) -> Iterator[Service]:
    """One child for all tests of answers: it imports torch once."""
    with pytest.MonkeyPatch.context() as patch:
        take_home(tmp_path_factory.mktemp("service") / "home", patch)
        with Service(patience=60) as running:
            yield running


def ask(service: Service, name: str, seen: list[Event] | None = None, **arguments: Any) -> dict[str, Any]:
    return ask_until(service, name, [] if seen is None else seen, 10**9, **arguments)


def ask_until(service: Service, name: str, seen: list[Event], count: int, **arguments: Any) -> dict[str, Any]:
    """The values of a call that is stopped once it has told `count` events."""
    events = service.call(name, arguments, lambda: len(seen) >= count)
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            values: dict[str, Any] = end.value
            return values


def test_a_folder_is_opened(service: Service, model: Path) -> None:
    values = ask(service, "open_model", model=str(model))
    assert (values["name"], values["label"], values["origin"]) == (str(model), "model", "folder")
    assert (values["config"], values["folder"], values["download_bytes"]) == (CONFIG, str(model), 0)
    assert [row[0] for row in values["tensors"]] == list(read_folder(model))


def test_what_is_not_there_is_said(service: Service) -> None:
    with pytest.raises(BitwrightError) as caught:
        ask(service, "open_model", model="/no/such/model")
    assert caught.value.code == "model-not-found"


def test_a_chat_streams_an_answer(service: Service, model: Path) -> None:
    opened = ask(service, "chat_open", model=str(model), device="cpu")
    assert (opened["label"], opened["device"], opened["template"], opened["context"]) == ("model", "cpu", True, 256)
    seen: list[Event] = []
    said = ask(service, "chat_say", seen, messages=HELLO, sampling={"max_tokens": 12, "temperature": 1.0, "seed": 3})
    assert "".join(event.text for event in seen if isinstance(event, Token)) == said["text"]
    assert said["tokens"] <= 12


def test_a_stop_ends_an_answer_with_what_it_has(service: Service, model: Path) -> None:
    ask(service, "chat_open", model=str(model), device="cpu")
    seen: list[Event] = []
    said = ask_until(
        service, "chat_say", seen, 3, messages=HELLO, sampling={"max_tokens": 200, "temperature": 1.5, "seed": 1}
    )
    assert said["ended_by"] == "stopped"
    assert said["tokens"] < 200


def test_the_child_that_chats_is_the_child_that_opened(service: Service, model: Path) -> None:
    ask(service, "chat_open", model=str(model), device="cpu")
    assert service.alive
    assert ask(service, "chat_say", messages=HELLO, sampling={"max_tokens": 1})["tokens"] == 1


def test_impossible_sampling_is_refused(service: Service, model: Path) -> None:
    ask(service, "chat_open", model=str(model), device="cpu")
    with pytest.raises(BitwrightError) as caught:
        ask(service, "chat_say", messages=HELLO, sampling={"warmth": 1})
    assert caught.value.code == "bad-input"


# --- the process ---


def begin(tmp_path: Path, behaviour: str = "") -> subprocess.Popen[bytes]:
    """A service without a client; the real one, or the fake one's calls behind the real machinery."""
    log = tmp_path / "log.txt"
    command = ["-P", "-m", "core.service.child"] if not behaviour else [str(FAKE), behaviour]
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, *command, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def send(process: subprocess.Popen[bytes], *values: Any) -> None:
    assert process.stdin is not None
    for value in values:
        process.stdin.write((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n")
    process.stdin.flush()


def receive(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
    assert process.stdout is not None
    value = json.loads(process.stdout.readline())
    return value["id"], json.loads(value["line"])


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": number, "call": name, "arguments": arguments}


def test_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, *(call(number, "echo", count=0) for number in (7, 3, 5)))
        assert [receive(process)[0] for _ in range(3)] == [7, 3, 5]


def test_nonsense_on_stdin_is_passed_over(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, b"\xff", b"[]", b"7", b'{"id": 1}', b'{"stop": "x"}', call(2, "echo", count=0))
        assert receive(process)[1]["event"] == "Result"


def test_a_call_can_be_stopped_before_its_turn(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, call(1, "wait"), call(2, "echo", count=0))
        assert receive(process)[1]["event"] == "Log"
        send(process, {"stop": 2}, {"stop": 1})
        ends = [receive(process) for _ in range(2)]
        assert [(number, event["code"]) for number, event in ends] == [(1, "cancelled"), (2, "cancelled")]


@pytest.mark.parametrize("name", ["wait", "deaf", "talk"])
def test_without_its_parent_a_call_ends(tmp_path: Path, name: str) -> None:
    with begin(tmp_path, "served") as process:
        send(process, call(1, name))
        receive(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(30) == 0


def test_a_service_that_waits_leaves_with_its_parent(tmp_path: Path) -> None:
    with begin(tmp_path) as process:
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_killed_parent_takes_its_service_along(tmp_path: Path) -> None:
    source = (
        "import sys; from core.service.client import Service\n"
        "service = Service(command=sys.argv[1:]); events = service.call('deaf', {})\n"
        "print(next(events).message, flush=True); next(events)\n"
    )
    command = [sys.executable, "-c", source, sys.executable, str(FAKE), "served"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BITWRIGHT_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone


def test_without_a_log_it_says_how_it_is_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "core.service.child"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)


def test_a_service_imports_no_torch_until_a_call_needs_it() -> None:
    source = "import sys; import core.service.child, core.service.calls; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="truncates a file that is open elsewhere")
def test_a_log_that_grows_without_end_is_emptied(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    source = (
        "import os, threading; from core.jobs import service\n"
        "service._LOG_WATCH = 0.01; service.LOG_BYTES = 1000\n"
        "threading.Thread(target=service._bound_log, daemon=True).start()\n"
        "os.write(2, b'x' * 5000)\n"
        "while os.fstat(2).st_size > 1000: pass\n"
        "os.write(2, b'end')\n"
    )
    with log.open("ab") as stream:
        done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, stderr=stream, check=False, timeout=60)
    assert (done.returncode, log.read_bytes()) == (0, b"end")
