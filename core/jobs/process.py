"""Child processes: start, termination of a whole process group, and the cause of a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_REMEDY = "Try a lower --memory, --low-memory, a smaller --seqlen, or close other programs."
_SIGNAL_CAUSES = {
    "SIGKILL": ("was killed, most likely because memory ran out", _REMEDY),
    "SIGSEGV": ("crashed in native code (segmentation fault)", "Try another --device; a driver may be the cause."),
    "SIGABRT": ("crashed in native code (abort)", "Try another --device; a driver may be the cause."),
    "SIGBUS": ("crashed because a file that it was reading became unavailable", "Check the disk that holds the model."),
    "SIGILL": ("used an instruction that this processor does not support", "Install a torch build for this processor."),
    "SIGTERM": ("was terminated by another program", "Start it again."),
}


def start(argv: Sequence[str], log: Path, *, replies: bool = False) -> subprocess.Popen[bytes]:
    """Start a process in a new session, with a pipe as stdin and its output appended to `log`.

    Because of the new session, Ctrl-C in a terminal reaches only the parent, which then stops the process cleanly.

    Args:
        replies: Connect stdout to a pipe as well, instead of the log.
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
    """Kill a process from `start` together with its process group. Does nothing if it has ended."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # it has ended, and another thread has just waited for it
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def environment() -> dict[str, str]:
    """Return the environment of a child process.

    PYTHONPATH starts with the root of this installation (the option -P keeps the working folder off the path), and
    the output is UTF-8. THP_MEM_ALLOC_ENABLE makes torch use huge pages for large tensors (Linux only), which reduces
    the peak memory of a run by 7 % and makes it independent of heap fragmentation. GOMP_SPINCOUNT limits the busy wait
    of OpenMP threads: equally fast on an idle computer, and 1.5 times as fast next to one busy program, because
    waiting threads release their cores. ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY limit the kernels that
    oneDNN keeps and their descriptions (250 kB each) that torch keeps, one for each shape of a product in 16 bits: with
    experts, the defaults of 1024 took 240 and 200 MB more after six blocks, in the same time.
    """
    path = os.environ.get("PYTHONPATH")
    return {
        "THP_MEM_ALLOC_ENABLE": "1",
        "GOMP_SPINCOUNT": "10000",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
        "LRU_CACHE_CAPACITY": "64",
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), path] if path else [str(ROOT)]),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "PYTHONUNBUFFERED": "1",
    }


def exit_cause(code: int | None) -> tuple[str, str]:
    """Return the cause of the end of a process, and a hint.

    Args:
        code: Exit code; negative for a signal, None if it is unknown.

    Returns:
        A predicate that completes "The run ...", with the number of the signal or the exit code, and the hint for a
        quantization run, which may be empty.
    """
    what, remedy = _SIGNAL_CAUSES.get(_signal_name(code or 0), ("ended without an error message", ""))
    number = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
    return what + number, remedy


def last_log_line(log: Path, window: int = 8192) -> str:
    """Return the last line of a log that is not blank, at most 200 characters.

    A carriage return ends a line too, since progress bars use it. After a crash, the line of faulthandler that names
    the error is returned.

    Args:
        window: Number of bytes at the end of the log that are searched.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - window))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    # faulthandler writes the stack after the line that names the error
    fatal = next((line for line in reversed(lines) if line.startswith("Fatal Python error")), "")
    return (fatal or (lines[-1] if lines else ""))[:200]


def take_stdin() -> int:
    """Return a duplicate of the stdin descriptor, and redirect descriptor 0 to the null device.

    Called in a child process, so that libraries cannot read the commands of the parent or block on them.
    """
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
