#!/usr/bin/env python3
"""Set up Bitwright's virtual environment and run commands in it.

Needs only Python 3.11 or later. The environment is set up by `venv_setup`; the build of torch is chosen by
`torch_builds`.
"""

# No `from __future__ import annotations` and no syntax newer than Python 3.6 above the version check,
# so that an older Python can report the required version.
import os
import sys

OLDEST = (3, 11)


def python_problem(version: "tuple[int, ...]") -> str:
    """Return an error message if Bitwright does not support Python `version`, else ""."""
    if tuple(version[:2]) >= OLDEST:
        return ""
    return (
        "Bitwright needs Python 3.11 or later; this is Python %d.%d.\n"
        "Install a newer version and use it explicitly, for example: python3.12 packaging/bootstrap.py run"
    ) % tuple(version[:2])


if python_problem(sys.version_info[:2]):
    sys.exit(python_problem(sys.version_info[:2]))

import shutil
import signal
import subprocess
from dataclasses import dataclass, replace

from launcher import install as install_launcher
from torch_builds import DEVICES, find_device
from venv_setup import PYTHON, ROOT, WINDOWS, SetupError, ensure, environment, say

SHORT_USAGE = "usage: python3 packaging/bootstrap.py run|test|exec|setup|launcher [--device NAME] [--extra NAME] ..."
USAGE = f"""\
{SHORT_USAGE}

  run  [MODEL]     set up if needed, then open the window with MODEL (or the demo model) selected; without a
                   display, or with --terminal [FOLDER], quantize the demo model in the terminal instead
  test [ARGS]      set up if needed (including the test extra), then run the tests; ARGS are passed to pytest
  exec CMD [ARGS]  set up if needed, then run CMD in the environment
  setup            only set up, and detect the device of this machine again
  launcher         set up if needed, then add Bitwright to the programs of the desktop (Linux)

  --device  build of torch to install: cpu, cuda, xpu or auto (detected)
  --extra   optional part of Bitwright to install (see packaging/dependencies.md); may be repeated

Options may also precede the command. The environment is the folder .venv of the repository and is reused by
later calls. Delete .venv to start again."""


@dataclass(frozen=True)
class Request:
    """A parsed command line."""

    command: str
    args: tuple[str, ...] = ()
    device: str = "auto"
    extras: frozenset[str] = frozenset()


def parse(argv: list[str]) -> Request | None:
    """Parse the command line; return None if help is requested.

    Raises:
        SetupError: with status 2, for an unknown command or option.
    """
    command, device, extras = "", "auto", frozenset[str]()
    rest = list(argv)
    while rest:
        word, equals, value = rest[0].partition("=")
        if word in ("--device", "--extra"):
            del rest[0]
            if not equals and not rest:
                raise SetupError(f"{word} needs a value.", SHORT_USAGE, 2)
            value = value if equals else rest.pop(0)
            if word == "--extra":
                extras |= {value}
            elif value in DEVICES:
                device = value
            else:
                raise SetupError(f"There is no device {value!r}.", f"Choose from {', '.join(DEVICES)}.", 2)
        elif command:
            break
        elif word in ("-h", "--help"):
            return None
        elif word in ("run", "test", "exec", "setup", "launcher"):
            command = rest.pop(0)
        else:
            raise SetupError(f"There is no command {word!r}.", SHORT_USAGE, 2)
    args = tuple(rest[1:] if rest[:1] == ["--"] else rest)
    if not command or (command == "exec" and not args):
        raise SetupError("The command is missing.", SHORT_USAGE, 2)
    if command in ("setup", "launcher") and args:
        raise SetupError(f"{command} does not take {args[0]!r}.", SHORT_USAGE, 2)
    return Request(command, args, device, extras | {"test"} if command == "test" else extras)


def what_to_run(args: "tuple[str, ...]") -> "list[str]":
    """Return the command for `run`: the window if it can be opened, else the demo in the terminal."""
    # -P: do not import a folder named `core` or `app` from the current directory.
    python = [str(PYTHON), "-P", "-m"]
    if "--terminal" in args:
        return [*python, "core.cli.demo", *(arg for arg in args if arg != "--terminal")]
    # Prints the reason to stderr. Runs in a separate process, because it needs the environment's Python.
    if subprocess.run([*python, "app.qt_libraries"], env=environment(), check=False).returncode:
        say("The demo runs in the terminal instead.")
        return [*python, "core.cli.demo", *args]
    return [*python, "app", *(args or ("demo",))]


def start(command: list[str]) -> int:
    """Run `command` in the environment and return its exit code. On POSIX it replaces this process."""
    variables = environment()
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        raise SetupError(f"There is no program {command[0]!r} in the environment or on the PATH.", status=127)
    if not WINDOWS:
        os.execve(program, [program, *command[1:]], variables)
    child = subprocess.Popen([program, *command[1:]], env=variables)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child process received it, too


def main(argv: list[str]) -> int:
    """Set up the environment if needed, run the command, and return the exit code."""
    try:
        request = parse(argv)
        if request is None:
            print(USAGE)
            return 0
        if request.command == "setup" and request.device == "auto":
            request = replace(request, device=find_device())
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises, so that a running pip is ended, too
        ensure(request.device, request.extras)
        if request.command == "run":
            return start(what_to_run(request.args))
        if request.command == "test":
            os.chdir(ROOT)
            return start([str(PYTHON), "-m", "pytest", *request.args])
        if request.command == "launcher":
            say(f"Bitwright was added to your programs ({install_launcher()})")
            return 0
        return start(list(request.args)) if request.command == "exec" else 0
    except SetupError as problem:
        say(f"{problem.message}\n{problem.hint}".strip())
        return problem.status
    except KeyboardInterrupt:
        say("\nStopped. Run the command again to continue.")
        return 130
    except OSError as error:
        say(f"The set-up failed: {error}.\nCheck the free space and the permissions in {ROOT}.")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
