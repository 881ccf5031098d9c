"""Tests of the thread pool: every piece is computed once, from any thread."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from core.inference.native import build
from tests.core.inference.native.tiny_models import kernels

__all__ = ["kernels"]
Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)


def pieces(kernels: Any, threads: int, count: int) -> Counter[int]:
    """Return how often each piece was computed."""
    done: Counter[int] = Counter()
    guard = threading.Lock()

    def work(_: Any, piece: int) -> None:
        with guard:
            done[piece] += 1

    kernels.bw_parallel(threads, count, Work(work), None)
    return done


@pytest.mark.parametrize(("threads", "count"), [(1, 5), (2, 1), (2, 97), (5, 97), (3, 0)])
def test_every_piece_is_done_once(kernels: Any, threads: int, count: int) -> None:
    assert pieces(kernels, threads, count) == Counter(range(count))


def test_runs_of_different_widths_follow_each_other(kernels: Any) -> None:
    """A thread that is idle in one run takes part in the next run exactly once."""
    for turn in range(200):
        assert sum(pieces(kernels, 1 + turn % 4, 16).values()) == 16


def test_two_callers_wait_for_each_other(kernels: Any) -> None:
    found: list[Counter[int]] = []

    def call() -> None:
        found.extend(pieces(kernels, 2, 50) for _ in range(20))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [Counter(range(50))] * 60


def test_ended_threads_come_back_with_the_next_run(kernels: Any) -> None:
    pieces(kernels, 3, 10)
    kernels.bw_pool_close()
    assert kernels.bw_pool_threads() == 0
    assert pieces(kernels, 3, 10) == Counter(range(10))
    assert kernels.bw_pool_threads() >= 2


PROGRAM = """
import ctypes, os, sys
kernels = ctypes.CDLL(sys.argv[1])
Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
done = []
work = Work(lambda _, piece: done.append(piece))
kernels.bw_parallel(3, 40, work, None)
child = os.fork()
if not child:
    kernels.bw_parallel(3, 40, work, None)
    os._exit(0 if sorted(done) == sorted([*range(40)] * 2) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no processes are forked here")
def test_a_forked_child_has_threads_of_its_own_and_both_end(kernels: Any) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(build.library())], timeout=60, check=False)
    assert done.returncode == 0


def test_a_thread_that_waits_long_for_another_sleeps(kernels: Any) -> None:
    """Spinning or yielding would occupy a core while the other thread works, here half a second."""
    began = time.process_time()
    kernels.bw_parallel(2, 2, Work(lambda _, piece: time.sleep(0.5 * piece)), None)
    assert time.process_time() - began < 0.2
