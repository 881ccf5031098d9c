"""Compiles our kernels on their first use, with whatever C++ compiler there is, and keeps the library.

The library lies in a private folder under a name made of all that it depends on: the sources, the compiler, its flags
and the processor. Code that somebody else could have put there is never loaded: the folder and the file belong to this
user and nobody else may write to them, and beside the library lies the hash of its bytes and of its name, which is
checked before each use. Knows compilers and files, not what the kernels compute. Imports no torch.
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
"""Brings a C++ compiler that needs no rights; where there is a g++ or clang++ that is used instead."""
_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-pthread", "-w",
    # None of these changes what a sum is: products may be fused, and nobody looks at errno or at traps.
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
_LONGEST = 900.0
"""Seconds after which a compiler is taken to hang; slow machines need about 60."""


def folder() -> Path:
    """Where the compiled libraries are kept.

    Raises:
        MissingDependency: there is no folder that others can be kept out of.
    """
    try:
        return private_folder("native")
    except OSError as error:
        raise MissingDependency(
            f"There is no private folder for compiled kernels ({error.strerror or error}).",
            "Set BITWRIGHT_HOME to a folder of your own.",
        ) from error


def is_there() -> bool:
    """Whether some library was compiled before."""
    try:
        return any(folder().glob("kernels-*"))
    except (MissingDependency, OSError):
        return False


def library() -> Path:
    """The compiled library for this machine, compiled now if there is none yet.

    Several processes may do so at once; the last one's library, equal to the others', stays.

    Raises:
        MissingDependency: there is no compiler, none that compiles it, or no private folder for it; with the reasons.
    """
    reasons, place = [], folder()
    for compiler in _compilers():
        try:
            return _compiled(compiler, place)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reasons.append(f"{Path(compiler[0]).name}: {_first_line(error)}")
    if not reasons:
        raise MissingDependency(
            "There is no C++ compiler to compile our kernels with.", f"Install g++ or clang++, or run: {INSTALL}"
        )
    raise MissingDependency(
        f"Our kernels could not be compiled ({'; '.join(reasons)}).", f"Install g++ or clang++, or run: {INSTALL}"
    )


@contextlib.contextmanager
def loadable(path: Path) -> Iterator[str]:
    """What to give to the loader for a library that `library` returned, as long as the context lasts.

    On Linux it is the very file that was checked, whatever the path leads to by now; its bytes are only this user's to
    change. The loader tells libraries apart by this name, so it must not be used for another one of the same process:
    keep the context open as long as the library is loaded.

    Raises:
        OSError: it is no longer what was compiled, or could be somebody else's.
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


def _compiled(compiler: list[str], place: Path) -> Path:
    """The library as this compiler makes it, from the cache where it is there and whole."""
    flags = [*_FLAGS, *machine_flags()]
    path = place / f"kernels-{_key(compiler, flags)}{'.dll' if os.name == 'nt' else '.so'}"
    if is_whole(path):
        return path
    # In the system's own folder for this, where nobody can exchange files between compiling and linking.
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        made = Path(scratch) / path.name
        _make(compiler, flags, made)
        data = made.read_bytes()
    # Two processes may end here together, with libraries that differ in their bytes at most; the seal of one beside the
    # library of the other does not fit, and the next process compiles again, which is right if wasteful.
    _put(path, data)
    _put(_seal(path), _sealed(path, data).encode("ascii"))
    return path


def _put(path: Path, data: bytes) -> None:
    """Write a file that is only this user's, under a temporary name first, into the folder that was checked."""
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


def _sealed(path: Path, data: bytes) -> str:
    """What lies beside a library: the hash of its name, which stands for the sources, and of its bytes."""
    return hashlib.sha256(path.name.encode() + b"\0" + data).hexdigest()


def is_whole(path: Path) -> bool:
    """Whether a library is there as this user compiled it: loading half of one, or another's, is not safe."""
    try:
        with loadable(path):
            return True
    except OSError:
        return False


def _open_whole(place: int, path: Path) -> int:
    """A descriptor of a library in the folder `place`, after its owner, its rights and its bytes were checked."""
    descriptor = _open_own(place, path)
    try:
        seal = _open_own(place, _seal(path))
        with os.fdopen(seal, "rb") as stream:
            expected = stream.read(1000)
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            found = _sealed(path, stream.read()).encode("ascii")
        if found != expected.strip():
            raise OSError(f"{path} is not what was compiled")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_own(place: int, path: Path) -> int:
    """A descriptor of a file that belongs to this user, that nobody else may write to, and that has no other name."""
    if os.name == "nt":
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=place)
    found = os.fstat(descriptor)
    sound = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
    if not sound or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise PermissionError(f"{path} may be another user's")
    return descriptor


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
