"""Child processes: their start, their end together with the processes that they started, and the cause of a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_REMEDY = "Try --low-memory, a smaller --batch-size or --seqlen, or close other programs."
_SIGNAL_CAUSES = {
    "SIGKILL": ("was killed, most likely because memory ran out", _REMEDY),
    "SIGSEGV": ("crashed in native code (segmentation fault)", "Try another --device; it may be a driver's fault."),
    "SIGABRT": ("gave up in native code (abort)", "Try another --device; it may be a driver's fault."),
    "SIGBUS": ("lost a file that it was reading, or its disk", "Check the disk that holds the model."),
    "SIGILL": ("met an instruction that this processor lacks", "Install the torch build for this machine."),
    "SIGTERM": ("was ended from outside", "Start it again."),
}


def start(argv: Sequence[str], log: Path, *, replies: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that reads from a pipe and writes to the end of `log`, in a session of its own.

    A session of its own: Ctrl-C in a terminal reaches the parent only, which stops the process in order.

    Args:
        replies: its stdout is a pipe as well.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if replies else stream,
            stderr=stream,
            cwd=ROOT,
            env=environment(),
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process from `start` and what it started (its session), while its id is surely still its own."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # another thread has just seen its end
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def environment() -> dict[str, str]:
    """The environment of a child: our root first on the path (-P keeps the working folder off it), logs in UTF-8.

    Huge pages for large tensors (read by torch, Linux only): the peak of a run falls by 7 %, and no longer depends
    on how the heap happened to be cut up. A short spin of OpenMP's waiting threads: as fast on a quiet machine, 1.5
    times as fast beside one busy program, since a thread that waits does not hold the core of one that works.
    """
    path = os.environ.get("PYTHONPATH")
    return {
        "THP_MEM_ALLOC_ENABLE": "1",
        "GOMP_SPINCOUNT": "10000",
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), path] if path else [str(ROOT)]),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "PYTHONUNBUFFERED": "1",
    }


def exit_cause(code: int | None) -> tuple[str, str]:
    """What became of a process with this exit code (negative: a signal; None: nobody waited), and the remedy of a run.

    The first goes after "The run ..."; its number stands behind it where there is one.
    """
    what, remedy = _SIGNAL_CAUSES.get(_signal_name(code or 0), ("ended without saying why", ""))
    number = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
    return what + number, remedy


def last_log_line(log: Path, window: int = 8192) -> str:
    """The last line with text of a log, at most 200 characters. Progress bars overwrite lines: \\r ends one too."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - window))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    # after a crash the stack of faulthandler stands last; its first line says what it was
    fatal = next((line for line in reversed(lines) if line.startswith("Fatal Python error")), "")
    return (fatal or (lines[-1] if lines else ""))[:200]


def take_stdin() -> int:
    """In the child: a private copy of stdin. Descriptor 0 becomes empty, so that no library can eat what is meant for
    us, or wait for it."""
    commands = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return commands


def _signal_name(code: int) -> str:
    if code == 0xC0000005:  # Windows: access violation
        return "SIGSEGV"
    try:
        return signal.Signals(-code).name if code < 0 else ""
    except ValueError:
        return ""
