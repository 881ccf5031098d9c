"""The page with the real service: conversion of a model to another data type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.pages.convert.page import ConvertPage
from app.shared.context import Context
from app.shared.run import notification
from tests.app.pages.convert.parts import choose

WAIT = 120_000


@pytest.mark.slow
def test_a_model_is_looked_at_and_converted(
    qtbot: QtBot, context: Context, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "show", lambda _title, _text: False)
    page = ConvertPage(context)
    qtbot.addWidget(page)
    page.show()
    page.open_model(str(tiny_model))
    qtbot.waitUntil(lambda: page.conversion.state == "ready", timeout=WAIT)
    choose(page, "f32")
    page.choice.output.chosen.emit(str(tmp_path / "long"))
    page.convert()
    qtbot.waitUntil(lambda: page.conversion.state == "done", timeout=WAIT)
    report = json.loads((tmp_path / "long" / "bitwright.json").read_text())
    assert (report["format"], report["exact"]) == ("f32", True)
    assert page.outcome._headline.text() == "Exact conversion"
