"""Which models the chat page offers."""

from __future__ import annotations

from pathlib import Path

from app.models import chat_choices
from core.events import Done
from core.jobs.spec import JobSpec
from core.jobs.store import JobInfo

ID = "20260102-030405-000006-ab12"


def job(output: Path, state: str = "done", formats: tuple[str, ...] = ("auto_round",)) -> JobInfo:
    spec = JobSpec("owner/big", str(output), formats=formats)
    return JobInfo(ID, output.parent, state, spec, Done(str(output), 1.0, {}))  # type: ignore[arg-type]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_finished_run_is_offered_by_the_name_of_its_folder(tmp_path: Path) -> None:
    (found,) = chat_choices.from_jobs([job(made(tmp_path / "big-4bit"))])
    assert (found.name, found.label, found.kind) == (str(tmp_path / "big-4bit"), "big-4bit", "run")
    assert "W4 g128 sym" in found.detail
    assert "big" in found.detail


def test_a_run_that_failed_is_not_offered(tmp_path: Path) -> None:
    assert chat_choices.from_jobs([job(made(tmp_path / "out"), "failed")]) == []


def test_a_run_whose_output_is_gone_is_not_offered(tmp_path: Path) -> None:
    assert chat_choices.from_jobs([job(tmp_path / "gone")]) == []


def test_a_folder_made_twice_is_offered_once(tmp_path: Path) -> None:
    output = made(tmp_path / "out")
    assert len(chat_choices.from_jobs([job(output), job(output)])) == 1


def test_every_format_of_a_run_is_offered(tmp_path: Path) -> None:
    for name in ("auto_round", "auto_gptq"):
        made(tmp_path / "out" / name)
    found = chat_choices.from_jobs([job(tmp_path / "out", formats=("auto_round", "auto_gptq"))])
    assert [choice.label for choice in found] == ["out (auto_round)", "out (auto_gptq)"]


def test_an_original_says_what_has_to_be_downloaded() -> None:
    assert "269 MB" in chat_choices.original("owner/big", "big", 269_000_000).detail


def test_a_model_of_two_groups_is_offered_once() -> None:
    run, same = chat_choices.folder("/models/a"), chat_choices.original("/models/a", "a")
    assert chat_choices.merged([run], [same]) == [run]
