"""Input of the sub-command `chat`: a line editor with history at a terminal, or text that is piped in."""

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
"""Name of the file in Bitwright's own folder that holds the input history."""
_MAX_HISTORY_BYTES: Final = 1 << 20
_MAX_HISTORY_ENTRY: Final = 20_000
"""Maximum length of a history entry, in characters. Longer input was probably pasted and is not saved."""
_MAX_INPUT_BYTES: Final = 8 << 20
"""Maximum size of one message, in bytes."""


def message_source(terminal: Terminal, commands: Mapping[str, str], *, each_line: bool) -> NextMessage:
    """Return a function that reads the next message or command, and returns None at the end of the input.

    Args:
        commands: The slash commands with their descriptions.
        each_line: Treat every line of piped input as a message. Otherwise, all lines up to the next command are one.
    """
    screen = next((stream for stream in (sys.stderr, sys.__stdout__) if stream is not None and stream.isatty()), None)
    if sys.stdin.isatty() and screen is not None:
        return _editor(terminal, screen, commands)
    lines = _lines(terminal)
    texts = lines if each_line else _blocks(lines, commands)
    return lambda: next(texts, None)


@contextlib.contextmanager
def buffered_keys() -> Iterator[None]:
    """Buffer keys that are pressed between prompts, without echo, for the next prompt.

    In canonical mode the terminal would assemble them to lines of at most 4,095 bytes, Backspace would delete a byte
    instead of a character, and Ctrl-D would be lost. Ctrl-C still interrupts. The previous mode is restored on exit,
    also after a SIGTERM.
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
    """Return the text of a file, or of stdin for `-`, without trailing line breaks.

    Raises:
        BadInput: It cannot be read, is empty, or exceeds the size limit of a message.
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
            f"{path} cannot be read: {reason}.", "Give the path of a text file, or - to read from stdin."
        ) from error
    name = "The input" if path == "-" else path
    if len(data) > _MAX_INPUT_BYTES:
        raise _too_large(name)
    # `>` of Windows PowerShell 5 writes UTF-16 with a byte order mark
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = (data.decode("utf-16", "replace") if wide else decode_utf8(terminal, data, name)).rstrip("\r\n")
    if not text.strip():
        raise BadInput(f"{name} is empty.", "It must contain text.")
    return text


def decode_utf8(terminal: Terminal, data: bytes, name: str) -> str:
    """Decode UTF-8. Invalid bytes are replaced, with a warning."""
    text = data.decode("utf-8-sig", "replace")
    if "\N{REPLACEMENT CHARACTER}" in text and "\N{REPLACEMENT CHARACTER}".encode() not in data:
        terminal.warn(f"{name} is not valid UTF-8. Invalid bytes were replaced.")
    return text


def _too_large(name: str) -> BadInput:
    return BadInput(f"{name} is too large for a message.", f"The limit is {_MAX_INPUT_BYTES >> 20} MiB.")


def replace_surrogates(text: str) -> str:
    """Replace the bytes in a text from the command line or a terminal that are not valid UTF-8.

    Python represents such bytes as lone surrogates (PEP 383), which tokenizers reject.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if not text.isascii() else text


def _standard_input() -> Any:
    """Return stdin as a binary stream."""
    if hasattr(sys.stdin, "buffer"):
        return sys.stdin.buffer
    import io

    return io.BytesIO(sys.stdin.read().encode("utf-8", "replace"))


def _lines(terminal: Terminal) -> Iterator[str]:
    """Yield the lines of piped input as they arrive.

    Raises:
        BadInput: A line is too large.
    """
    stream = _standard_input()
    for number, line in enumerate(iter(lambda: stream.readline(_MAX_INPUT_BYTES + 1), b"")):
        if len(line) > _MAX_INPUT_BYTES:
            raise _too_large("The input")
        text = decode_utf8(terminal, line, f"Line {number + 1} of the input")
        yield text.rstrip("\r\n")


def _blocks(lines: Iterable[str], commands: Mapping[str, str]) -> Iterator[str]:
    """Yield all lines up to the next command as one text, then the command, and so on.

    Raises:
        BadInput: A text is too large.
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
    """Return a block with a space before a leading slash, so that it is not taken for a command."""
    return f" {block}" if block.startswith("/") else block


def _editor(terminal: Terminal, screen: TextIO, commands: Mapping[str, str]) -> NextMessage:
    """Return a function that prompts at a terminal. Ctrl-C clears the line; at an empty one, twice means the end."""
    session = _session(screen, commands)
    armed = False

    def next_message() -> str | None:
        nonlocal armed
        while True:
            try:
                # without a color, prompt_toolkit draws the trailing space as a cursor movement
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
                terminal.print_info("Press Ctrl-C again or Ctrl-D to exit, or enter /bye.\n")
                continue
            armed = False
            return text

    return next_message


def _session(screen: TextIO, commands: Mapping[str, str]) -> PromptSession[str]:
    """Return the line editor. Enter sends, Alt+Enter starts a new line, pasted lines are one text, Tab completes."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import create_output

    def matching(typed: str) -> list[str]:
        """Return the slash commands that start with the text before the cursor."""
        return [name for name in commands if typed.startswith("/") and f"/{name}".startswith(typed)]

    class Commands(Completer):
        """Completer for the names of slash commands."""

        def get_completions(self, document: Document, complete_event: Any) -> Iterator[Completion]:
            typed = document.text_before_cursor
            for name in matching(typed):
                yield Completion(f"/{name}", -len(typed), display_meta=commands[name])

    def complete(event: Any) -> None:
        """Complete the command if the text before the cursor is a prefix of exactly one."""
        typed = event.current_buffer.document.text_before_cursor
        if len(names := matching(typed)) == 1:
            event.current_buffer.insert_text(f"/{names[0]}"[len(typed) :])

    keys = KeyBindings()
    keys.add("tab")(complete)
    keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    output: Any = None  # prompt_toolkit selects its own output for a dumb terminal
    if os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        output = create_output(stdout=screen)
        if hasattr(output, "enable_cpr"):
            output.enable_cpr = False  # a late cursor position report would be read as input of the next prompt
    return PromptSession(
        history=_history(), completer=Commands(), key_bindings=keys, output=output, multiline=True,
        complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
        prompt_continuation="  ",
    )  # fmt: skip


def _history() -> FileHistory:
    """Return the input history, in a file that only its owner can read; in memory only if it cannot be written."""
    from prompt_toolkit.history import FileHistory

    class History(FileHistory):
        """A file history with private permissions and a limited size."""

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
