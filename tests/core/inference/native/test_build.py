"""Tests of the compilation of the kernels: choice of compiler, cached libraries, errors."""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import MissingDependency
from core.inference.native import build, library

TINY = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the sources by a small one, with an empty data folder."""
    if not list(build._compilers()):
        pytest.skip("no C++ compiler")
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(TINY % 41, encoding="utf-8")
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BITWRIGHT_NATIVE_FLAGS", "-O0")
    return folder


def program(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a compiler that records each compilation and calls the real one."""
    real, log = next(build._compilers()), tmp_path / "calls"
    log.write_text("", encoding="utf-8")
    script = program(
        tmp_path / "noting", f'case "$*" in *--version*) ;; *) echo "$*" >> {log} ;; esac\nexec {" ".join(real)} "$@"'
    )
    monkeypatch.setenv("CXX", str(script))
    return log


def calls(log: Path) -> int:
    """Return the linked libraries."""
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
    assert build.is_whole(paths[0])


def test_nothing_is_left_behind(sources: Path) -> None:
    path = build.library()
    assert sorted(path.parent.iterdir()) == sorted([path, build._seal(path)])


# --- what somebody else may have put there ---

rights = pytest.mark.skipif(os.name == "nt", reason="folders have no such rights here")


@rights
def test_the_library_is_its_owners_alone_whatever_new_files_may_usually_be(sources: Path) -> None:
    before = os.umask(0)
    try:
        path = build.library()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path, build._seal(path))]
    assert modes == [0o700, 0o600, 0o600]


def foreign(path: Path) -> None:
    """Replace the library, with a seal that is valid except for the name."""
    data = path.read_bytes() + b"and more"
    path.write_bytes(data)
    build._seal(path).write_text(hashlib.sha256(data).hexdigest(), encoding="ascii")


def writable(path: Path) -> None:
    path.chmod(0o666)


def writable_seal(path: Path) -> None:
    build._seal(path).chmod(0o620)


def linked(path: Path) -> None:
    os.link(path, path.with_name("another name"))


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def renamed(path: Path) -> None:
    """Replace the library by one of other sources with a valid seal of its own."""
    for each in (path, build._seal(path)):
        other = each.with_stem("kernels-another")
        each.rename(other)
        other.rename(each)
    data = path.read_bytes()
    build._seal(path).write_text(build._sealed(path.with_stem("kernels-another"), data), encoding="ascii")


@rights
@pytest.mark.parametrize("change", [foreign, writable, writable_seal, linked, a_link, renamed])
def test_what_another_user_could_have_put_there_is_compiled_again(
    sources: Path, change: Callable[[Path], None]
) -> None:
    path = build.library()
    change(path)
    assert not build.is_whole(path)
    assert build.is_whole(build.library())


@rights
def test_a_folder_that_others_could_write_to_is_closed_to_them(sources: Path) -> None:
    place = build.library().parent
    place.chmod(0o777)
    assert stat.S_IMODE(build.library().parent.stat().st_mode) == 0o700


@rights
def test_a_folder_that_is_a_link_is_not_used_but_the_users_cache(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "native").symlink_to(tmp_path / "theirs")
    path = build.library()
    assert path.is_relative_to(tmp_path / "cache")
    assert build.is_whole(path)
    assert not list((tmp_path / "theirs").iterdir())


@rights
def test_folders_of_another_user_are_a_sentence(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.library()
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    assert not build.is_there()
    with pytest.raises(MissingDependency, match=r"[Nn]o private folder for compiled kernels .*belongs to another user"):
        library.load()


@pytest.mark.skipif(sys.platform != "linux", reason="files are not loaded by their descriptor here")
def test_what_was_checked_is_what_is_loaded(sources: Path, tmp_path: Path) -> None:
    """The path is changed between check and load."""
    path = build.library()
    whole = path.read_bytes()
    with build.loadable(path) as name:
        path.parent.rename(tmp_path / "home" / "aside")
        path.parent.mkdir()
        path.write_bytes(b"something else")
        assert Path(name).read_bytes() == whole
        loaded = ctypes.CDLL(name)
        assert loaded.answer() == 41
        _ctypes.dlclose(loaded._handle)  # the loader would give it again to whoever opens a file of this number


def test_the_next_compiler_has_its_turn(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(program(tmp_path / "broken", 'echo "error: not today" >&2; exit 1')))
    assert build.library().exists()


def test_no_compiler_is_a_sentence_and_a_command(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_compilers", lambda: iter(()))
    with pytest.raises(MissingDependency, match="No C\\+\\+ compiler") as caught:
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
    """The compiler succeeds but writes an invalid file."""
    script = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo no > "$2"; shift; done; exit 0'
    compiler = program(tmp_path / "liar", script)
    monkeypatch.setattr(build, "_compilers", lambda: iter([[str(compiler)]]))
    with pytest.raises(MissingDependency, match="cannot be loaded"):
        library.load()
