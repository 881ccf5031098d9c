"""Which models there are to talk to."""

from __future__ import annotations

import pytest

from app.pages.chat.known_models import KnownModels
from app.shared.context import Context
from app.shared.draft import OpenedModel
from tests.app.pages.chat.parts import PlayedRuns
from tests.app.scripted_session import ScriptedCalls

MADE = {"folder": "/out/new", "format": "", "scheme": "W4", "model": "x/y", "made": 0.0}


@pytest.fixture
def known(surroundings: Context) -> KnownModels:
    return KnownModels(surroundings)


def names(known: KnownModels) -> list[str]:
    return [choice.name for choice in known.choices]


def test_before_the_first_look_there_are_no_runs(known: KnownModels) -> None:
    assert (known.looked, names(known)) == (False, [])


def test_what_runs_made_stands_before_the_original_and_folders(
    known: KnownModels, surroundings: Context, calls: ScriptedCalls, opened: OpenedModel
) -> None:
    calls.outputs = [MADE]
    surroundings.draft.choose(model=opened)
    known.add_folder("/models/a")
    known.look()
    assert names(known) == ["/out/new", opened.name, "/models/a"]


def test_a_folder_is_known_once(known: KnownModels) -> None:
    assert [known.add_folder("/models/a"), known.add_folder("/models/a")] == [True, False]
    assert names(known) == ["/models/a"]


def test_the_end_of_a_run_is_a_reason_to_look(known: KnownModels, runs: PlayedRuns, calls: ScriptedCalls) -> None:
    calls.outputs = [MADE]
    runs.ended.emit(None)
    assert names(known) == ["/out/new"]
