"""The sub-command `convert`: its output as text and as JSON, and the input that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli import main
from core.events import Done, Result, Stage, from_line
from core.schemes import LayerScheme
from tests.core.conversion.sources import make, same_weights

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def quantized(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny, tmp_path_factory.mktemp("models") / "quantized", "auto_gptq", LayerScheme(4, 32))


def test_an_exact_conversion_is_reported_as_exact(quantized: Path, place: Path, capsys: Capture) -> None:
    assert main(["convert", str(quantized), "out", "--format", "auto_round"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(place / "out")
    assert "GPTQ -> auto_round" in out
    assert "exact to the bit" in out
    assert same_weights(quantized, place / "out")


def test_an_inexact_conversion_is_refused_unless_allowed_and_its_error_is_reported(
    quantized: Path, place: Path, capsys: Capture
) -> None:
    arguments = ["convert", str(quantized), "out", "--format", "bf16"]
    assert main(arguments) == 2
    assert "--inexact" in capsys.readouterr().err
    assert list(place.iterdir()) == []
    assert main([*arguments, "--inexact"]) == 0
    out = capsys.readouterr().out
    assert "changed by 0." in out
    assert "worst tensor model." in out


def test_a_conversion_in_json_mode_ends_with_done(quantized: Path, place: Path, capsys: Capture) -> None:
    assert main(["convert", str(quantized), "out", "--format", "gguf", "--json"]) == 0
    events = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(events[0], Stage)
    assert isinstance(events[-1], Done)
    assert events[-1].report["exact"] is True


def test_the_list_shows_the_verdict_of_each_format(quantized: Path, place: Path, capsys: Capture) -> None:
    assert main(["convert", str(quantized), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("quantized: GPTQ, ")
    assert "14 W4 g32 sym" in lines[0]
    rows = {line.split()[0]: line for line in lines[3:] if line and line[0] != " "}
    assert " exactly " in rows["auto_round"]
    assert " with an error " in rows["bf16"]


def test_the_list_in_json_mode_is_one_result_event(tiny: Path, place: Path, capsys: Capture) -> None:
    assert main(["convert", str(tiny), "--list", "--json"]) == 0
    (event,) = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(event, Result)
    assert event.values["source"]["kind"] == "BF16"
    assert {row["verdict"] for row in event.values["rows"]} == {"exact", "inexact", "no"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SRC"], "DST and --format are required"),
        (["SRC", "out"], "DST and --format are required"),
        (["SRC", "--format", "auto_round"], "DST and --format are required"),
        (["SRC", "out", "--format", "ggml"], "Unknown output format"),
        (["SRC", "taken", "--format", "auto_round"], "is not empty"),
        (["SRC", "out", "--format", "auto_awq"], "not quantized"),
        (["./nothing", "out", "--format", "auto_gptq"], "nothing"),
        (["./nothing", "--list"], "nothing"),
    ],
)
def test_bad_input_is_refused(tiny: Path, place: Path, capsys: Capture, arguments: list[str], words: str) -> None:
    (place / "taken").mkdir()
    (place / "taken" / "file").write_text("x")
    before = sorted(place.rglob("*"))
    assert main(["convert", *(str(tiny) if part == "SRC" else part for part in arguments)]) == 2
    out, err = capsys.readouterr()
    problem = err[err.index("error: ") :]
    assert words in problem
    assert out == ""
    assert len(problem.splitlines()) <= 2
    assert sorted(place.rglob("*")) == before
