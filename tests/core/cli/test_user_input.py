"""Input of messages: typed and pasted at a terminal, and piped in."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli.terminal import Terminal
from core.cli.user_input import HISTORY, decode_utf8, message_source, read_text, replace_surrogates
from core.errors import BadInput
from core.jobs.process import ROOT

Capture = pytest.CaptureFixture[str]
COMMANDS = {"save": "write", "help": "this list", "bye": "end"}
PROGRAM = f"""
import json
from core.cli.user_input import buffered_keys, message_source
from core.cli.terminal import Terminal
terminal = Terminal()
with terminal.libraries_to_stderr(), buffered_keys():
    next_message = message_source(terminal, {COMMANDS!r}, each_line=False)
    while (text := next_message()) is not None:
        terminal.line(f"<{{json.dumps([len(text), text[:60]])}}>")
terminal.line("<end>")
"""


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes, *, each_line: bool = False) -> list[str]:
    """Return the messages in piped `data` that are not blank."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    next_message = message_source(Terminal(), COMMANDS, each_line=each_line)
    return [text for text in iter(next_message, None) if text and text.strip()]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n\nthree", ["one\ntwo\n\nthree"]),
        (b"one\r\ntwo\r\n", ["one\ntwo"]),
        (b"hi\n/save x.md\nhi again\nand more\n", ["hi", "/save x.md", "hi again\nand more"]),
        (b"/etc is a folder\n/saved is not\n", [" /etc is a folder\n/saved is not"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        (b"/help\n/bye\n", ["/help", "/bye"]),
        (b"", []),
    ],
)
def test_piped_text_is_one_message_up_to_the_next_command(
    monkeypatch: pytest.MonkeyPatch, data: bytes, expected: list[str]
) -> None:
    assert piped(monkeypatch, data) == expected


def test_each_line_makes_every_line_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piped(monkeypatch, b"one\ntwo\n\n/fly\n", each_line=True) == ["one", "two", "/fly"]


def test_invalid_utf8_is_replaced_with_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert piped(monkeypatch, b"caf\xe9 noir") == ["caf\N{REPLACEMENT CHARACTER} noir"]
    assert "is not valid UTF-8" in capsys.readouterr().err


def test_a_replacement_character_in_the_text_causes_no_warning(capsys: Capture) -> None:
    assert decode_utf8(Terminal(), "a\N{REPLACEMENT CHARACTER}".encode(), "It") == "a\N{REPLACEMENT CHARACTER}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("text", "expected"), [("caf\udce9", "caf\N{REPLACEMENT CHARACTER}"), ("né", "né")])
def test_lone_surrogates_in_arguments_are_replaced(text: str, expected: str) -> None:
    assert replace_surrogates(text) == expected


def test_read_text_removes_trailing_line_breaks_only(tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_bytes(b"one\n/save two\n\n")
    assert read_text(Terminal(), str(tmp_path / "question.txt")) == "one\n/save two"


@pytest.mark.parametrize(("data", "words"), [(b" \n", "is empty"), (b"a" * ((8 << 20) + 1), "too large")])
def test_blank_and_too_large_files_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "question.txt").write_bytes(data)
    with pytest.raises(BadInput, match=words):
        read_text(Terminal(), str(tmp_path / "question.txt"))


@pytest.mark.parametrize("path", ["nothing.txt", ".", "a\0b", "~no-such-user/x"])
def test_an_unreadable_file_is_bad_input(path: str) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_text(Terminal(), path)


