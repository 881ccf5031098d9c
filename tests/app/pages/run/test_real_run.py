"""A real run of a tiny model, from the button to the report, with the real child."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.pages.run.page import RunPage
from app.shared.context import Context
from app.shared.run import notification
from core.spec import from_options
from tests.app.find import find
from tests.app.replayed_runs import window_for

WAIT = 240_000


@pytest.mark.slow
def test_a_real_run_ends_in_its_report(
    qtbot: QtBot, context: Context, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "show", lambda _title, _text: False)
    page = RunPage(context)
    window = window_for(page, 880, 580)
    window.show()
    spec = from_options(
        tiny_model, tmp_path / "out", recipe="quick", iters=5, samples=4, seqlen=64, group_size=32, device="cpu"
    )
    with qtbot.waitSignal(context.runs.ended, timeout=WAIT) as blocker:
        context.runs.start(spec)
    assert blocker.args is not None
    assert blocker.args[0].state == "done"
    assert page.report.isVisible()
    assert page.report.folder == str(tmp_path / "out")
    assert find(page, QLabel, "verdict_figures").text().startswith("Perplexity ")
    record = context.runs.record
    assert record is not None
    assert len(record.curves) == record.total == len(record.blocks)
    window.close()


@pytest.mark.slow
def test_a_real_run_can_be_cancelled_while_it_imports_its_libraries(
    qtbot: QtBot, context: Context, tiny_model: Path, tmp_path: Path
) -> None:
    context.runs.start(from_options(tiny_model, tmp_path / "out", recipe="quick", device="cpu"))
    qtbot.waitUntil(lambda: context.runs.record is not None and context.runs.record.job is not None, timeout=WAIT)
    with qtbot.waitSignal(context.runs.ended, timeout=WAIT) as blocker:
        context.runs.cancel()
    assert blocker.args is not None
    assert blocker.args[0].state == "cancelled"
    assert not (tmp_path / "out").exists()
