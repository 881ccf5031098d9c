"""Tests of the child process: replies, stops of running calls, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from core.errors import BitwrightError
from core.events import Event, Token
from core.inference.generation.message import Message
from core.inference.generation.settings import Sampling
from core.model.headers import read_folder
from core.service.client import Service
from core.service.messages import LoadModel, OpenModel, Request, Say
from tests.core.tiny_model import CONFIG, save_model

FAKE = Path(__file__).with_name("fake_service.py")
ROOT = Path(__file__).resolve().parents[3]
HELLO: tuple[Message, ...] = ({"role": "user", "content": "hello"},)
R = TypeVar("R")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("service") / "model")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, take_home: Callable[[Path, pytest.MonkeyPatch], Path]
) -> Iterator[Service]:
    """Share one child between the tests of replies, so that torch is imported once."""
    with pytest.MonkeyPatch.context() as patch:
        take_home(tmp_path_factory.mktemp("service") / "home", patch)
        with Service(patience=60) as running:
            yield running


def ask(service: Service, request: Request[R], seen: list[Event] | None = None) -> R:
    return ask_until(service, request, [] if seen is None else seen, 10**9)


def ask_until(service: Service, request: Request[R], seen: list[Event], count: int) -> R:
    """Return the result of a request that is stopped after `count` events."""
    events = service.call(request, lambda: len(seen) >= count)
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            result: R = end.value
            return result


def test_open_a_folder(service: Service, model: Path) -> None:
    found = ask(service, OpenModel(str(model)))
    assert (found.name, found.label, found.origin) == (str(model), "model", "folder")
    assert (found.config, found.folder, found.download_bytes) == (CONFIG, str(model), 0)
    assert {info.name: info for info in found.tensors} == read_folder(model)


def test_missing_model_is_an_error(service: Service) -> None:
    with pytest.raises(BitwrightError) as caught:
        ask(service, OpenModel("/no/such/model"))
    assert caught.value.code == "model-not-found"


def test_answer_is_streamed(service: Service, model: Path) -> None:
    loaded = ask(service, LoadModel(str(model), "cpu"))
    assert (loaded.label, loaded.device, loaded.template, loaded.context) == ("model", "cpu", True, 256)
    seen: list[Event] = []
    said = ask(service, Say(HELLO, Sampling(max_tokens=12, temperature=1.0, seed=3)), seen)
    assert "".join(event.text for event in seen if isinstance(event, Token)) == said.text
    assert said.statistics.tokens <= 12


def test_stopped_answer_has_the_text_so_far(service: Service, model: Path) -> None:
    ask(service, LoadModel(str(model), "cpu"))
    said = ask_until(service, Say(HELLO, Sampling(max_tokens=200, temperature=1.5, seed=1)), [], 3)
    assert said.statistics.ended_by == "stopped"
    assert said.statistics.tokens < 200


def test_one_child_opens_a_model_and_chats(service: Service, model: Path) -> None:
    ask(service, LoadModel(str(model), "cpu"))
    assert service.alive
    assert ask(service, Say(HELLO, Sampling(max_tokens=1))).statistics.tokens == 1


# --- the process ---


def begin(tmp_path: Path, behaviour: str = "") -> subprocess.Popen[bytes]:
    """A child process without a client, with the real handlers or those of `fake_service`."""
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


def call(number: int, name: str, **fields: Any) -> dict[str, Any]:
    return {"id": number, "request": name, "fields": fields}


def test_requests_are_executed_in_order(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, *(call(number, "Echo", count=0) for number in (7, 3, 5)))
        assert [receive(process)[0] for _ in range(3)] == [7, 3, 5]


def test_invalid_lines_on_stdin_are_ignored(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, b"\xff", b"[]", b"7", b'{"id": 1}', b'{"stop": "x"}', call(2, "Echo", count=0))
        assert receive(process)[1]["event"] == "Result"


def test_queued_call_can_be_stopped(tmp_path: Path) -> None:
    with begin(tmp_path, "served") as process:
        send(process, call(1, "Wait"), call(2, "Echo", count=0))
        assert receive(process)[1]["event"] == "Log"
        send(process, {"stop": 2}, {"stop": 1})
        ends = [receive(process) for _ in range(2)]
        assert [(number, event["code"]) for number, event in ends] == [(1, "cancelled"), (2, "cancelled")]


@pytest.mark.parametrize("name", ["Wait", "Deaf", "Stream"])
def test_running_call_ends_with_the_parent(tmp_path: Path, name: str) -> None:
    with begin(tmp_path, "served") as process:
        send(process, call(1, name))
        receive(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(30) == 0


def test_idle_child_ends_with_the_parent(tmp_path: Path) -> None:
    with begin(tmp_path) as process:
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    source = (
        "import sys; from core.service.client import Service\n"
        "from tests.core.service.fake_service import Deaf\n"
        "service = Service(command=sys.argv[1:]); events = service.call(Deaf())\n"
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


def test_usage_without_a_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "core.service.child"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)


def test_torch_is_not_imported_before_a_call_needs_it() -> None:
    source = "import sys; import core.service.child, core.service.calls; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="truncates a file that is open elsewhere")
def test_large_log_is_truncated(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    source = (
        "import os, threading; from core.service import child as service\n"
        "service._LOG_WATCH = 0.01; service.LOG_BYTES = 1000\n"
        "threading.Thread(target=service._bound_log, daemon=True).start()\n"
        "os.write(2, b'x' * 5000)\n"
        "while os.fstat(2).st_size > 1000: pass\n"
        "os.write(2, b'end')\n"
    )
    with log.open("ab") as stream:
        done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, stderr=stream, check=False, timeout=60)
    assert (done.returncode, log.read_bytes()) == (0, b"end")
