"""Optional libraries that are missing, or break in every way there is while they are imported; and whose they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.inference.backends import ark, ipex
from core.inference.backends.ark import ArkBackend
from core.inference.backends.backend import Backend
from core.inference.backends.ipex import IpexBackend
from core.inference.backends.probing import first_line, probe
from tests.core.inference.backends.stored_layers import CPU

NAME = "a_library_for_this_test"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_probes: None) -> Path:
    """Where a module can be put that is then found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return tmp_path / f"{NAME}.py"


def test_one_that_works(place: Path) -> None:
    place.write_text("VALUE = 3")
    library, problem = probe(NAME, "Some library", "pip install it")
    assert library is not None
    assert (library.VALUE, problem) == (3, None)
    sys.modules.pop(NAME)


@pytest.mark.usefixtures("place")
def test_one_that_is_not_there() -> None:
    library, problem = probe(NAME, "Some library", "pip install it")
    assert (library, problem and (problem.reason, problem.install)) == (
        None,
        ("Some library is not installed.", "pip install it"),
    )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import another_library_that_is_missing", "No module named 'another_library_that_is_missing'"),
        ("raise OSError('libmkl.so: cannot open shared object file')", "libmkl.so: cannot open shared object file"),
        ("raise RuntimeError('needs torch 2.8.*\\nand not 2.13')", "needs torch 2.8.*"),
        ("import sys; sys.exit('torch is too new.')", "torch is too new"),
        ("import os; os.no_such_function()", "module 'os' has no attribute 'no_such_function'"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_one_that_breaks_at_import(place: Path, code: str, says: str) -> None:
    place.write_text(code)
    library, problem = probe(NAME, "Some library", "pip install it")
    assert library is None
    assert problem is not None
    assert problem.reason == f"Some library is installed and does not start: {says}."


def test_what_it_prints_and_warns_of_is_kept_away(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.write_text("import warnings\nprint('hello')\nwarnings.warn('old')")
    assert probe(NAME, "Some library", "")[1] is None
    assert capsys.readouterr().out == ""
    sys.modules.pop(NAME)


@pytest.mark.usefixtures("fresh_probes")
def test_a_parent_that_is_missing_is_no_error() -> None:
    assert probe("no_such_parent.child", "Some library", "")[0] is None


def test_a_long_line_is_cut() -> None:
    assert len(first_line(ValueError("x" * 1000))) == 200


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("backend", "package", "install"),
    [
        (ArkBackend(), "auto-round-lib", ark.INSTALL),
        (IpexBackend(), "Intel's extension for PyTorch", ipex.INSTALL),
    ],
)
def test_a_backend_without_its_library_names_the_command(backend: Backend, package: str, install: str) -> None:
    missing = backend.missing(CPU)
    assert missing is not None
    assert (missing.reason, missing.install) == (f"{package} is not installed.", install)
