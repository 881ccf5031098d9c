"""A sentence about the support of the output by an inference engine."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication

from app.shared.rule_words import counted
from core.formats import engines
from core.formats.engines import EngineIssue

_tr = QCoreApplication.translate


def engine_line(engine: str, marks: Sequence[EngineIssue]) -> tuple[str, str]:
    """Return a sentence and its role (`good`, `warning`, `bad`); both "" for no engine."""
    if not engine:
        return "", ""
    title = engines.title(engine)
    layers = [mark for mark in marks if mark.layer]
    cannot = sum(mark.cannot for mark in layers)
    slow = len(layers) - cannot
    if len(layers) < len(marks):
        return _tr("EngineWords", "{} cannot load this output.").format(title), "bad"
    if not layers:
        return _tr("EngineWords", "{} supports all layers.").format(title), "good"
    if not cannot:
        return _tr("EngineWords", "{0} runs {1} slowly.").format(title, counted(slow)), "warning"
    text = _tr("EngineWords", "{0} cannot load {1}").format(title, counted(cannot))
    if slow:
        text = _tr("EngineWords", "{0} and runs {1} slowly").format(text, counted(slow))
    return f"{text}.", "bad"
