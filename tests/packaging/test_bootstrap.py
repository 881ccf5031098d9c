"""Tests of the set-up in copies of the packaging folder, in paths with spaces and Unicode, without a network."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import bootstrap
import torch_builds
import venv_setup

LOCK = "packaging/locks/python3.11.txt"
ROOT = Path(__file__).resolve().parent.parent.parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and locks; Windows has its own branch")


def copy_of_repository(folder: Path) -> Path:
    """Copy the files that the set-up reads to `folder`, without a `.venv`."""
    shutil.copytree(ROOT / "packaging", folder / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def call(house: Path, *args: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `bootstrap.py ARGS` in a copy, without pip's settings and without an index."""
    command = [sys.executable, str(house / "packaging" / "bootstrap.py"), *args]
    return subprocess.run(
        command,
        cwd=cwd,
        env=offline(**variables),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def offline(**variables: str) -> dict[str, str]:
    """Return the environment variables without those of pip, with no index except in `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **variables}


def inside(house: Path, code: str) -> str:
    """Run `code` with the copy's modules and return its output."""
    command = [sys.executable, "-c", f"import venv_setup\n{code}"]
    environment = {**offline(), "PYTHONPATH": str(house / "packaging")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def finish(house: Path, device: str = "cpu", extras: str = "") -> None:
    """Create a `.venv` that the set-up considers complete, but that contains only Python."""
    if not (house / ".venv").exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(house / ".venv")], check=True)
    inside(
        house, f"venv_setup.MARKER.write_text('{{}}'); venv_setup.write_stamp({device!r}, frozenset({extras.split()}))"
    )


def is_ready(house: Path, device: str = "auto", extras: str = "") -> bool:
    return inside(house, f"print(venv_setup.ready({device!r}, frozenset({extras.split()})))") == "True"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy in a folder with a non-ASCII name, with a complete environment."""
    folder = copy_of_repository(tmp_path / "my häuschen 家")
    finish(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a real environment with pip, created by the set-up, not complete."""
    folder = copy_of_repository(tmp_path_factory.mktemp("built") / "a b")
    inside(folder, "venv_setup.make_environment()")
    return folder


# --- The command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "command", "args", "device", "extras"),
    [
        (["run"], "run", (), "auto", set()),
        (["--device", "cuda", "run"], "run", (), "cuda", set()),
        (["run", "--device=xpu", "quick"], "run", ("quick",), "xpu", set()),
        (["test", "-k", "grid", "--device", "cpu"], "test", ("-k", "grid", "--device", "cpu"), "auto", {"test"}),
        (["exec", "--extra", "llama", "bitwright", "--help"], "exec", ("bitwright", "--help"), "auto", {"llama"}),
        (["exec", "--", "--device"], "exec", ("--device",), "auto", set()),
        (["setup", "--extra", "a", "--extra", "b"], "setup", (), "auto", {"a", "b"}),
    ],
)
def test_the_command_line_is_parsed(
    argv: list[str], command: str, args: tuple[str, ...], device: str, extras: set[str]
) -> None:
    assert bootstrap.parse(argv) == bootstrap.Request(command, args, device, frozenset(extras))


@pytest.mark.parametrize(
    "argv", [[], ["walk"], ["exec"], ["run", "--device"], ["--device", "tpu", "run"], ["setup", "x"]]
)
def test_an_invalid_command_line_gives_two_lines(argv: list[str]) -> None:
    with pytest.raises(venv_setup.SetupError) as raised:
        bootstrap.parse(argv)
    assert (raised.value.status, len(f"{raised.value.message}\n{raised.value.hint}".splitlines())) == (2, 2)


def test_help_is_printed_to_stdout_without_a_set_up(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path / "h")
    done = call(folder, "--help")
    assert (done.returncode, "exec CMD" in done.stdout, (folder / ".venv").exists()) == (0, True, False)


def test_an_unknown_extra_is_refused_before_the_set_up(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path / "h")
    done = call(folder, "setup", "--device", "cpu", "--extra", "nonsense")
    assert (done.returncode, "nonsense" in done.stderr, (folder / ".venv").exists()) == (2, True, False)


@pytest.mark.parametrize(
    ("version", "fine"), [((3, 8), False), ((3, 10, 14), False), ((3, 11, 0), True), ((3, 14), True)]
)
def test_an_old_python_is_refused(version: tuple[int, ...], fine: bool) -> None:
    assert (bootstrap.python_problem(version) == "") is fine


