"""Compiling the kernels: which compiler, what is kept, what is said where it does not work."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from core.errors import MissingDependency
from core.inference.native import build, library

TINY = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One small source in place of ours, and a home of its own."""
    if not list(build._compilers()):
        pytest.skip("no C++ compiler")
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(TINY % 41, encoding="utf-8")
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BITWRIGHT_NATIVE_FLAGS", "-O0")
    return folder


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that notes each call that compiles, and is otherwise the real one."""
    real, log = next(build._compilers()), tmp_path / "calls"
    log.write_text("", encoding="utf-8")
    script = program(
        tmp_path / "noting", f'case "$*" in *--version*) ;; *) echo "$*" >> {log} ;; esac\nexec {" ".join(real)} "$@"'
    )
    monkeypatch.setenv("CXX", str(script))
    return log


def calls(log: Path) -> int:
    """Libraries that were linked."""
    return log.read_text(encoding="utf-8").count("-shared")


def test_a_library_is_compiled_once(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = counted(tmp_path, monkeypatch)
    assert build.library() == build.library()
    assert calls(log) == 1


def test_other_sources_are_another_library(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, first = counted(tmp_path, monkeypatch), build.library()
    (sources / "tiny.cpp").write_text(TINY % 42, encoding="utf-8")
    assert build.library() != first
    assert calls(log) == 2


def test_other_headers_and_flags_are_another_library(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library()
    (sources / "tiny.h").write_text("// nothing\n", encoding="utf-8")
    second = build.library()
    monkeypatch.setenv("BITWRIGHT_NATIVE_FLAGS", "-O1")
    assert len({first, second, build.library()}) == 3


def test_another_processor_compiles_its_own(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library()
    monkeypatch.setattr(build, "_processor", lambda: "another one")
    assert build.library() != first


@pytest.mark.parametrize("data", [b"", b"no library at all"])
def test_a_broken_library_is_compiled_again(sources: Path, data: bytes) -> None:
    path = build.library()
    whole = path.read_bytes()
    path.write_bytes(data or whole[:1000])
    assert build.library().read_bytes() == whole


def test_a_library_without_its_seal_is_compiled_again(sources: Path) -> None:
    path = build.library()
    build._seal(path).unlink()
    path.write_bytes(b"of nobody knows whom")
    assert build.library().read_bytes() != b"of nobody knows whom"


def test_several_at_once(sources: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(build.library())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert build._is_whole(paths[0])


def test_nothing_is_left_behind(sources: Path) -> None:
    path = build.library()
    assert sorted(path.parent.iterdir()) == sorted([path, build._seal(path)])


def test_the_next_compiler_has_its_turn(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(program(tmp_path / "broken", 'echo "error: not today" >&2; exit 1')))
    assert build.library().exists()


def test_no_compiler_is_a_sentence_and_a_command(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_compilers", lambda: iter(()))
    with pytest.raises(MissingDependency, match="no C\\+\\+ compiler") as caught:
        build.library()
    assert build.INSTALL in caught.value.hint


def test_what_the_compiler_complains_of_is_told(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources / "tiny.cpp").write_text("int answer() { return nothing; }\n", encoding="utf-8")
    with pytest.raises(MissingDependency, match="nothing"):
        build.library()


def test_a_compiler_that_cannot_be_started_is_a_sentence(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_compilers", lambda: iter([[str(tmp_path / "absent")]]))
    with pytest.raises(MissingDependency, match="absent"):
        build.library()


def test_a_library_that_is_none_is_a_sentence(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that says yes to everything and writes something else."""
    script = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo no > "$2"; shift; done; exit 0'
    compiler = program(tmp_path / "liar", script)
    monkeypatch.setattr(build, "_compilers", lambda: iter([[str(compiler)]]))
    with pytest.raises(MissingDependency, match="cannot be loaded"):
        library.load()
