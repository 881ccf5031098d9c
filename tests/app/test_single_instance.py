"""Single instance: the first process, the message of the second, and the remains of a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.single_instance import SingleInstance, server_name

FIRST = """
import sys
from pathlib import Path
from PySide6.QtCore import QCoreApplication
from app.single_instance import SingleInstance
application = QCoreApplication([])
instance = SingleInstance(Path(sys.argv[1]))
instance.asked.connect(lambda model: (print(model, flush=True), application.quit()))
print(instance.claim(), instance.listen(), flush=True)
application.exec()
"""
SECOND = """
import sys
from pathlib import Path
from PySide6.QtCore import QCoreApplication
from app.single_instance import SingleInstance
application = QCoreApplication([])
instance = SingleInstance(Path(sys.argv[1]))
print(instance.claim(), instance.hand_over(sys.argv[2], 20))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home of ours"


def first_of(home: Path) -> subprocess.Popen[str]:
    """Start another process that is the first instance."""
    child = subprocess.Popen([sys.executable, "-c", FIRST, str(home)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "True True\n"
    return child


def test_the_first_start_is_the_first(qtbot: QtBot, home: Path) -> None:
    instance = SingleInstance(home)
    assert instance.claim()
    assert instance.listen()
    instance.close()


def test_the_second_hands_its_model_over(qtbot: QtBot, home: Path) -> None:
    first = SingleInstance(home)
    assert first.claim()
    assert first.listen()
    second = subprocess.Popen(
        [sys.executable, "-c", SECOND, str(home), "Qwen/Qwen3-0.6B Größe"], stdout=subprocess.PIPE, text=True
    )
    with qtbot.waitSignal(first.asked, timeout=30_000) as asked:
        pass
    said, _ = second.communicate(timeout=30)
    assert (asked.args, said) == (["Qwen/Qwen3-0.6B Größe"], "False True\n")
    first.close()


def test_after_the_first_has_left_the_next_is_first(qtbot: QtBot, home: Path) -> None:
    left = SingleInstance(home)
    left.claim()
    left.listen()
    left.close()
    follower = SingleInstance(home)
    assert follower.claim()
    assert follower.listen()
    follower.close()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_what_a_killed_window_leaves_is_no_obstacle(qtbot: QtBot, home: Path) -> None:
    killed = first_of(home)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    follower = SingleInstance(home)
    assert follower.claim()
    assert follower.listen()
    follower.close()


def test_one_that_does_not_answer_is_given_up(qtbot: QtBot, home: Path) -> None:
    assert not SingleInstance(home).hand_over("demo", patience=0.3)


def test_a_message_that_is_none_only_brings_the_window_forward(qtbot: QtBot, home: Path) -> None:
    from PySide6.QtNetwork import QLocalSocket

    first = SingleInstance(home)
    first.claim()
    first.listen()
    socket = QLocalSocket()
    socket.connectToServer(server_name(home, os.environ))
    with qtbot.waitSignal(first.asked) as asked:
        socket.write(b'{"open": ["not", "text"]}\n')
        socket.flush()
    assert asked.args == [""]
    first.close()


def test_two_starts_in_the_same_instant_make_one_first(qtbot: QtBot, home: Path) -> None:
    claims: list[bool] = []
    starters = [SingleInstance(home) for _ in range(8)]
    threads = [threading.Thread(target=lambda starter=starter: claims.append(starter.claim())) for starter in starters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False] * 7 + [True]
    for starter in starters:
        starter.close()


def test_every_home_has_its_own_window(tmp_path: Path) -> None:
    assert server_name(tmp_path / "a", {}) != server_name(tmp_path / "b", {})


def test_the_socket_lies_in_the_users_own_folder_where_there_is_one(tmp_path: Path) -> None:
    short = Path("/") if sys.platform != "win32" else tmp_path
    assert server_name(tmp_path, {"XDG_RUNTIME_DIR": str(short)}).startswith(str(short))
    assert "/" not in server_name(tmp_path, {"XDG_RUNTIME_DIR": str(tmp_path / "gone")})
