"""Fixtures of the tests of the window: Qt without a display, and a real context for pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ["QT_QPA_PLATFORM"] = "offscreen"  # before Qt starts
os.environ.pop("QT_SCALE_FACTOR", None)

try:
    import PySide6.QtWidgets  # noqa: F401 - only whether it can be loaded
except ImportError as error:
    QT_PROBLEM = f"Qt cannot be loaded here: {error}"
else:
    QT_PROBLEM = ""

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication
    from pytestqt.qtbot import QtBot

    from app.shared.context import Context, Remedy
    from app.shared.models.opened import OpenedModel
    from app.theme import Theme
    from core.errors import BitwrightError
    from tests.app.recorded_calls import RecordedCalls
    from tests.app.steered_runs import SteeredRuns

Reports = list[tuple["BitwrightError", "Remedy | None"]]


class _Skipped(pytest.Module):
    """A test module that is not imported, as it would fail to."""

    def collect(self) -> Any:
        pytest.skip(QT_PROBLEM, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip test modules that cannot be imported."""
    return _Skipped.from_parent(parent, path=module_path) if QT_PROBLEM else None


@pytest.fixture(scope="session")
def qapp(qapp: QApplication) -> QApplication:
    """The application object of pytest-qt, with our style, in a font that is the same on every machine."""
    from app.application import apply_style
    from tests.app import faces

    faces.bring_standard()
    faces.wear(qapp, faces.FACES[0])
    return apply_style(qapp)


@pytest.fixture(autouse=True)
def _own_home(own_home: Path) -> None:
    """Give each test an empty data folder: jobs, settings, presets."""


@pytest.fixture
def theme(qapp: object) -> Iterator[Theme]:
    """Return a theme with the light scheme."""
    from app.theme import Theme

    made = Theme()
    made.set_scheme("light")
    yield made
    made.set_scheme("light")


@pytest.fixture
def reports() -> Reports:
    """The errors that the page under test reported."""
    return []


@pytest.fixture
def said() -> list[str]:
    """The sentences that the page under test put into the status line."""
    return []


@pytest.fixture
def visited() -> list[str]:
    """The pages that the page under test wanted to be shown."""
    return []


@pytest.fixture
def context(
    qtbot: QtBot, theme: Theme, tmp_path: Path, reports: Reports, said: list[str], visited: list[str]
) -> Iterator[Context]:
    """Return a real context for pages; child processes are ended after the test."""
    from app.shared.calls.calls import Calls
    from app.shared.context import Context
    from app.shared.draft import Draft
    from app.shared.run.runs import Runs
    from app.state import State

    def report(error: BitwrightError, remedy: Remedy | None = None) -> None:
        reports.append((error, remedy))

    calls, runs = Calls(), Runs()
    yield Context(
        draft=Draft(),
        calls=calls,
        runs=runs,
        state=State(tmp_path / "window.ini"),
        theme=theme,
        report=report,
        show_message=said.append,
        go=visited.append,
    )
    calls.close()
    runs.close()


@pytest.fixture
def calls() -> RecordedCalls:
    """A stand-in for the calls of a page, which a test answers."""
    from tests.app.recorded_calls import RecordedCalls

    return RecordedCalls()


@pytest.fixture
def runs(qapp: QApplication) -> SteeredRuns:
    """A stand-in for the run of the window, which a test controls."""
    from tests.app.steered_runs import SteeredRuns

    return SteeredRuns()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that is quantized in a second."""
    from tests.core.tiny_model import save_model

    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def opened(tiny_model: Path) -> OpenedModel:
    """Return that model as the model page opens it."""
    from app.shared.models.opened import OpenedModel
    from core.model.folder import read_config
    from core.model.headers import read_folder
    from core.model.tree import build_tree

    tree = build_tree(read_config(tiny_model), read_folder(tiny_model))
    return OpenedModel(str(tiny_model), "tiny", "folder", "", str(tiny_model), tree)
