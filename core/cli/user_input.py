"""Where questions come from: a person at a terminal, with line editing and history, or text that is piped in.

Knows prompt_toolkit and standard input; nothing of models or of what is asked.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TextIO

from core.cli.terminal import Terminal
from core.errors import BadInput
from core.files import expanded
from core.home import home
from core.private_files import append_private

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

NextMessage = Callable[[], str | None]
HISTORY: Final = "chat-history"
"""File in Bitwright's own folder that keeps what was typed."""
_MAX_HISTORY_BYTES: Final = 1 << 20
_MAX_HISTORY_ENTRY: Final = 20_000
"""Letters of a question from which it is not kept: it was pasted."""
_MAX_INPUT_BYTES: Final = 8 << 20
"""Bytes of text that are read as one question."""


def message_source(terminal: Terminal, commands: Mapping[str, str], *, each_line: bool) -> NextMessage:
    """Return what gives the next question or command, and None at the end.

    Args:
        commands: the slash commands, with what each does.
        each_line: where text is piped in, every line is a question; else all of it is one, up to the next command.
    """
    screen = next((stream for stream in (sys.stderr, sys.__stdout__) if stream is not None and stream.isatty()), None)
    if sys.stdin.isatty() and screen is not None:
        return _editor(terminal, screen, commands)
    lines = _lines(terminal)
    texts = lines if each_line else _blocks(lines, commands)
    return lambda: next(texts, None)


