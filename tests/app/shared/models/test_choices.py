"""The models that the chat page offers."""

from __future__ import annotations

from pathlib import Path

from app.shared.models import choices as model_choices
from core.service.messages import OutputModel


def output(folder: Path, name: str = "") -> OutputModel:
    return OutputModel(folder, name, "W4 g128 sym", "owner/big", 1.7e9)


def test_a_finished_run_is_offered_by_the_name_of_its_folder(tmp_path: Path) -> None:
    (found,) = model_choices.from_outputs([output(tmp_path / "big-4bit")])
    assert (found.name, found.label, found.kind) == (str(tmp_path / "big-4bit"), "big-4bit", "run")
    assert "W4 g128 sym" in found.detail
    assert "big" in found.detail


def test_every_format_of_a_run_is_offered(tmp_path: Path) -> None:
    found = model_choices.from_outputs([output(tmp_path / name, name) for name in ("auto_round", "auto_gptq")])
    assert [choice.label for choice in found] == [f"{tmp_path.name} (AutoRound)", f"{tmp_path.name} (GPTQ)"]


def test_an_original_says_what_has_to_be_downloaded() -> None:
    assert "269 MB" in model_choices.original("owner/big", "big", 269_000_000).detail


def test_a_model_of_two_groups_is_offered_once() -> None:
    run, same = model_choices.folder("/models/a"), model_choices.original("/models/a", "a")
    assert model_choices.merged([run], [same]) == [run]
