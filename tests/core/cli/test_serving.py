"""The sub-commands `serve` and `bench`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core import api
from core.cli import main
from core.events import Event, Listening, Log, Result, Stage, from_line
from core.jobs.process import ROOT
from tests.core.tiny_model import save_model

Capture = pytest.CaptureFixture[str]
VALUES: dict[str, Any] = {
    "rows": [
        {
            "prompt_tokens": 32, "prefill_tokens_per_second": 200.5, "first_token_seconds": 0.16,
            "decode_tokens_per_second": 33.3, "memory_bytes": 2_000_000,
            "bandwidth_share": 0.815,
        }
    ],
    "memory_bandwidth": 28e9, "device_name": "A processor", "backend": "native", "dtype": "float32", "report_path": "",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, own_home: Path) -> Path:
    return tmp_path


@contextmanager
def serving(place: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `bitwright serve` in its own process, which is killed on exit."""
    model = save_model(place / "tiny")
    command = [sys.executable, "-m", "core", "serve", str(model), "--port", "0", "--backend", "dense", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BITWRIGHT_TOKEN": "from-a-variable"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, cwd=place
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="requires POSIX signals")
def test_the_server_answers_until_it_is_interrupted(place: Path) -> None:
    with serving(place, "--json") as process:
        events = map(from_line, lines(process))
        listening = next(event for event in events if isinstance(event, Listening))
        assert listening.token == "from-a-variable"
        with urllib.request.urlopen(f"{listening.url}/health", timeout=20) as reply:
            assert reply.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert any(isinstance(event, Result) and event.values["requests"] == 0 for event in events)


@pytest.mark.slow
def test_serve_prints_the_model_the_url_and_the_token(place: Path) -> None:
    with serving(place, "--token", "told-by-the-user") as process:
        text = lines(process)
        assert next(text).split() == ["model", "tiny"]
        assert next(text).split()[1].startswith("http://127.0.0.1:")
        assert next(text).split() == ["token", "told-by-the-user"]


def test_a_token_with_a_space_is_bad_input(place: Path, capsys: Capture) -> None:
    assert main(["serve", str(save_model(place / "tiny")), "--port", "0", "--token", "x y"]) == 2
    assert "token is not valid" in capsys.readouterr().err


def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace `api.serve` and return the list that collects the tokens passed to it."""
    found: list[str] = []

    def serve(model: str, *, token: str, **options: Any) -> Iterator[Event]:
        found.append(token)
        return iter(())

    monkeypatch.setattr(api, "serve", serve)
    return found


def test_a_token_on_the_command_line_causes_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    found = served(monkeypatch)
    assert main(["serve", "demo", "--token", "told-by-the-user"]) == 0
    assert found == ["told-by-the-user"]
    assert "list of processes" in capsys.readouterr().err


def test_a_token_from_a_variable_a_file_or_stdin_causes_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    found = served(monkeypatch)
    (tmp_path / "token").write_text("from-a-file\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from-the-input\n"))
    monkeypatch.setenv("BITWRIGHT_TOKEN", "from-a-variable")
    for options in ([], ["--token-file", str(tmp_path / "token")], ["--token-file", "-"]):
        assert main(["serve", "demo", *options]) == 0
    assert found == ["from-a-variable", "from-a-file", "from-the-input"]
    assert capsys.readouterr().err == ""


def test_token_and_token_file_together_are_bad_input(capsys: Capture) -> None:
    assert main(["serve", "demo", "--token", "told-by-the-user", "--token-file", "x"]) == 2
    assert "not both" in capsys.readouterr().err


def test_a_port_out_of_range_is_bad_input(place: Path, capsys: Capture) -> None:
    assert main(["serve", str(save_model(place / "tiny")), "--port", "70000"]) == 2
    assert "Port 70000" in capsys.readouterr().err


def test_serve_refuses_a_missing_model(place: Path, capsys: Capture) -> None:
    assert main(["serve", str(place / "nothing"), "--port", "0"]) == 2
    assert "nothing" in capsys.readouterr().err


def fake_bench(events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "bench", lambda model, **options: iter(events))


def test_bench_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fake_bench([Stage("bench"), Result(VALUES)], monkeypatch)
    assert main(["bench", "demo"]) == 0
    out = capsys.readouterr().out
    assert "A processor, native, float32" in out
    assert " ".join(out.splitlines()[2].split()) == "32 200.5 0.16 33.3 2 MB 82 %"


def test_bench_prints_a_dash_for_an_unknown_bandwidth_share(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fake_bench([Result({**VALUES, "rows": [{**VALUES["rows"][0], "bandwidth_share": None}]})], monkeypatch)
    assert main(["bench", "demo"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == "-"


def test_bench_in_json_mode_prints_its_events(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fake_bench([Log("info", "a word"), Result(VALUES)], monkeypatch)
    assert main(["bench", "demo", "--json"]) == 0
    assert [type(from_line(line)) for line in capsys.readouterr().out.splitlines()] == [Log, Result]


def test_lengths_that_are_not_numbers_are_bad_input(capsys: Capture) -> None:
    assert main(["bench", "demo", "--lengths", "a,b"]) == 2
    assert "--lengths" in capsys.readouterr().err


def test_bench_measures_every_prompt_length(place: Path, capsys: Capture) -> None:
    assert main(["bench", str(save_model(place / "tiny")), "--lengths", "4,8", "--backend", "dense", "--json"]) == 0
    values = [
        event.values for event in map(from_line, capsys.readouterr().out.splitlines()) if isinstance(event, Result)
    ]
    assert [row["prompt_tokens"] for row in values[-1]["rows"]] == [4, 8]
