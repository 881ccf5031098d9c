"""A run of a command as a child process, with the time, the memory and the output of its whole process tree."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from core import evaluate
from core.events import Result

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Figures:
    """Figures of a run over all its processes.

    Attributes:
        code: exit code.
        seconds: wall time.
        cpu_seconds: user and system time of the processes that have ended and were waited for; 0 on Windows.
        peak: peak of the sum of the resident memory of the processes, in bytes, sampled every 0.1 s.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak: int


def measured(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Figures:
    """Run a command, with its output in `log`; no other child process may end meanwhile.

    Args:
        environment: all environment variables of the command; None for those of this process.
    """
    began, cpu_before = time.monotonic(), _children_seconds()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        peak = 0

        def watch() -> None:
            nonlocal peak
            root = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    tree = [root, *root.children(recursive=True)]
                    peak = max(peak, sum(member.memory_info().rss for member in tree))
                except psutil.Error:
                    pass
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        watcher.join()
    return Figures(code, time.monotonic() - began, _children_seconds() - cpu_before, peak)


def _children_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


def checkpoint_in(folder: Path) -> Path:
    """Return the folder with config.json, whose name auto-round chooses."""
    found = sorted(folder.rglob("config.json"))
    if not found:
        raise SystemExit(f"no checkpoint in {folder}")
    return found[0].parent


def perplexity_of(folder: Path | str) -> tuple[float, float]:
    """Return the perplexity on the bundled text in float32 and its standard error."""
    result = None
    for event in evaluate(str(folder), device="cpu", seqlen=512):
        if isinstance(event, Result):
            result = event.values["perplexity"]
    assert result is not None
    return result["value"], result["standard_error"]
