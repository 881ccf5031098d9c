"""Compiles our kernels on their first use, with whatever C++ compiler there is, and keeps the library.

The library lies in Bitwright's own folder under a name made of all that it depends on: the sources, the compiler, its
flags and the processor. Knows compilers and files, not what the kernels compute. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import MissingDependency
from core.home import home

SOURCES = Path(__file__).parent / "source"
INSTALL = "pip install ziglang"
"""Brings a C++ compiler that needs no rights; where there is a g++ or clang++ that is used instead."""
_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-pthread", "-w",
    # None of these changes what a sum is: products may be fused, and nobody looks at errno or at traps.
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
_LONGEST = 900.0
"""Seconds after which a compiler is taken to hang; slow machines need about 60."""


def folder() -> Path:
    """Where the compiled libraries are kept."""
    return home() / "native"


def library() -> Path:
    """The compiled library for this machine, compiled now if there is none yet.

    Several processes may do so at once; the last one's library, equal to the others', stays.

    Raises:
        MissingDependency: there is no compiler, or none that compiles it; the first line of what each said.
    """
    reasons = []
    for compiler in _compilers():
        try:
            return _compiled(compiler)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reasons.append(f"{Path(compiler[0]).name}: {_first_line(error)}")
    if not reasons:
        raise MissingDependency(
            "There is no C++ compiler to compile our kernels with.", f"Install g++ or clang++, or run: {INSTALL}"
        )
    raise MissingDependency(
        f"Our kernels could not be compiled ({'; '.join(reasons)}).", f"Install g++ or clang++, or run: {INSTALL}"
    )


def discard(path: Path) -> None:
    """Forget a library that cannot be loaded; the next `library()` compiles it again."""
    for each in (path, _seal(path)):
        with contextlib.suppress(OSError):
            each.unlink(missing_ok=True)


def machine_flags() -> list[str]:
    """The flags that choose instruction sets; BITWRIGHT_NATIVE_FLAGS replaces them."""
    return shlex.split(os.environ.get("BITWRIGHT_NATIVE_FLAGS", "-march=native"))


def _compilers() -> Iterator[list[str]]:
    """Commands that may be C++ compilers, the one that the user names first."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in (named, ["g++"], ["clang++"]):
        if command and shutil.which(command[0]):
            yield command
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++"]


def _compiled(compiler: list[str]) -> Path:
    """The library as this compiler makes it, from the cache where it is there and whole."""
    flags = [*_FLAGS, *machine_flags()]
    path = folder() / f"kernels-{_key(compiler, flags)}{'.dll' if os.name == 'nt' else '.so'}"
    if _is_whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=path.parent) as scratch:
        made, seal = Path(scratch) / path.name, Path(scratch) / "seal"
        _make(compiler, flags, made)
        seal.write_text(_digest(made), encoding="ascii")
        # Two processes may end here together, with libraries that differ in their bytes at most; the seal of one beside
        # the library of the other does not fit, and the next process compiles again, which is right if wasteful.
        made.replace(path)
        seal.replace(_seal(path))
    return path


def _make(compiler: list[str], flags: list[str], to: Path) -> None:
    """Compile every source, as many at a time as there are cores, and link them."""
    units = sorted(SOURCES.glob("*.cpp"))
    objects = [str(to.with_name(f"{unit.stem}.o")) for unit in units]
    commands = [[*compiler, *flags, "-c", str(unit), "-o", made] for unit, made in zip(units, objects, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    _run([*compiler, *flags, "-shared", *objects, "-o", str(to)])


def _run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        ValueError: it failed; with the first line that speaks of an error.
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LONGEST, check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        raise ValueError((errors or said or [f"it ended with {done.returncode}"])[0])
    return done.stdout


def _key(compiler: list[str], flags: list[str]) -> str:
    """A name for all that decides what the library is."""
    value = hashlib.sha256()
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        value.update(source.name.encode() + b"\0" + source.read_bytes())
    for part in (*compiler, _run([*compiler, "--version"]), *flags, _processor()):
        value.update(b"\0" + part.encode())
    return value.hexdigest()[:24]


def _processor() -> str:
    """What tells this processor from others that need other code: its model and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    found = {" ".join(line.split()) for line in lines if line.startswith(wanted)}
    return f"{platform.machine()} {sorted(found)}"


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether a library is there as it was compiled: loading half of one can end the process."""
    try:
        return _seal(path).read_text(encoding="ascii").strip() == _digest(path)
    except (OSError, ValueError):
        return False


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