def test_an_old_python_can_parse_the_version_check() -> None:
    source = (ROOT / "packaging" / "bootstrap.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    first = [node.lineno for node in tree.body if isinstance(node, ast.ImportFrom)]
    check = next(node.lineno for node in tree.body if isinstance(node, ast.If))
    assert min(first) > check


# --- Which torch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "device", "driver", "found"),
    [
        ("0x8086", "0x56a0", "i915", True),  # Arc A770
        ("0x8086", "0xe20b", "xe", True),  # Arc B580
        ("0x8086", "0x7d55", "i915", True),  # Core Ultra, Meteor Lake
        ("0x8086", "0x9a49", "i915", False),  # a laptop's Iris Xe
        ("0x10de", "0x56a0", "nouveau", False),
    ],
)
def test_intel_gpus_supported_by_torch_are_recognized(
    tmp_path: Path, vendor: str, device: str, driver: str, found: bool
) -> None:
    card = tmp_path / "card0" / "device"
    card.mkdir(parents=True)
    (card / "vendor").write_text(f"{vendor}\n")
    (card / "device").write_text(f"{device}\n")
    (tmp_path / driver).mkdir()
    (card / "driver").symlink_to(tmp_path / driver)
    assert torch_builds.has_intel_gpu(tmp_path) is found


@POSIX
@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1)'", True),
        ("echo 'No devices were found'", False),
        ("exit 9", False),
    ],
)
def test_an_nvidia_driver_counts_only_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: bool
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert torch_builds.has_nvidia() is found


def test_a_cpu_tries_the_default_build_last_and_warns() -> None:
    attempts = torch_builds.torch_attempts("cpu", "2.13.0", "linux")
    assert [(item.requirement, bool(item.index), bool(item.warning)) for item in attempts] == [
        ("torch==2.13.0+cpu", False, False),
        ("torch==2.13.0+cpu", True, False),
        ("torch==2.13.0", False, True),
    ]


@pytest.mark.parametrize(("device", "build"), [("cuda", "cu130"), ("xpu", "xpu")])
def test_a_gpu_gets_its_build_from_pytorchs_index(device: str, build: str) -> None:
    attempt = torch_builds.torch_attempts(device, "2.13.0", "linux")[1]
    assert attempt == torch_builds.Attempt(f"torch==2.13.0+{build}", f"https://download.pytorch.org/whl/{build}")


def test_no_attempt_for_an_intel_gpu_ends_in_a_cuda_build() -> None:
    assert all(item.requirement.endswith("+xpu") for item in torch_builds.torch_attempts("xpu", "2.13.0", "linux"))


# --- The pins -------------------------------------------------------------------------------------------------


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {name.lower().replace("_", "-"): version for name, version in venv_setup.pins().items()}
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]
    wrong = [
        str(item)
        for item in wanted
        if not item.specifier.contains(pinned.get(item.name.lower().replace("_", "-"), "0"), prereleases=True)
    ]
    assert wrong == []


# --- A finished environment -----------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("code", [0, 7])
def test_exec_passes_the_exit_code_on(house: Path, tmp_path: Path, code: int) -> None:
    assert call(house, "exec", "sh", "-c", f"exit {code}", cwd=tmp_path).returncode == code


def test_exec_runs_the_environments_python_and_prints_nothing_of_its_own(house: Path, tmp_path: Path) -> None:
    done = call(house, "exec", "python", "-c", "import sys; print(sys.prefix)", cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{house / '.venv'}\n", "")


def test_exec_keeps_the_current_folder(house: Path, tmp_path: Path) -> None:
    done = call(house, "exec", "python", "-c", "import os; print(os.getcwd())", cwd=tmp_path)
    assert done.stdout.strip() == str(tmp_path)


def test_a_missing_program_is_reported(house: Path) -> None:
    done = call(house, "exec", "no-such-program-anywhere")
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)


def test_a_finished_environment_is_ready(house: Path) -> None:
    assert is_ready(house)


@pytest.mark.parametrize("name", ["pyproject.toml", "packaging/constraints.txt", "packaging/bootstrap.py", LOCK])
def test_a_change_of_its_inputs_makes_it_stale(house: Path, name: str) -> None:
    with (house / name).open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert not is_ready(house)


def test_a_moved_environment_is_stale(house: Path) -> None:
    assert not is_ready(house.rename(house.with_name("elsewhere")))


def test_another_device_makes_it_stale_and_auto_keeps_the_current_one(house: Path) -> None:
    finish(house, device="xpu")
    assert [is_ready(house, device) for device in ("auto", "xpu", "cpu")] == [True, True, False]


