"""Set-up and repair of the virtual environment in `.venv`.

Standard library only. The state is stored in `.venv`: `bitwright.json` marks the folder as created by Bitwright,
`bitwright-busy` exists while pip is writing (or was killed), and `bitwright-stamp.json`, written last, records the
device and extras of a complete set-up.
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
    "gptqmodel": "it needs another version of torch than the pinned one",
    "ipex": "it needs torch 2.8",
}
"""Extras that conflict with the pinned versions in `.venv` -> reason."""
DEFAULT_EXTRAS = frozenset({"vision"})
"""Extras that every set-up installs: small, and needed for a part of the window."""


class SetupError(Exception):
    """An error of the set-up, with a message, a hint and the exit code `status`."""

    def __init__(self, message: str, hint: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message, self.hint, self.status = message, hint, status


def say(text: str, end: str = "\n") -> None:
    """Print to stderr, so that the output of `exec` is only that of its command."""
    print(text, end=end, file=sys.stderr, flush=True)


def pins(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Return the versions by package name, from the lines `name==version` of the constraints file."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==", 1) for line in lines if line)


def read_json(path: Path) -> dict[str, object]:
    """Return the object in a JSON file, or {} if the file is missing or invalid."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[str]:
    """Return `value` if it is a list, else []."""
    return value if isinstance(value, list) else []


def key() -> str:
    """Return a hash of everything that a set-up depends on, except the entries of the stamp."""
    digest = hashlib.sha256(f"{ROOT}\0{sys.platform}\0{platform.machine()}".encode("utf-8", "surrogateescape"))
    here = Path(__file__).parent
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, *sorted(here.glob("*.py")), *sorted(lock_file.FOLDER.iterdir())):
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()


def ready(device: str, extras: frozenset[str]) -> bool:
    """Return whether `.venv` is complete for the device and the extras; only reads a few files."""
    stamp = read_json(STAMP)
    return (
        stamp.get("key") == key()
        and stamp.get("interpreter") == os.path.realpath(PYTHON)
        and PYTHON.exists()
        and device in ("auto", stamp.get("device"))
        and extras <= set(as_list(stamp.get("extras")))
    )


def write_stamp(device: str, extras: frozenset[str]) -> None:
    """Record that `.venv` is complete, with its device, extras and Python. The last step of a set-up."""
    done = {"key": key(), "device": device, "extras": sorted(extras), "interpreter": os.path.realpath(PYTHON)}
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    temporary.replace(STAMP)


def healthy() -> bool:
    """Return whether `.venv` can be reused: created for this folder, with a working Python, and no interrupted pip."""
    if read_json(MARKER).get("root") != str(ROOT) or BUSY.exists() or not PYTHON.exists():
        return False
    probe = [str(PYTHON), "-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def make_environment() -> None:
    """Create `.venv` if it does not exist, or replace it if it is broken.

    Raises:
        SetupError: this Python cannot create environments, or `.venv` was not created by Bitwright.
    """
    if VENV.exists() and not MARKER.exists() and any(VENV.iterdir()):
        raise SetupError(
            f"The environment at {VENV} was not created by Bitwright, so it was not changed.",
            "Move or delete that folder, then run the command again.",
        )
    if healthy():
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python cannot create virtual environments: its modules venv and ensurepip are not installed.",
            f"On Debian or Ubuntu: sudo apt install python3.{sys.version_info[1]}-venv",
        )
    if MARKER.exists():
        with step("removing the old environment, which is incomplete or was created elsewhere"):
            empty_environment()
    with step("new environment"):
        VENV.mkdir(exist_ok=True)
        MARKER.write_text(json.dumps({"root": str(ROOT)}) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "venv", str(VENV)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stderr or made.stdout).strip().splitlines()[-1:]
        raise SetupError("Python could not create the environment in .venv.", "".join(last))


def empty_environment() -> None:
    """Remove the contents of `.venv`, the marker last, so that an interrupted removal can be continued."""
    for path in sorted(VENV.iterdir(), key=lambda path: path == MARKER):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def environment() -> dict[str, str]:
    """Return the environment variables for a command in `.venv`, as set by `activate`."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    variables["VIRTUAL_ENV"] = str(VENV)
    variables["PATH"] = os.pathsep.join(filter(None, (str(BIN), os.environ.get("PATH"))))
    return variables


def pip(*args: str) -> str:
    """Run `pip install` and return "" on success, else its output.

    `BUSY` exists while pip is writing, because a killed pip can leave incomplete packages that look installed.
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
        output = log.read()
    BUSY.unlink()
    return output or "pip printed no message" if done.returncode else ""


