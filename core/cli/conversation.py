"""Talking to a model in a terminal: one answer, or a conversation with commands of its own.

Knows `core.api.chats` and the terminal; nothing of how the model computes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.api import chats
from core.cli.terminal import Interrupts, Terminal, printable
from core.cli.user_input import buffered_keys, message_source, replace_surrogates
from core.errors import BadInput, BitwrightError, OutputProblem
from core.events import Event, Failed, Result, Token
from core.files import expanded, json_bytes
from core.private_files import write_private

if TYPE_CHECKING:
    from core.inference.generation.chat import ChatModel
    from core.inference.generation.settings import Sampling

COMMANDS: Final = {
    "regenerate": "the last question again, with the next seed",
    "clear": "begin a new conversation",
    "system": "TEXT: what the model is told first, from a new conversation on; without TEXT, nothing",
    "save": "FILE: write the conversation as Markdown, or as JSON if FILE ends with .json",
    "help": "this list",
    "bye": "end the talk",
}
HELP: Final = (
    "\n".join(f"/{name:<11} {what}" for name, what in COMMANDS.items())
    + """
Enter sends, Alt+Enter begins a new line, pasted lines are one message, the arrows bring back what was typed.
Ctrl-C stops an answer; twice at an empty line it ends the talk, as Ctrl-D does.
A message that begins with a slash: put a space before it."""
)
_SAVE_SUFFIXES: Final = (".md", ".json", ".txt")
"""Names of files that text which is piped in may write."""
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
_STOP_REASONS = {
    "length": "cut off at the longest answer",
    "context": "cut off where the context is full",
    "stopped": "stopped",
}


def chat(
    terminal: Terminal, model: str, prompt: str | None, options: Mapping[str, Any], *, each_line: bool = False
) -> None:
    """Answer one prompt, or talk until the input ends.

    Args:
        prompt: what to answer; None talks.
        options: of `core.api.chats.chat`.
        each_line: where text is piped in, every line is a question.
    """
    settings = {
        **options,
        "system": replace_surrogates(options["system"]),
        "stop": tuple(map(replace_surrogates, options["stop"])),
    }
    if prompt is None:
        _converse(terminal, model, settings, each_line)
        return
    printer = AnswerPrinter(terminal)
    with terminal.libraries_to_stderr(), Interrupts() as interrupts:
        for event in chats.chat(model, replace_surrogates(prompt), should_stop=interrupts.requested, **settings):
            printer.show(event)


def _converse(terminal: Terminal, model: str, options: Mapping[str, Any], each_line: bool) -> None:
    places = ("device", "backend", "context")
    settings = {name: value for name, value in options.items() if name not in (*places, "system", "thinking")}
    sampling = chats.sampling_of(settings)
    with terminal.libraries_to_stderr(), buffered_keys():
        with Interrupts() as interrupts:
            opened = chats.open_chat(
                model, emit=terminal.event, should_stop=interrupts.requested, **{name: options[name] for name in places}
            )
        conversation = Conversation(terminal, opened, sampling, str(options["system"]), model)
        conversation.variables = chats.thinking_variables(opened, options.get("thinking"))
        next_message = message_source(terminal, COMMANDS, each_line=each_line)
        while not conversation.ended and (line := next_message()) is not None:
            try:
                conversation.handle(line)
            except BitwrightError as error:
                scripted = not (each_line or sys.stdin.isatty() or line.startswith("/"))
                if error.code == "cancelled" or scripted:
                    raise  # a script that asks one question reads the exit code
                if terminal.json:
                    terminal.event(Failed(error.code, error.message, error.hint, "", False))
                terminal.print_error(error.message, error.hint)


class AnswerPrinter:
    """Shows one answer: what is said on stdout, what is thought and the figures on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._thinking = False

    def show(self, event: Event) -> None:
        """Show an event of an answer."""
        terminal = self._terminal
        if isinstance(event, Token):
            thinking = event.kind == "thinking"
            if self._thinking and not thinking:
                terminal.print_info("\n\n")
            self._thinking = thinking
        terminal.event(event)
        if isinstance(event, Result):
            if self._thinking:
                terminal.print_info("\n")
            terminal.line()
            if not terminal.json:
                terminal.print_info(f"{figures_line(event.values)}\n")


