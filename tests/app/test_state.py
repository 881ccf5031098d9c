"""Stored settings: restart, and invalid values in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QByteArray

from app.state import State, default_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder of ours" / "window.ini"


def test_what_was_set_is_there_at_the_next_start(path: Path) -> None:
    first = State(path)
    first.geometry, first.page, first.scheme = QByteArray(b"\x00\x01geometry"), "layers", "dark"
    first.set_value("chat/temperature", 0.7)
    first.save()
    second = State(path)
    assert (second.geometry, second.page, second.scheme) == (QByteArray(b"\x00\x01geometry"), "layers", "dark")
    assert second.value("chat/temperature", 1.0) == 0.7


def test_at_the_first_start_there_are_defaults(path: Path) -> None:
    state = State(path)
    assert (state.geometry.isEmpty(), state.page, state.scheme, state.recent) == (True, "", "system", [])


def test_the_last_model_comes_first_and_only_once(path: Path) -> None:
    state = State(path)
    for name in ("a/b", "demo", "c/d", "a/b"):
        state.add_recent(name)
    assert state.recent == ["a/b", "c/d", "demo"]


def test_only_so_many_models_are_remembered(path: Path) -> None:
    state = State(path)
    for number in range(30):
        state.add_recent(f"model-{number}")
    assert (len(state.recent), state.recent[0]) == (12, "model-29")


def test_a_model_can_be_forgotten(path: Path) -> None:
    state = State(path)
    state.add_recent("gone")
    state.add_recent("kept")
    state.forget_recent("gone")
    assert state.recent == ["kept"]


@pytest.mark.parametrize(
    ("stored", "default"), [("text", 1.5), (3, "text"), ([1], True), ({"a": 1}, []), (None, 0), (True, 1)]
)
def test_a_value_of_another_kind_counts_as_never_set(path: Path, stored: object, default: object) -> None:
    state = State(path)
    state.set_value("x", stored)
    assert state.value("x", default) == default


def test_a_whole_number_will_do_for_a_float(path: Path) -> None:
    state = State(path)
    state.set_value("x", 2)
    found = state.value("x", 0.5)
    assert (found, type(found)) == (2.0, float)


def test_a_file_full_of_nonsense_is_no_obstacle(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"[window]\npage=1, 2, 3\nscheme={{{\ngeometry=7\n\xff\xfe\x00[models]\nrecent=17")
    state = State(path)
    assert (state.page, state.scheme, state.recent, state.geometry.isEmpty()) == ("", "system", [], True)


def test_an_unknown_scheme_means_the_systems(path: Path) -> None:
    state = State(path)
    state.scheme = "sepia"
    assert state.scheme == "system"


def test_the_file_lies_in_the_home_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "elsewhere"))
    assert default_path() == tmp_path / "elsewhere" / "window.ini"