def install(what: str, *args: str) -> None:
    """Run one call of pip as a step.

    Raises:
        SetupError: pip failed.
    """
    with step(what):
        output = pip(*args)
    if output:
        raise explain(what, output)


def explain(what: str, output: str) -> SetupError:
    """Return the error for a failed pip, with a hint derived from its output."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
    hint = f"The full log is {LOG}. Run the command again to continue."
    for sign, remedy in (
        ("No space left", "The disk is full: free some space."),
        (
            "DO NOT MATCH THE HASHES",
            "A file of the package index differs from its hash in packaging/locks and was not installed.",
        ),
        ("Connection", "The package index cannot be reached: check the network and pip's settings."),
        ("No matching distribution", "The package index has no such version for this Python and machine."),
    ):
        if sign in output:
            hint = f"{remedy} {hint}"
            break
    return SetupError(f"pip could not install {what}:\n" + "\n".join(lines[-3:]), hint)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print the name of a step, and its duration at the end."""
    began = time.monotonic()
    say(f"  {text} ... ", end="")
    try:
        yield
    except BaseException:
        say("")
        raise
    say(f"{time.monotonic() - began:.0f} s")


def install_locked(parts: frozenset[str]) -> None:
    """Install the packages of `parts` from the lock file of this Python: exact versions with known hashes only.

    Raises:
        SetupError: there is no lock file for this Python, or pip failed.
    """
    path = lock_file.path_for()
    if not path.exists():
        known = ", ".join(sorted(item.stem.removeprefix("python") for item in lock_file.FOLDER.glob("python*.txt")))
        raise SetupError(
            f"Bitwright has not been tested with Python {sys.version_info[0]}.{sys.version_info[1]}: "
            "packaging/locks has no lock file for it.",
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
    """Install torch for `device` with the first attempt that works.

    The next attempt is made only if the build does not exist, not after a failed download, because it may be a larger
    build of several GB. The dependencies of the CPU and CUDA builds are in the lock file; those of the XPU build are
    only on PyTorch's index.
    """
    output = ""
    for attempt in torch_attempts(device, version, sys.platform):
        if attempt.warning:
            say(f"  {attempt.warning}")
        with step(f"{attempt.requirement}{' from ' + attempt.index if attempt.index else ''}"):
            extra = ("--extra-index-url", attempt.index) if attempt.index else ()
            dependencies = () if device == "xpu" else ("--no-deps",)
            output = pip("--retries", "1", "--timeout", "30", *dependencies, *extra, attempt.requirement)
        if not output:
            return
        if "No matching distribution found for torch" not in output:
            break
    raise explain(f"torch {version} for {device}", output)


def check_extras(extras: frozenset[str]) -> None:
    """Raise `SetupError` for an extra that is not in pyproject.toml or that needs a separate environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project.get("optional-dependencies", {})
    for extra in sorted(extras - set(known)):
        fit = sorted(set(known) - set(OWN_ENVIRONMENT))
        raise SetupError(f"There is no extra {extra!r}.", f"Choose from {', '.join(fit)}.", 2)
    for extra in sorted(extras & set(OWN_ENVIRONMENT)):
        raise SetupError(
            f"The extra {extra!r} cannot be installed in .venv: {OWN_ENVIRONMENT[extra]}.",
            f"Create a separate environment: python3 -m venv {extra} && {extra}/bin/pip install -e '.[{extra}]'",
            2,
        )


def ensure(device: str = "auto", extras: frozenset[str] = frozenset()) -> None:
    """Set up `.venv` for `device` and `extras` if it is not complete; `auto` keeps the device of an earlier set-up.

    Raises:
        SetupError: the set-up failed.
    """
    if not ready(device, extras):
        with lock():
            if not ready(device, extras):
                set_up(device, extras)


def set_up(device: str, extras: frozenset[str]) -> None:
    """Set up `.venv` for the device, the extras and those installed by default, keeping those of an earlier set-up."""
    check_extras(extras)
    began = time.monotonic()
    stamp = read_json(STAMP)
    extras |= DEFAULT_EXTRAS | set(as_list(stamp.get("extras")))
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
    """Allow only one set-up of this folder at a time; others print a message and wait."""
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