def test_extras_accumulate(house: Path) -> None:
    finish(house, extras="test arklib")
    assert [is_ready(house, extras=extras) for extras in ("", "test", "llama")] == [True, True, False]


def test_an_incomplete_stamp_is_ignored(house: Path) -> None:
    stamp = house / ".venv" / "bitwright-stamp.json"
    stamp.write_text(stamp.read_text()[:20])
    assert not is_ready(house)


def test_a_missing_python_makes_it_stale(house: Path) -> None:
    (house / ".venv" / "bin" / "python").unlink()
    assert not is_ready(house)


# --- Set-ups that go wrong ------------------------------------------------------------------------------------


def test_an_environment_of_another_origin_is_not_changed(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path / "h")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "theirs").write_text("precious")
    done = call(folder, "setup", "--device", "cpu")
    assert (done.returncode, (folder / ".venv" / "theirs").read_text()) == (1, "precious")
    assert "was not created by Bitwright" in done.stderr


def test_an_environment_that_works_is_healthy(built: Path) -> None:
    assert inside(built, "print(venv_setup.healthy())") == "True"


def test_an_environment_with_an_interrupted_pip_is_created_again(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path / "h")
    (folder / ".venv").mkdir()
    for name, text in (("bitwright.json", json.dumps({"root": str(folder)})), ("bitwright-busy", ""), ("rubbish", "")):
        (folder / ".venv" / name).write_text(text)
    inside(folder, "venv_setup.make_environment()")
    assert not (folder / ".venv" / "rubbish").exists()
    assert inside(folder, "print(venv_setup.healthy())") == "True"


def test_an_environment_made_for_another_folder_is_not_healthy(house: Path) -> None:
    (house / ".venv" / "bitwright.json").write_text(json.dumps({"root": "/somewhere/else"}))
    assert inside(house, "print(venv_setup.healthy())") == "False"


def test_a_failing_pip_is_reported_in_a_few_lines_and_leaves_no_stamp(built: Path) -> None:
    done = call(built, "exec", "--device", "cpu", "true")
    problem = done.stderr[done.stderr.index("pip could not install") :]
    assert (done.returncode, len(problem.splitlines()) <= 6, "Traceback" in done.stderr) == (1, True, False)
    assert not (built / ".venv" / "bitwright-stamp.json").exists()


def test_without_an_index_every_build_of_torch_is_tried_with_a_warning_for_the_large_one(built: Path) -> None:
    code = (
        "try: venv_setup.install_torch('cpu', '2.13.0')\n"
        "except venv_setup.SetupError as problem: print(problem.message.count('No matching distribution'))"
    )
    command = [sys.executable, "-c", f"import venv_setup\n{code}"]
    environment = {**offline(), "PYTHONPATH": str(built / "packaging")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr.count("torch==2.13.0"), "several GB" in done.stderr) == ("1\n", 3, True)


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    """A package index on this machine that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@POSIX
@pytest.mark.parametrize(("signals", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_set_up_ends_pip_too_and_is_known_to_be_incomplete(
    built: Path, silent_index: socket.socket, signals: signal.Signals, status: int
) -> None:
    variables = {"PIP_INDEX_URL": f"http://127.0.0.1:{silent_index.getsockname()[1]}/simple", "PIP_NO_INDEX": "0"}
    command = [sys.executable, str(built / "packaging" / "bootstrap.py"), "--device", "cpu", "exec", "true"]
    child = subprocess.Popen(
        command,
        env=offline(**variables),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what it puts into the background with Ctrl-C ignored, and these tests may run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    caller, _ = silent_index.accept()
    with caller:
        caller.recv(1)  # pip is asking
        child.send_signal(signals)
        _, stderr = child.communicate(timeout=60)
        caller.settimeout(60)
        while caller.recv(4096):
            pass  # until pip's end of the connection is closed: pip is gone
    assert (child.returncode, "Traceback" in stderr) == (status, False)
    busy = built / ".venv" / "bitwright-busy"
    assert busy.exists()
    busy.unlink()


@POSIX
def test_a_second_set_up_waits_for_the_first(house: Path) -> None:
    code = "import sys, venv_setup\nwith venv_setup.lock():\n print('in', flush=True)\n sys.stdin.read()"
    environment = {**offline(), "PYTHONPATH": str(house / "packaging")}

    def enter() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)

    first = enter()
    assert first.stdout is not None
    first.stdout.readline()  # it is in
    second = enter()
    assert second.stderr is not None
    waiting = second.stderr.readline()
    first.communicate("")
    entered, _ = second.communicate("")
    assert ("waiting" in waiting, entered) == (True, "in\n")
