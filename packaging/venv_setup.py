"""Makes the environment in `.venv` right: empty, broken, outdated or half-made, whatever stands there.

Standard library only. Knows of virtual environments and pip, not of commands to run in them. The state it
keeps lies in `.venv`: `bitwright.json` says that the folder is ours, `bitwright-busy` that pip is writing (or
was, when it was killed), and `bitwright-stamp.json`, written last, that the set-up is complete and for what.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lock_file

from torch_builds import BUILDS, find_device, torch_attempts

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "packaging" / "constraints.txt"
MARKER = VENV / "bitwright.json"
STAMP = VENV / "bitwright-stamp.json"
BUSY = VENV / "bitwright-busy"
LOG = VENV / "bootstrap.log"
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = BIN / ("python.exe" if WINDOWS else "python")
OWN_ENVIRONMENT = {
    "gptqmodel": "it takes another torch than the one that is pinned here",
    "ipex": "it takes torch 2.8 only",
}
"""Extras that cannot share `.venv` with the pinned versions, and why."""


class SetupError(Exception):
    """What stops the set-up: a sentence, and a hint under it. `status` is the exit code."""

    def __init__(self, message: str, hint: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message, self.hint, self.status = message, hint, status


def say(text: str, end: str = "\n") -> None:
    """To stderr, so that the output of `exec` stays that of its command."""
    print(text, end=end, file=sys.stderr, flush=True)


def pins(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Name to version, from the lines `name==version` of the constraints file."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==", 1) for line in lines if line)


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; empty where there is none, or half of one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[str]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def key() -> str:
    """A hash over all that a set-up depends on, except what the stamp records by name."""
    digest = hashlib.sha256(f"{ROOT}\0{sys.platform}\0{platform.machine()}".encode("utf-8", "surrogateescape"))
    here = Path(__file__).parent
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, *sorted(here.glob("*.py")), *sorted(lock_file.FOLDER.iterdir())):
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()


def ready(device: str, extras: frozenset[str]) -> bool:
    """Whether `.venv` is complete and has what is asked for. Reads a few files and starts nothing."""
    stamp = read_json(STAMP)
    return (
        stamp.get("key") == key()
        and stamp.get("interpreter") == os.path.realpath(PYTHON)
        and PYTHON.exists()
        and device in ("auto", stamp.get("device"))
        and extras <= set(as_list(stamp.get("extras")))
    )


def write_stamp(device: str, extras: frozenset[str]) -> None:
    """Say that `.venv` is complete, for what, and on which Python it stands. The last act of a set-up."""
    done = {"key": key(), "device": device, "extras": sorted(extras), "interpreter": os.path.realpath(PYTHON)}
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    temporary.replace(STAMP)


def healthy() -> bool:
    """Whether `.venv` can be built upon: made for this folder, its Python starts, and no pip was killed in it."""
    if read_json(MARKER).get("root") != str(ROOT) or BUSY.exists() or not PYTHON.exists():
        return False
    probe = [str(PYTHON), "-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def make_environment() -> None:
    """A healthy `.venv`: the one that is there, or a new one in place of a broken one of ours.

    Raises:
        SetupError: this Python cannot make one, or there is a `.venv` that somebody else made.
    """
    if VENV.exists() and not MARKER.exists() and any(VENV.iterdir()):
        raise SetupError(
            f"There is an environment at {VENV} that Bitwright did not make; it is left as it is.",
            "Move or delete that folder, then call this again.",
        )
    if healthy():
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python cannot make virtual environments: its modules venv and ensurepip are not installed.",
            f"On Debian or Ubuntu: sudo apt install python3.{sys.version_info[1]}-venv",
        )
    if MARKER.exists():
        with step("removing the old environment, which was cut off or made elsewhere"):
            empty_environment()
    with step("new environment"):
        VENV.mkdir(exist_ok=True)
        MARKER.write_text(json.dumps({"root": str(ROOT)}) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "venv", str(VENV)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stderr or made.stdout).strip().splitlines()[-1:]
        raise SetupError("Python could not make the environment in .venv.", "".join(last))


def empty_environment() -> None:
    """Remove what is in `.venv`, our marker last, so that a removal cut short is still known to be ours."""
    for path in sorted(VENV.iterdir(), key=lambda path: path == MARKER):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def environment() -> dict[str, str]:
    """The variables for a command inside `.venv`: what `activate` would set."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    variables["VIRTUAL_ENV"] = str(VENV)
    variables["PATH"] = os.pathsep.join(filter(None, (str(BIN), os.environ.get("PATH"))))
    return variables


def pip(*args: str) -> str:
    """Run `pip install`; "" if it worked, else what it said.

    `BUSY` stands while pip writes: a pip that was killed leaves packages that look installed and are not.
    """
    unwanted = ("PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES", "PIP_NO_DEPS")
    variables = {name: value for name, value in environment().items() if name not in unwanted}
    variables |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONIOENCODING": "utf-8"}
    command = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", *args]
    BUSY.touch()
    with LOG.open("a+", encoding="utf-8", errors="replace") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        start = log.tell()
        done = subprocess.run(command, cwd=ROOT, env=variables, stdout=log, stderr=log, check=False)
        log.seek(start)
        said = log.read()
    BUSY.unlink()
    return said or "pip said nothing" if done.returncode else ""


def install(what: str, *args: str) -> None:
    """A step that is one call of pip.

    Raises:
        SetupError: pip failed.
    """
    with step(what):
        said = pip(*args)
    if said:
        raise explain(what, said)


