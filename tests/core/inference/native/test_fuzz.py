"""Tests of the kernels with AddressSanitizer and UBSan: random shapes, steps and positions, and invalid sizes."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.inference.native import build

pytestmark = pytest.mark.matrix

FUZZ = Path(__file__).with_name("fuzz.cpp")
FLAGS = ["-std=c++17", "-O0", "-w", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
CASES = 400


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Only what is not freed is of no interest: a process that ends keeps its pool.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=900, check=False, env=environment
    )


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return a compiler with working sanitizers."""
    scratch = tmp_path_factory.mktemp("sanitizers")
    (scratch / "none.cpp").write_text("int main() { return 0; }\n", encoding="utf-8")
    for command in build._compilers():
        made = run([*command, *FLAGS, str(scratch / "none.cpp"), "-o", str(scratch / "none")])
        if made.returncode == 0 and run([str(scratch / "none")]).returncode == 0:
            return command
    pytest.skip("no C++ compiler here has AddressSanitizer and UBSan")


@pytest.fixture(scope="module")
def fuzz(compiler: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the fuzz program."""
    scratch = tmp_path_factory.mktemp("fuzz")
    units = [FUZZ, *sorted(build.SOURCES.glob("*.cpp"))]
    flags = [*FLAGS, *build.machine_flags(), "-I", str(build.SOURCES)]
    objects = [str(scratch / f"{unit.stem}.o") for unit in units]
    commands = [[*compiler, *flags, "-c", str(unit), "-o", made] for unit, made in zip(units, objects, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(run, commands):
            assert done.returncode == 0, done.stderr
    linked = run([*compiler, *FLAGS, *objects, "-o", str(scratch / "fuzz")])
    assert linked.returncode == 0, linked.stderr
    return scratch / "fuzz"


def test_no_case_touches_memory_that_is_not_its_own(fuzz: Path) -> None:
    done = run([str(fuzz), "14", str(CASES)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{CASES} cases")


def test_a_case_is_the_same_alone(fuzz: Path) -> None:
    whole, alone = (run([str(fuzz), "3", *words]).stdout for words in (("2", "6"), ("1", "7")))
    first = run([str(fuzz), "3", "1", "6"]).stdout
    sound = [int(text.split(",")[1].split()[0]) for text in (whole, first, alone)]
    assert sound[0] == sound[1] + sound[2]
