"""The job bar: displayed values and emitted actions."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QObject
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QLabel, QProgressBar, QPushButton
from pytestqt.qtbot import QtBot

from app.frame.job_bar import JobBar
from app.frame.job_summary import Fact, Facts, Primary
from app.theme import Theme
from tests.app.contrast import contrast
from tests.app.find import find


@pytest.fixture
def bar(qtbot: QtBot, theme: Theme) -> JobBar:
    made = JobBar(theme, 88)
    qtbot.addWidget(made)
    made.resize(1024, made.sizeHint().height())
    made.show()
    return made


def text_of(bar: QObject, name: str) -> str:
    """What a label says."""
    found = find(bar, QLabel, name)
    return found.text()


def test_the_job_stands_in_one_line(bar: JobBar) -> None:
    bar.show_facts(Facts(Fact("SmolLM2"), Fact("269 MB > 116 MB"), Fact("4.28"), Fact("CPU, 2 cores")))
    found = [text_of(bar, name) for name in ("job_model", "job_size", "job_bits", "job_device")]
    assert found == ["SmolLM2", "269 MB > 116 MB", "4.28", "CPU, 2 cores"]


def test_without_a_reason_the_button_says_what_it_does(qtbot: QtBot, bar: JobBar) -> None:
    bar.show_primary(Primary(action="start"))
    with qtbot.waitSignal(bar.triggered) as pressed:
        find(bar, QPushButton, "primary").click()
    assert pressed.args == ["start"]


def test_a_disabled_button_has_a_reason(bar: JobBar) -> None:
    bar.show_primary(Primary(reason="Select a model"))
    button = find(bar, QPushButton, "primary")
    assert (button.isEnabled(), text_of(bar, "job_reason")) == (False, "Select a model")
    assert button.accessibleDescription() == "Select a model"


def test_a_disabled_button_ignores_its_key(qtbot: QtBot, bar: JobBar) -> None:
    bar.show_primary(Primary(reason="Select a model"))
    with qtbot.assertNotEmitted(bar.triggered):
        bar.press_primary()


def test_during_a_run_there_are_progress_and_cancel(qtbot: QtBot, bar: JobBar) -> None:
    bar.show_primary(Primary("Pause", "pause", can_cancel=True, fraction=0.468, remaining="3 to 4 min left"))
    assert text_of(bar, "job_remaining") == "47 %, 3 to 4 min left"
    assert find(bar, QProgressBar).value() == 468
    with qtbot.waitSignal(bar.cancel_asked):
        find(bar, QPushButton, "job_cancel").click()


def test_after_a_run_progress_and_cancel_are_gone(bar: JobBar) -> None:
    bar.show_primary(Primary("Pause", "pause", can_cancel=True, fraction=0.5))
    bar.show_primary(Primary("Chat with model", "chat"))
    assert not find(bar, QProgressBar).isVisible()
    assert not find(bar, QPushButton, "job_cancel").isVisible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colored_button_can_be_read(bar: JobBar, theme: Theme, scheme: str) -> None:
    theme.set_scheme(scheme)
    bar.show_primary(Primary(action="start"))
    ground = ground_of(find(bar, QPushButton, "primary"))
    assert ground == theme.color("accent")
    assert contrast(ground, theme.text_on(ground)) >= 4.5


def ground_of(button: QPushButton) -> QColor:
    """The color that is painted beside the text of a button."""
    return button.grab().toImage().pixelColor(8, button.height() // 2)


@pytest.mark.parametrize(
    "primary",
    [
        Primary(reason="Needs 3.14 GB of disk space, 1.23 GB free"),
        Primary("Resume", "resume", "x", can_cancel=True, fraction=0.5, remaining="pausing after this block"),
    ],
)
def test_a_long_job_fits_a_small_window(bar: JobBar, primary: Primary) -> None:
    bar.show_facts(
        Facts(Fact("a-very-long-model-name-" * 5), Fact("26.9 GB > 11.6 GB"), Fact("4.28"), Fact("CPU, 16 cores"))
    )
    bar.show_primary(primary)
    assert bar.minimumSizeHint().width() <= 1024
