"""Tests of optional libraries that are missing or fail at import, and of the backends that need them."""

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
def module_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_probes: None) -> Path:
    """Return the path of a module that can be imported once it is written."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return tmp_path / f"{NAME}.py"


def test_a_working_library_is_returned(module_path: Path) -> None:
    module_path.write_text("VALUE = 3")
    library, problem = probe(NAME, "Some library", "pip install it")
    assert library is not None
    assert (library.VALUE, problem) == (3, None)
    sys.modules.pop(NAME)


@pytest.mark.usefixtures("module_path")
def test_a_missing_library_is_reported() -> None:
    library, problem = probe(NAME, "Some library", "pip install it")
    assert (library, problem and (problem.reason, problem.install)) == (
        None,
        ("Some library is not installed.", "pip install it"),
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import another_library_that_is_missing", "No module named 'another_library_that_is_missing'"),
        ("raise OSError('libmkl.so: cannot open shared object file')", "libmkl.so: cannot open shared object file"),
        ("raise RuntimeError('needs torch 2.8.*\\nand not 2.13')", "needs torch 2.8.*"),
        ("import sys; sys.exit('torch is too new.')", "torch is too new"),
        ("import os; os.no_such_function()", "module 'os' has no attribute 'no_such_function'"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_a_library_that_fails_at_import_gives_the_reason(module_path: Path, code: str, message: str) -> None:
    module_path.write_text(code)
    library, problem = probe(NAME, "Some library", "pip install it")
    assert library is None
    assert problem is not None
    assert problem.reason == f"Some library is installed but cannot be imported: {message}."


def test_output_and_warnings_at_import_are_suppressed(module_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module_path.write_text("import warnings\nprint('hello')\nwarnings.warn('old')")
    assert probe(NAME, "Some library", "")[1] is None
    assert capsys.readouterr().out == ""
    sys.modules.pop(NAME)


@pytest.mark.usefixtures("fresh_probes")
def test_a_missing_parent_package_is_no_error() -> None:
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
def test_a_backend_without_its_library_gives_the_install_command(backend: Backend, package: str, install: str) -> None:
    missing = backend.missing(CPU)
    assert missing is not None
    assert (missing.reason, missing.install) == (f"{package} is not installed.", install)