def explain(what: str, said: str) -> SetupError:
    """The problem behind a failed pip, from what it said."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
    hint = f"The whole log is {LOG}. Calling this again goes on from here."
    for sign, remedy in (
        ("No space left", "The disk is full: free some room."),
        (
            "DO NOT MATCH THE HASHES",
            "A file of the package index is not the one in packaging/locks; it was not installed.",
        ),
        ("Connection", "The package index did not answer: check the network or pip's settings."),
        ("No matching distribution", "The package index has no such version for this Python and machine."),
    ):
        if sign in said:
            hint = f"{remedy} {hint}"
            break
    return SetupError(f"pip could not install {what}:\n" + "\n".join(lines[-3:]), hint)


@contextmanager
def step(text: str) -> Iterator[None]:
    """One line for one step, with its seconds at the end."""
    began = time.monotonic()
    say(f"  {text} ... ", end="")
    try:
        yield
    except BaseException:
        say("")
        raise
    say(f"{time.monotonic() - began:.0f} s")


def install_locked(parts: frozenset[str]) -> None:
    """Install what the lock file of this Python names for `parts`: exact versions, and only files with a known hash.

    Raises:
        SetupError: there is no lock file for this Python, or pip failed.
    """
    path = lock_file.path_for()
    if not path.exists():
        known = ", ".join(sorted(item.stem.removeprefix("python") for item in lock_file.FOLDER.glob("python*.txt")))
        raise SetupError(
            f"Bitwright has not been tested with Python {sys.version_info[0]}.{sys.version_info[1]}: "
            "packaging/locks names no packages for it.",
            f"Use one of Python {known}.",
        )
    entries = lock_file.read(path)
    for source, options in ((False, ("--only-binary", ":all:")), (True, ("--no-build-isolation",))):
        text = lock_file.select(entries, parts, source=source)
        if not text:
            continue
        chosen = VENV / ("requirements-source.txt" if source else "requirements.txt")
        chosen.write_text(text, encoding="utf-8")
        names = ", ".join(sorted(parts - {lock_file.BASE, lock_file.CUDA}))
        what = f"libraries{' to compile' if source else ''}{f' with {names}' if names else ''}"
        install(what, "--no-deps", "--require-hashes", *options, "-r", str(chosen))


def install_torch(device: str, version: str) -> None:
    """Install torch for `device`: the first of its attempts that works.

    Only "there is no such build" leads to the next attempt. A broken download does not: after it the
    general build, of several GB, would be the wrong answer. What the CPU and CUDA builds depend on comes from the lock
    file; what the XPU build depends on is on PyTorch's index alone.
    """
    said = ""
    for attempt in torch_attempts(device, version, sys.platform):
        if attempt.warning:
            say(f"  {attempt.warning}")
        with step(f"{attempt.requirement}{' from ' + attempt.index if attempt.index else ''}"):
            extra = ("--extra-index-url", attempt.index) if attempt.index else ()
            dependencies = () if device == "xpu" else ("--no-deps",)
            said = pip("--retries", "1", "--timeout", "30", *dependencies, *extra, attempt.requirement)
        if not said:
            return
        if "No matching distribution found for torch" not in said:
            break
    raise explain(f"torch {version} for {device}", said)


def check_extras(extras: frozenset[str]) -> None:
    """Raise a SetupError for an extra that pyproject.toml does not name, or that needs an environment of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project.get("optional-dependencies", {})
    for extra in sorted(extras - set(known)):
        fit = sorted(set(known) - set(OWN_ENVIRONMENT))
        raise SetupError(f"There is no extra {extra!r}.", f"Choose from {', '.join(fit)}.", 2)
    for extra in sorted(extras & set(OWN_ENVIRONMENT)):
        raise SetupError(
            f"The extra {extra!r} does not fit into .venv: {OWN_ENVIRONMENT[extra]}.",
            f"Make an environment for it: python3 -m venv {extra} && {extra}/bin/pip install -e '.[{extra}]'",
            2,
        )


def ensure(device: str = "auto", extras: frozenset[str] = frozenset()) -> None:
    """Return when `.venv` is complete for `device` with `extras`; `auto` keeps the device it was made for.

    Raises:
        SetupError: what stopped it.
    """
    if not ready(device, extras):
        with lock():
            if not ready(device, extras):
                set_up(device, extras)


def set_up(device: str, extras: frozenset[str]) -> None:
    """Bring `.venv` to what is asked for, on top of what an earlier set-up put there."""
    check_extras(extras)
    began = time.monotonic()
    stamp = read_json(STAMP)
    extras |= set(as_list(stamp.get("extras")))
    if device == "auto":
        device = str(stamp.get("device", ""))
    if device not in BUILDS:
        device = find_device()
    say(f"Setting Bitwright up in {VENV} for {device} (the first time takes a few minutes)")
    STAMP.unlink(missing_ok=True)
    make_environment()
    LOG.write_text("", encoding="utf-8")
    cuda = {lock_file.CUDA} if device == "cuda" else set()
    install_locked(frozenset({lock_file.BASE, *extras, *cuda}))
    install_torch(device, pins()["torch"])
    install("Bitwright", "--no-deps", "--no-index", "--no-build-isolation", "-e", ".")
    write_stamp(device, extras)
    say(f"Ready after {time.monotonic() - began:.0f} s")


@contextmanager
def lock() -> Iterator[None]:
    """Only one set-up of this folder at a time; the next one waits and says so."""
    with (ROOT / ".venv.lock").open("a") as stream:
        if WINDOWS:
            import msvcrt

            while True:
                try:
                    msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
                    break
                except OSError:
                    time.sleep(1)
        else:
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Another set-up of this folder is running; waiting for it")
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield
