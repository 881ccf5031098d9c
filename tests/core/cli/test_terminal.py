"""Terminal output: text in every language, no control characters, and progress without a progress bar."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from core.cli import commands, main
from core.cli.terminal import PROGRESS_INTERVAL, ProgressLines, RunView, Terminal, one_line, printable
from core.events import BlockDone, BlockStarted, LayerStarted, Progress, Stage, Token

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "text",
    [
        "Prix\u00a0: 12\u202f000", "\u0645\u06cc\u200c\u0634\u0648\u062f", "\u6771\u3000\u4eac",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "a\u200e\u200f\u061cb", "soft\u00adhyphen",
        "\ue0b0", "\u2028", "a\tb\nc", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\ufeff", "\u2060",
    ],
)  # fmt: skip
def test_text_in_every_language_is_printed_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("char", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))])
def test_control_characters_other_than_tab_and_line_feed_are_replaced(char: str) -> None:
    assert (char in printable(f"a{char}b")) == (char in "\n\t")


@pytest.mark.parametrize("char", ["\u202a", "\u202e", "\u2066", "\u2069", "\ud83d"])
def test_bidirectional_overrides_and_lone_surrogates_are_replaced(char: str) -> None:
    assert printable(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_carriage_returns_are_removed() -> None:
    assert printable("a\r\nb\r\n") == "a\nb\n"


def test_one_line_joins_lines_and_replaces_control_characters() -> None:
    assert one_line("a\x1b[2Jb\n  c") == "a\N{REPLACEMENT CHARACTER}[2Jb c"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_the_encoding_lacks_are_printed_as_question_marks(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert main(["--version"]) == 0
    terminal = Terminal()
    terminal.event(Token("\u4eac"))
    terminal.table(("\u6771",), [("\U0001f600",)])
    sys.stdout.flush()
    assert raw.getvalue().count(b"?") == 3


def test_progress_lines_are_printed_at_intervals() -> None:
    lines: list[str] = []
    time = 0.0
    progress = ProgressLines(lines.append, lambda: time)
    progress.begin("analyse")
    for number in range(10):
        time = number * PROGRESS_INTERVAL / 4
        progress.update(Progress(number / 10, 180, 300))
    assert lines == ["analyse: 40 %, 3 to 5 min left", "analyse: 80 %, 3 to 5 min left"]


def test_progress_without_an_estimate_has_no_remaining_time() -> None:
    lines: list[str] = []
    time = 0.0
    progress = ProgressLines(lines.append, lambda: time)
    time = PROGRESS_INTERVAL
    progress.update(Progress(0.5, -1, -1))
    assert lines == ["working: 50 %"]


def test_a_run_without_a_progress_bar_prints_progress_lines(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("core.cli.terminal.PROGRESS_INTERVAL", 0.0)
    terminal = Terminal()
    view = RunView(terminal, None)
    view.show(Stage("analyse"))
    view.show(Progress(0.12, 60, 60))
    terminal.event(Stage("load"))
    terminal.event(Progress(0.5, -1, -1))
    assert capsys.readouterr().err == "analyse ...\nanalyse: 12 %, about 60 s left\nload ...\nload: 50 %\n"


def test_a_finished_block_is_one_line_with_the_mean_errors_of_its_start(capsys: Capture) -> None:
    view = RunView(Terminal(), None)
    view.show(BlockStarted(0, 2, "layers.0", ("q", "k")))
    view.show(LayerStarted(0, "q", 0.04, 0.01))
    view.show(LayerStarted(0, "k", 0.08, 0.03))
    view.show(BlockDone(0, 2, 0.5, 0.25, 0, 3.0))
    view.show(BlockStarted(1, 2, "layers.1", ("q", "k")))
    view.show(BlockDone(1, 2, 0.5, 0.25, 0, 3.0))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "block 1/2: output error of its layers 6 % -> 2 %, loss 0.5 -> 0.25, 3.0 s"
    assert second == "block 2/2: loss 0.5 -> 0.25, 3.0 s"


class Full(io.StringIO):
    """A stream to a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_under_stdout_is_reported_after_the_command_has_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    done: list[bool] = []

    def work(terminal: Terminal) -> None:
        terminal.event(Stage("tune"))
        done.append(True)

    assert commands._run(True, work) == 1
    assert done
    assert "No space left on device" in capsys.readouterr().err
    sys.stdout.close()  # the stand-in


def test_a_closed_stdout_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--version"]) == 0
    sys.stdout.close()  # the stand-in