@contextlib.contextmanager
def buffered_keys() -> Iterator[None]:
    """Keep keys that are pressed while no question is asked for as they are, unseen, for the next question.

    In its usual mode a terminal makes a line of them: 4,095 bytes at most, Backspace takes a byte, Ctrl-D gets lost.
    Ctrl-C stays what it is. After a SIGTERM, too, the terminal is what it was.
    """
    if os.name != "posix" or not sys.stdin.isatty():
        yield
        return
    import termios

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(130)

    before = termios.tcgetattr(sys.stdin)
    changed = list(before)
    changed[0] &= ~termios.ICRNL
    changed[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    handler = signal.signal(signal.SIGTERM, end)
    try:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        signal.signal(signal.SIGTERM, handler)


def read_text(terminal: Terminal, path: str) -> str:
    """Return the text of a file, or of standard input for `-`, without the line ends behind it.

    Raises:
        BadInput: it cannot be read, is empty, or too large to be a question.
    """
    try:
        if path == "-":
            data = _standard_input().read(_MAX_INPUT_BYTES + 1)
        else:
            with expanded(path).open("rb") as stream:
                data = stream.read(_MAX_INPUT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"{path} cannot be read: {reason}.", "Name a file with the question, or - for the input."
        ) from error
    name = "The input" if path == "-" else path
    if len(data) > _MAX_INPUT_BYTES:
        raise _too_large(name)
    # UTF-16 with its mark is what `>` of Windows PowerShell 5 writes
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = (data.decode("utf-16", "replace") if wide else decode_utf8(terminal, data, name)).rstrip("\r\n")
    if not text.strip():
        raise BadInput(f"{name} is empty.", "Write a question.")
    return text


def decode_utf8(terminal: Terminal, data: bytes, name: str) -> str:
    """Return bytes as text; what is not UTF-8 is replaced, which is told."""
    text = data.decode("utf-8-sig", "replace")
    if "\N{REPLACEMENT CHARACTER}" in text and "\N{REPLACEMENT CHARACTER}".encode() not in data:
        terminal.warn(f"{name} is not UTF-8 everywhere; what is not was replaced.")
    return text


def _too_large(name: str) -> BadInput:
    return BadInput(f"{name} is too large for a question.", f"The limit is {_MAX_INPUT_BYTES >> 20} MiB.")


def replace_surrogates(text: str) -> str:
    """Return text from the command line or a terminal in which bytes that are not UTF-8 are replaced.

    Python keeps such bytes as halves of characters (PEP 383), which no tokenizer takes.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if not text.isascii() else text


def _standard_input() -> Any:
    """Standard input as bytes."""
    if hasattr(sys.stdin, "buffer"):
        return sys.stdin.buffer
    import io

    return io.BytesIO(sys.stdin.read().encode("utf-8", "replace"))


def _lines(terminal: Terminal) -> Iterator[str]:
    """The lines that are piped in, as they come.

    Raises:
        BadInput: a line is too large.
    """
    stream = _standard_input()
    for number, line in enumerate(iter(lambda: stream.readline(_MAX_INPUT_BYTES + 1), b"")):
        if len(line) > _MAX_INPUT_BYTES:
            raise _too_large("The input")
        text = decode_utf8(terminal, line, f"Line {number + 1} of the input")
        yield text.rstrip("\r\n")


def _blocks(lines: Iterable[str], commands: Mapping[str, str]) -> Iterator[str]:
    """All lines up to the next command as one text, and the commands.

    Raises:
        BadInput: a text is too large.
    """
    command = re.compile(rf"/({'|'.join(commands)})(\s.*)?")
    block: list[str] = []
    size = 0
    for line in lines:
        if command.fullmatch(line):
            yield _as_text("\n".join(block))
            yield line
            block, size = [], 0
        else:
            block.append(line)
            size += len(line) + 1
            if size > _MAX_INPUT_BYTES:
                raise _too_large("The input")
    yield _as_text("\n".join(block))


def _as_text(block: str) -> str:
    """A block as a question, whatever it begins with."""
    return f" {block}" if block.startswith("/") else block


def _editor(terminal: Terminal, screen: TextIO, commands: Mapping[str, str]) -> NextMessage:
    """What asks a person: Ctrl-C empties the line, twice at an empty one it ends the talk, as Ctrl-D does."""
    session = _session(screen, commands)
    armed = False

    def next_message() -> str | None:
        nonlocal armed
        while True:
            try:
                # without a colour of its own the space is drawn as a movement of the cursor
                text = replace_surrogates(session.prompt([("fg:ansicyan", "> ")]))
            except EOFError:
                return None
            except KeyboardInterrupt:
                if session.default_buffer.text:
                    armed = False
                    continue
                if armed:
                    return None
                armed = True
                terminal.print_info("Ctrl-C again, Ctrl-D or /bye ends the talk.\n")
                continue
            armed = False
            return text

    return next_message


def _session(screen: TextIO, commands: Mapping[str, str]) -> PromptSession[str]:
    """The line editor: Enter sends, Alt+Enter begins a new line, pasted lines are one text, Tab completes commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import create_output

    def matching(typed: str) -> list[str]:
        """The slash commands that begin with what is typed."""
        return [name for name in commands if typed.startswith("/") and f"/{name}".startswith(typed)]

    class Commands(Completer):
        """Completes the name of a slash command."""

        def get_completions(self, document: Document, complete_event: Any) -> Iterator[Completion]:
            typed = document.text_before_cursor
            for name in matching(typed):
                yield Completion(f"/{name}", -len(typed), display_meta=commands[name])

    def complete(event: Any) -> None:
        """Complete what can be one command only."""
        typed = event.current_buffer.document.text_before_cursor
        if len(names := matching(typed)) == 1:
            event.current_buffer.insert_text(f"/{names[0]}"[len(typed) :])

    keys = KeyBindings()
    keys.add("tab")(complete)
    keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    output: Any = None  # prompt_toolkit chooses for itself where a terminal can do next to nothing
    if os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        output = create_output(stdout=screen)
        if hasattr(output, "enable_cpr"):
            output.enable_cpr = False  # a terminal that answers late would type into the next question
    return PromptSession(
        history=_history(), completer=Commands(), key_bindings=keys, output=output, multiline=True,
        complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
        prompt_continuation="  ",
    )  # fmt: skip


def _history() -> FileHistory:
    """What was typed before, in a file that only its owner may read; where it cannot be written, for this talk only."""
    from prompt_toolkit.history import FileHistory

    class History(FileHistory):
        """Keeps what was typed."""

        def load_history_strings(self) -> Iterable[str]:
            with contextlib.suppress(OSError):
                return super().load_history_strings()
            return ()

        def store_string(self, string: str) -> None:
            if len(string) > _MAX_HISTORY_ENTRY:
                return
            lines = "".join(f"+{line}\n" for line in string.split("\n"))
            with contextlib.suppress(OSError):
                append_private(Path(str(self.filename)), f"\n#\n{lines}", _MAX_HISTORY_BYTES)

    return History(str(home() / HISTORY))
