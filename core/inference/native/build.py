"""Compilation of the kernels on first use, with the C++ compiler of the machine, and a cache of the libraries.

The name of a library in the cache is a hash of everything that it depends on: sources, compiler, flags and processor.
Code that another user could have put there is never loaded: the private folder and the file belong to this user, nobody
else may write to them, and a hash of the library's name and bytes is stored beside it and checked before each use.
Does not depend on torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import MissingDependency
from core.home import open_private, private_folder

SOURCES = Path(__file__).parent / "source"
INSTALL = "pip install ziglang"
"""Installs a C++ compiler without administrator rights; a g++ or clang++ on the machine is preferred."""
_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-pthread", "-w",
    # These do not reorder sums: they allow fused multiply-add and ignore errno and floating-point traps.
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
_LONGEST = 900.0
"""Timeout of a compiler in seconds; slow machines need about 60."""


def folder() -> Path:
    """Return the folder of the compiled libraries.

    Raises:
        MissingDependency: no private folder can be created.
    """
    try:
        return private_folder("native")
    except OSError as error:
        raise MissingDependency(
            f"No private folder for compiled kernels can be used ({error.strerror or error}).",
            "Set BITWRIGHT_HOME to a folder that belongs to you.",
        ) from error


def is_there() -> bool:
    """Return whether any library was compiled before."""
    try:
        return any(folder().glob("kernels-*"))
    except (MissingDependency, OSError):
        return False


def library() -> Path:
    """Return the compiled library for this machine, compiling it if necessary.

    Several processes may compile it at once; the last library, equal to the others, is kept.

    Raises:
        MissingDependency: there is no compiler, compilation fails, or there is no private folder; with the reasons.
    """
    reasons, place = [], folder()
    for compiler in _compilers():
        try:
            return _compiled(compiler, place)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reasons.append(f"{Path(compiler[0]).name}: {_first_line(error)}")
    if not reasons:
        raise MissingDependency(
            "No C++ compiler was found to compile the kernels.", f"Install g++ or clang++, or run: {INSTALL}"
        )
    raise MissingDependency(
        f"The kernels could not be compiled ({'; '.join(reasons)}).", f"Install g++ or clang++, or run: {INSTALL}"
    )


@contextlib.contextmanager
def loadable(path: Path) -> Iterator[str]:
    """Yield the name under which the loader finds a library that `library` returned.

    On Linux this is the open descriptor of the checked file, so that replacing the path has no effect. The loader
    identifies libraries by this name: keep the context open as long as the library is loaded, so that the name is not
    used again.

    Raises:
        OSError: the file has changed since it was compiled, or may belong to another user.
    """
    place = open_private(path.parent)
    try:
        descriptor = _open_whole(place, path)
        try:
            opened = f"/proc/self/fd/{descriptor}"
            yield opened if sys.platform == "linux" and os.path.exists(opened) else str(path)
        finally:
            os.close(descriptor)
    finally:
        os.close(place)


def discard(path: Path) -> None:
    """Delete a library that cannot be loaded; the next call of `library` compiles it again."""
    for each in (path, _seal(path)):
        with contextlib.suppress(OSError):
            each.unlink(missing_ok=True)


def machine_flags() -> list[str]:
    """Return the flags that select instruction sets; BITWRIGHT_NATIVE_FLAGS replaces them."""
    return shlex.split(os.environ.get("BITWRIGHT_NATIVE_FLAGS", "-march=native"))


def _compilers() -> Iterator[list[str]]:
    """Yield the commands of possible C++ compilers, the one in CXX first."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in (named, ["g++"], ["clang++"]):
        if command and shutil.which(command[0]):
            yield command
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++"]


def _compiled(compiler: list[str], place: Path) -> Path:
    """Return the library of one compiler, from the cache if it is there and intact."""
    flags = [*_FLAGS, *machine_flags()]
    path = place / f"kernels-{_key(compiler, flags)}{'.dll' if os.name == 'nt' else '.so'}"
    if is_whole(path):
        return path
    # In a private temporary folder, where no other user can replace files between compiling and linking.
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        made = Path(scratch) / path.name
        _make(compiler, flags, made)
        data = made.read_bytes()
    # Two processes may write here at the same time. If the hash of one ends up beside the library of the other, the
    # next process compiles again.
    _put(path, data)
    _put(_seal(path), _sealed(path, data).encode("ascii"))
    return path


def _put(path: Path, data: bytes) -> None:
    """Write a file that only this user can access into the checked folder, under a temporary name first."""
    place = open_private(path.parent)
    try:
        at = {} if os.name == "nt" else {"dir_fd": place}
        name = f".{path.name}.{os.getpid()}.{threading.get_ident()}"
        temporary = name if at else str(path.with_name(name))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with contextlib.suppress(OSError):
            os.unlink(temporary, **at)
        with os.fdopen(os.open(temporary, flags, 0o600, **at), "wb") as stream:
            stream.write(data)
        if at:
            os.rename(temporary, path.name, src_dir_fd=place, dst_dir_fd=place)
        else:
            os.replace(temporary, path)
    finally:
        os.close(place)


def _make(compiler: list[str], flags: list[str], to: Path) -> None:
    """Compile all sources in parallel and link them."""
    units = sorted(SOURCES.glob("*.cpp"))
    objects = [str(to.with_name(f"{unit.stem}.o")) for unit in units]
    commands = [[*compiler, *flags, "-c", str(unit), "-o", made] for unit, made in zip(units, objects, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    _run([*compiler, *flags, "-shared", *objects, "-o", str(to)])


def _run(command: list[str]) -> str:
    """Return the standard output of a command.

    Raises:
        ValueError: the command failed; with the first line of its output that contains "error".
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LONGEST, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise ValueError((errors or lines or [f"exit code {done.returncode}"])[0])
    return done.stdout


def _key(compiler: list[str], flags: list[str]) -> str:
    """Return a hash of everything that the library depends on."""
    value = hashlib.sha256()
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        value.update(source.name.encode() + b"\0" + source.read_bytes())
    for part in (*compiler, _run([*compiler, "--version"]), *flags, _processor()):
        value.update(b"\0" + part.encode())
    return value.hexdigest()[:24]


def _processor() -> str:
    """Return the model and the instruction sets of the processor, which determine the compiled code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    found = {" ".join(line.split()) for line in lines if line.startswith(wanted)}
    return f"{platform.machine()} {sorted(found)}"


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sealed(path: Path, data: bytes) -> str:
    """Return the hash that is stored beside a library: of its name, which stands for the sources, and its bytes."""
    return hashlib.sha256(path.name.encode() + b"\0" + data).hexdigest()


def is_whole(path: Path) -> bool:
    """Return whether a library is intact and belongs to this user."""
    try:
        with loadable(path):
            return True
    except OSError:
        return False


def _open_whole(place: int, path: Path) -> int:
    """Return a descriptor of a library in the folder `place` after checking its owner, permissions and bytes."""
    descriptor = _open_own(place, path)
    try:
        seal = _open_own(place, _seal(path))
        with os.fdopen(seal, "rb") as stream:
            expected = stream.read(1000)
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            found = _sealed(path, stream.read()).encode("ascii")
        if found != expected.strip():
            raise OSError(f"{path} has changed since it was compiled")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_own(place: int, path: Path) -> int:
    """Return a descriptor of a file that belongs to this user, only this user may write to, and has no other name."""
    if os.name == "nt":
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=place)
    found = os.fstat(descriptor)
    sound = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
    if not sound or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise PermissionError(f"{path} may belong to another user")
    return descriptor


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
