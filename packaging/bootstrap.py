#!/usr/bin/env python3
"""Makes the environment that Bitwright runs in, and runs things inside it.

Needs a Python of 3.11 or later and nothing else. Knows the commands and how to start them; `venv_setup` knows
how to make the environment, `torch_builds` which torch belongs in it. Knows nothing of models.
"""

# No `from __future__ import annotations` and no syntax newer than Python 3.6 above the version check:
# an older Python has to get as far as the sentence that says what is wrong.
import os
import sys

OLDEST = (3, 11)


def python_problem(version: "tuple[int, ...]") -> str:
    """One sentence if Bitwright cannot run on Python `version` (a tuple), else ""."""
    if tuple(version[:2]) >= OLDEST:
        return ""
    return (
        "Bitwright needs Python 3.11 or later; this is Python %d.%d.\n"
        "Install a newer one and call it by name, for example: python3.12 packaging/bootstrap.py run"
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

  run  [MODEL]     set up if needed, then open the window with MODEL (or the demo model) picked; where there is no
                   display, or with --terminal [FOLDER], quantize the demo model in the terminal instead
  test [ARGS]      set up if needed (test extra too), then run the tests; ARGS go to pytest
  exec CMD [ARGS]  set up if needed, then run CMD inside the environment
  setup            set up only, and look again at which device this machine has
  launcher         set up if needed, then put Bitwright among the programs of this desktop (Linux)

  --device  which build of torch to install: cpu, cuda, xpu or auto (the one for this machine)
  --extra   an optional part of Bitwright to install too (see packaging/dependencies.md); may be repeated

Options may also stand before the command. The environment is the folder .venv of the repository; a second
call finds it ready. Deleting .venv starts afresh."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    command: str
    args: tuple[str, ...] = ()
    device: str = "auto"
    extras: frozenset[str] = frozenset()


def parse(argv: list[str]) -> Request | None:
    """The request on the command line; None means that help is wanted.

    Raises:
        SetupError: with status 2, for a command or an option that does not exist.
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
        raise SetupError("Say what to run.", SHORT_USAGE, 2)
    if command in ("setup", "launcher") and args:
        raise SetupError(f"{command} does not take {args[0]!r}.", SHORT_USAGE, 2)
    return Request(command, args, device, extras | {"test"} if command == "test" else extras)


def what_to_run(args: "tuple[str, ...]") -> "list[str]":
    """The command behind `run`: the window where one can be opened, else the demo in the terminal."""
    # -P: a folder called `core` or `app` where the user stands is not ours.
    python = [str(PYTHON), "-P", "-m"]
    if "--terminal" in args:
        return [*python, "core.cli.demo", *(arg for arg in args if arg != "--terminal")]
    # It says on stderr why not; in a process of its own, since the libraries are those of the environment's Python.
    if subprocess.run([*python, "app.qt_libraries"], env=environment(), check=False).returncode:
        say("The demo runs in the terminal instead.")
        return [*python, "core.cli.demo", *args]
    return [*python, "app", *(args or ("demo",))]


def start(command: list[str]) -> int:
    """Run `command` in the environment; on POSIX this process becomes it, so signals and exit codes are its own."""
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
            continue  # the child got it too, and decides


def main(argv: list[str]) -> int:
    """Set up what is missing, then start what is asked for; the exit code."""
    try:
        request = parse(argv)
        if request is None:
            print(USAGE)
            return 0
        if request.command == "setup" and request.device == "auto":
            request = replace(request, device=find_device())
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that a running pip is ended too
        ensure(request.device, request.extras)
        if request.command == "run":
            return start(what_to_run(request.args))
        if request.command == "test":
            os.chdir(ROOT)
            return start([str(PYTHON), "-m", "pytest", *request.args])
        if request.command == "launcher":
            say(f"Bitwright is among your programs now ({install_launcher()})")
            return 0
        return start(list(request.args)) if request.command == "exec" else 0
    except SetupError as problem:
        say(f"{problem.message}\n{problem.hint}".strip())
        return problem.status
    except KeyboardInterrupt:
        say("\nStopped. Calling this again goes on from here.")
        return 130
    except OSError as error:
        say(f"The set-up could not go on: {error}.\nCheck the room and the rights in {ROOT}.")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
