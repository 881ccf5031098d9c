"""The button beside an error while loading a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.pages.chat.remedies import RecoveryActions, remedy_for
from core.errors import BitwrightError, ChildDied, DeviceProblem, MissingDependency, ModelNotFound, OutOfMemory

DONE: list[str] = []


def way(name: str) -> Callable[[], object]:
    return lambda: DONE.append(name)


WAYS = RecoveryActions(way("again"), way("cpu"), way("automatic"), way("folder"))


@pytest.mark.parametrize(
    ("error", "device", "backend", "done"),
    [
        (ModelNotFound("gone"), "cpu", "auto", "folder"),
        (OutOfMemory("full"), "cuda:0", "auto", "cpu"),
        (OutOfMemory("full"), "cpu", "auto", "again"),
        (DeviceProblem("broken"), "xpu:0", "auto", "cpu"),
        (MissingDependency("no library"), "cpu", "ark", "automatic"),
        (MissingDependency("no library"), "cpu", "auto", "again"),
        (ChildDied("gone"), "cuda:0", "ark", "again"),
    ],
)
def test_each_error_has_its_remedy(error: BitwrightError, device: str, backend: str, done: str) -> None:
    DONE.clear()
    remedy_for(error, device, backend, WAYS).act()
    assert done == DONE[0]