class Person:
    """A simulated user at a pseudo-terminal that runs `PROGRAM`."""

    def __init__(self, home: Path, term: str) -> None:
        import pty

        self._screen, inner = pty.openpty()
        environment = {**os.environ, "BITWRIGHT_HOME": str(home), "TERM": term, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=inner, stdout=inner, stderr=inner, env=environment, close_fds=True,
            start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.seen = b""

    def look(self, seconds: float) -> bool:
        """Read the next output of the program; return whether there may be more."""
        try:
            if select.select([self._screen], [], [], seconds)[0]:
                self.seen += os.read(self._screen, 65536)
        except OSError:
            return False
        return True

    def until(self, text: bytes, count: int = 1) -> None:
        """Read until the output contains a text `count` times."""
        end = time.monotonic() + 60
        while self.seen.count(text) < count and time.monotonic() < end and self.look(0.5):
            continue
        assert self.seen.count(text) >= count, self.seen[-600:]

    def type(self, data: bytes) -> None:
        """Send keys once the program is at a prompt, with the terminal in raw mode."""
        import termios

        end = time.monotonic() + 60
        # During an answer keys are buffered in non-canonical mode as well, but Ctrl-C is a signal then.
        cooked = termios.ICANON | termios.ISIG
        while termios.tcgetattr(self._screen)[3] & cooked and time.monotonic() < end and self.look(0.05):
            continue
        while data:
            data = data[os.write(self._screen, data) :]

    def asked(self) -> list[tuple[int, str]]:
        """Return the length and the first characters of each message so far."""
        found = [part.partition(b"]>")[0] for part in self.seen.split(b"<[")[1:]]
        return [tuple(json.loads(b"[" + part + b"]")) for part in found]

    def end(self) -> int:
        """Wait for the end of the program and return its exit code."""
        return self._process.wait(20)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._screen)


@pytest.fixture
def person(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Person]:
    found = Person(tmp_path, getattr(request, "param", "xterm-256color"))
    yield found
    found.close()


@pytest.mark.skipif(os.name == "nt", reason="requires a pseudo-terminal")
def test_the_editor_supports_editing_pasting_completion_and_history(person: Person, tmp_path: Path) -> None:
    keys = [
        b"ac\x1b[Db\x1b[C\r", "n 能".encode() + b"\x7fm\r", b"\x1b[A\x1b[A\r", b"x" * 6000 + b"\r",
        b"\x1b[200~first\nsecond\nthird\x1b[201~\r", b"one\x1b\rtwo\r", b"/he\t\r", b"gone\x03kept\r",
    ]  # fmt: skip
    for number, sent in enumerate(keys):
        person.until(b"\x1b[?2004h", number + 1)
        person.type(sent)
        person.until(b"]>", number + 1)
    assert person.asked() == [
        (3, "abc"), (3, "n m"), (3, "abc"), (6000, "x" * 60), (18, "first\nsecond\nthird"), (7, "one\ntwo"),
        (5, "/help"), (4, "kept"),
    ]  # fmt: skip
    person.type(b"\x03")
    person.until(b"Press Ctrl-C again")
    person.type(b"\x03")
    person.until(b"<end>")
    assert person.end() == 0
    history = tmp_path / HISTORY
    assert history.stat().st_mode & 0o077 == 0
    assert "+second" in history.read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="requires a pseudo-terminal")
@pytest.mark.parametrize("person", ["dumb"], indirect=True)
def test_a_dumb_terminal_is_sufficient(person: Person) -> None:
    person.until(b"> ")
    person.type("n 能".encode() + b"\x7fm\r")
    person.until(b"]>")
    person.type(b"\x04")
    person.until(b"<end>")
    assert person.asked() == [(3, "n m")]
    assert person.end() == 0


@pytest.mark.skipif(os.name == "nt", reason="requires a pseudo-terminal")
def test_keys_that_are_pressed_before_the_prompt_are_buffered(person: Person) -> None:
    person.until(b"> ")
    person.type("one\rtwo 能".encode() + b"\x7f!\r\x04")
    person.until(b"<end>")
    assert person.asked() == [(3, "one"), (5, "two !")]
    assert person.end() == 0


@pytest.mark.skipif(os.name == "nt", reason="requires a pseudo-terminal")
def test_sigterm_restores_the_mode_of_the_terminal(person: Person) -> None:
    import termios

    person.until(b"> ")
    person.type(b"half a line")
    person.until(b"half a line")
    person._process.terminate()
    assert person.end() == 130
    assert termios.tcgetattr(person._screen)[3] & (termios.ICANON | termios.ECHO) == termios.ICANON | termios.ECHO


@pytest.mark.skipif(os.name == "nt", reason="requires a pseudo-terminal")
def test_a_history_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    person = Person(tmp_path / "home", "xterm")
    try:
        for number, sent in enumerate([b"one\r", b"\x1b[A\r"]):
            person.until(b"\x1b[?2004h", number + 1)
            person.type(sent)
            person.until(b"]>", number + 1)
        assert person.asked() == [(3, "one"), (3, "one")]
    finally:
        person.close()