def figures_line(values: Mapping[str, Any]) -> str:
    """The figures of an answer for people, in one line."""
    parts = [
        f"{values['tokens']} tokens, {values['tokens_per_second']:.1f} tokens/s",
        f"first after {values['first_token_seconds']:.2g} s",
        f"prompt {values['prompt_tokens']} tokens, {values['cached_tokens']} of them known",
        f"seed {values['seed']}",
    ]
    if values["dropped_messages"]:
        parts.append(f"the oldest {values['dropped_messages']} messages were left out")
    if values["ended_by"] in _STOP_REASONS:
        parts.append(_STOP_REASONS[values["ended_by"]])
    if note := values.get("note"):
        parts.append(note[:1].lower() + note[1:].rstrip("."))
    return f"[{'; '.join(parts)}]"


class Conversation:
    """Questions and answers, and the commands between them."""

    def __init__(self, terminal: Terminal, opened: ChatModel, sampling: Sampling, system: str, model: str) -> None:
        self._terminal, self._opened, self._sampling, self._system = terminal, opened, sampling, system
        self._model = model
        self._attempts = 0
        self._saved: tuple[Path, os.stat_result] | None = None
        self.messages: list[dict[str, str]] = []
        self.variables: dict[str, Any] = {}
        self.ended = False

    def handle(self, line: str) -> None:
        """One message of the user: a question, a command, or nothing.

        Raises:
            BitwrightError: the command or the question cannot be followed; the conversation is as it was.
        """
        if not line.strip():
            return
        command = _COMMAND.fullmatch(line.rstrip())
        if command is None:
            self._attempts = 0
            self._answer([*self.messages, *chats.conversation(line.strip(), "" if self.messages else self._system)])
            return
        name, rest = command[1], (command[2] or "").strip()
        handlers: dict[str, Callable[[str], None]] = {
            "regenerate": self._regenerate,
            "clear": self._clear,
            "system": self._set_system,
            "save": self._save,
            "help": lambda _rest: self._terminal.print_info(f"{HELP}\n"),
            "bye": self._end,
        }
        if name not in handlers:
            raise BadInput(f"There is no command /{name}.", "/help lists them; a space before the slash makes it text.")
        handlers[name](rest)

    def _answer(self, messages: list[dict[str, str]]) -> None:
        from dataclasses import replace

        seed = self._sampling.seed
        sampling = replace(self._sampling, seed=None if seed is None else seed + self._attempts)
        printer = AnswerPrinter(self._terminal)
        with Interrupts() as interrupts:
            text = chats.answer(
                self._opened, messages, sampling, printer.show, interrupts.requested, variables=self.variables
            )
        self.messages = [*messages, {"role": "assistant", "content": text}]

    def _regenerate(self, _rest: str) -> None:
        if not self.messages:
            raise BadInput("There is no question to answer again.", "NextMessage one.")
        self._attempts += 1
        self._answer(self.messages[:-1])

    def _clear(self, _rest: str) -> None:
        self.messages, self._attempts = [], 0

    def _set_system(self, rest: str) -> None:
        self._system = rest
        self._clear("")

    def _end(self, _rest: str) -> None:
        self.ended = True

    def _save(self, rest: str) -> None:
        if not rest or not self.messages:
            raise BadInput("There is nothing to save." if rest else "/save needs the name of a file.", "/help")
        path = expanded(rest)
        try:
            suffix = path.suffix.lower()
            if not sys.stdin.isatty() and suffix not in _SAVE_SUFFIXES:
                # whoever pipes a stranger's text in need not have read it
                reason = (
                    f"Text that is piped in can only save to a new file that ends with {', '.join(_SAVE_SUFFIXES)}."
                )
                raise BadInput(reason, "Use such a name.")
            if suffix == ".json":
                data = json_bytes({"model": self._model, "messages": self.messages})
            else:
                data = markdown(self.messages).encode("utf-8", "replace")
            # its own file, as it was written, may be replaced by the longer conversation
            write_private(path, data, replace=self._saved is not None and _same(self._saved, path))
            self._saved = (path, path.stat())
        except FileExistsError as error:
            raise OutputProblem(f"{path} is there already, and is not replaced.", "Choose another name.") from error
        except (OSError, ValueError) as error:  # also a name with a NUL
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputProblem(f"{rest} cannot be written: {reason}.", "Choose another file.") from error
        self._terminal.print_info(f"written: {printable(str(path))}\n")


def _same(saved: tuple[Path, os.stat_result], path: Path) -> bool:
    """Whether a file is the one that was saved, and unchanged since."""
    try:
        found = path.stat()
    except OSError:
        return False
    before = saved[1]
    return path == saved[0] and all(
        getattr(found, name) == getattr(before, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def markdown(messages: list[dict[str, str]]) -> str:
    """A conversation as Markdown."""
    names = {"system": "System", "user": "You", "assistant": "Model"}
    return "\n".join(
        f"**{names.get(message['role'], message['role'])}**\n\n{message['content']}\n" for message in messages
    )
