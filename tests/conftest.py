"""Configuration of all tests: no network, no files outside temporary folders, no deadlines of hypothesis."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

_SCRATCH = tempfile.mkdtemp(prefix="bitwright-tests-")
# Set before anything imports the libraries that read them, and inherited by child processes.
os.environ.update(
    BITWRIGHT_HOME=os.path.join(_SCRATCH, "home"),
    # One for all processes of a test run, since compiling kernels takes seconds; workers inherit the variable.
    XDG_CACHE_HOME=os.environ.setdefault("BITWRIGHT_TEST_CACHE", os.path.join(_SCRATCH, "cache")),
    HF_HOME=os.path.join(_SCRATCH, "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
)

if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_KERNELS = Path(os.environ["XDG_CACHE_HOME"]) / "bitwright" / "native"


def _with_kernels(home: Path) -> Path:
    """Make an empty home that leaves the compiled kernels to the cache, which all tests share.

    Where links are followed, that is by the link; elsewhere a link in their place sends them to the cache.
    """
    _KERNELS.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.mkdir(parents=True)
    with contextlib.suppress(OSError):  # links are not for everybody on Windows: it compiles its own
        (home / "native").symlink_to(_KERNELS, target_is_directory=True)
    return home


_with_kernels(Path(_SCRATCH) / "home")

settings.register_profile("bitwright", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("bitwright")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with the demo model first: a run of it takes minutes, in which other processes have other tests."""
    items.sort(key=lambda item: item.get_closest_marker("demo") is None)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Disable pytest-qt if a system library of Qt is missing, because it would end every run.

    tests/app/conftest.py then skips the tests of the window.
    """
    try:
        import PySide6.QtWidgets  # noqa: F401 - only whether it can be loaded
    except ImportError:
        pluginmanager.unregister(name="pytest-qt")


_network = {"allowed": False}


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:
    """Fail a test that connects to another machine, with any library (audit hook)."""
    if event != "socket.connect" or _network["allowed"]:
        return
    address = args[1]
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a test without the marker `net` connects to {address[0]}")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _network_only_where_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    _network["allowed"] = request.node.get_closest_marker("net") is not None
    yield
    _network["allowed"] = False


TakeHome = Callable[[Path, pytest.MonkeyPatch], Path]


@pytest.fixture(scope="session")
def take_home() -> TakeHome:
    """Return a function that sets the data folder, with only the compiled kernels in it."""

    def take(home: Path, patch: pytest.MonkeyPatch) -> Path:
        patch.setenv("BITWRIGHT_HOME", str(_with_kernels(home)))
        return home

    return take


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_home: TakeHome) -> Path:
    """A home of the test's own, as `take_home` makes it."""
    return take_home(tmp_path / "home", monkeypatch)


def pytest_unconfigure() -> None:
    """Remove the files of the tests in the temporary home and caches."""
    shutil.rmtree(_SCRATCH, ignore_errors=True)
