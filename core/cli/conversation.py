"""The sub-command `chat`: one answer to a prompt, or an interactive conversation with slash commands."""

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
    from core.inference.generation.message import Message
    from core.inference.generation.settings import Sampling

COMMANDS: Final = {
    "regenerate": "answer the last message again, with the next seed",
    "clear": "start a new conversation",
    "image": "PATH: add a picture to the next message, for a vision-language model; without PATH, remove it again",
    "system": "TEXT: start a new conversation with the system prompt TEXT; without TEXT, remove the system prompt",
    "save": "FILE: save the conversation as Markdown, or as JSON if FILE ends with .json",
    "help": "show this list",
    "bye": "exit",
}
HELP: Final = (
    "\n".join(f"/{name:<11} {what}" for name, what in COMMANDS.items())
    + """
Enter sends the message, Alt+Enter starts a new line. Pasted lines are one message. The arrow keys recall earlier input.
Ctrl-C stops an answer. At an empty prompt, Ctrl-D or Ctrl-C twice exits.
To send a message that starts with a slash, put a space before it."""
)
_SAVE_SUFFIXES: Final = (".md", ".json", ".txt")
"""File name suffixes that `/save` accepts in piped input."""
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
_STOP_REASONS = {
    "length": "reached the maximum number of tokens",
    "context": "the context is full",
    "stopped": "stopped",
}


def chat(
    terminal: Terminal, model: str, prompt: str | None, options: Mapping[str, Any], *, each_line: bool = False
) -> None:
    """Answer one prompt, or run a conversation until the input ends.

    Args:
        prompt: The prompt to answer; None starts a conversation.
        options: Keyword arguments of `core.api.chats.chat`.
        each_line: Treat every line of piped input as a message of its own.
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
    others = (*places, "system", "thinking", "images")
    settings = {name: value for name, value in options.items() if name not in others}
    pictures = tuple(map(chats.picture_source, options["images"]))
    sampling = chats.sampling_of(settings)
    with terminal.libraries_to_stderr(), buffered_keys():
        with Interrupts() as interrupts:
            opened = chats.open_chat(
                model, emit=terminal.event, should_stop=interrupts.requested, **{name: options[name] for name in places}
            )
        conversation = Conversation(terminal, opened, sampling, str(options["system"]), model)
        conversation.variables = chats.thinking_variables(opened, options.get("thinking"))
        for picture in pictures:
            conversation.add_picture(picture)
        next_message = message_source(terminal, COMMANDS, each_line=each_line)
        while not conversation.ended and (line := next_message()) is not None:
            try:
                conversation.handle(line)
            except BitwrightError as error:
                scripted = not (each_line or sys.stdin.isatty() or line.startswith("/"))
                if error.code == "cancelled" or scripted:
                    raise  # a script that sends one message relies on the exit code
                if terminal.json:
                    terminal.event(Failed(error.code, error.message, error.hint, "", False))
                terminal.print_error(error.message, error.hint)


class AnswerPrinter:
    """Prints one answer: its text to stdout, the reasoning and the statistics to stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._thinking = False

    def show(self, event: Event) -> None:
        """Print an event of an answer."""
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
    """Return the statistics of an answer in one line."""
    speed = f", {values['tokens_per_second']:.1f} tokens/s" if values["tokens_per_second"] else ""
    parts = [
        f"{values['tokens']} {'token' if values['tokens'] == 1 else 'tokens'}{speed}",
        f"first token after {values['first_token_seconds']:.2g} s",
        f"prompt {values['prompt_tokens']} tokens, {values['cached_tokens']} cached",
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
    """A conversation with a model, and its slash commands.

    Attributes:
        messages: The messages so far.
        pictures: Pictures of the next message.
        variables: Variables for the chat template.
        ended: The user has entered /bye.
    """

    def __init__(self, terminal: Terminal, opened: ChatModel, sampling: Sampling, system: str, model: str) -> None:
        self._terminal, self._opened, self._sampling, self._system = terminal, opened, sampling, system
        self._model = model
        self._attempts = 0
        self._saved: tuple[Path, os.stat_result] | None = None
        self.messages: list[Message] = []
        self.pictures: list[str] = []
        self.variables: dict[str, Any] = {}
        self.ended = False

    def handle(self, line: str) -> None:
        """Process one input: a message, a slash command, or blank text, which is ignored.

        Raises:
            BitwrightError: The command or the message failed; the conversation is unchanged.
        """
        if not line.strip():
            return
        command = _COMMAND.fullmatch(line.rstrip())
        if command is None:
            self._attempts = 0
            system = "" if self.messages else self._system
            self._answer([*self.messages, *chats.conversation(line.strip(), system, self.pictures)])
            self.pictures = []
            return
        name, rest = command[1], (command[2] or "").strip()
        handlers: dict[str, Callable[[str], None]] = {
            "regenerate": self._regenerate,
            "clear": self._clear,
            "image": self._image,
            "system": self._set_system,
            "save": self._save,
            "help": lambda _rest: self._terminal.print_info(f"{HELP}\n"),
            "bye": self._end,
        }
        if name not in handlers:
            raise BadInput(
                f"There is no command /{name}.",
                "/help lists the commands. To send a message that starts with a slash, put a space before it.",
            )
        handlers[name](rest)

    def add_picture(self, source: str) -> None:
        """Add a picture to the next message.

        Args:
            source: As `chats.picture_source` returns it.

        Raises:
            BadInput: The model does not read pictures.
        """
        if "pictures" not in self._opened.reads:
            raise BadInput(
                self._opened.pictures_note or "This model reads text only.", "Choose a vision-language model."
            )
        self.pictures.append(source)

    def _image(self, rest: str) -> None:
        if not rest:
            self.pictures = []
            return
        quoted = len(rest) > 1 and rest[0] == rest[-1] and rest[0] in "\"'"  # a file dropped on a terminal
        self.add_picture(chats.picture_source(rest[1:-1] if quoted else rest))
        number = len(self.pictures)
        self._terminal.print_info(f"{number} {'picture' if number == 1 else 'pictures'} in the next message\n")

    def _answer(self, messages: list[Message]) -> None:
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
            raise BadInput("There is no message to answer again.", "Send a message first.")
        self._attempts += 1
        self._answer(self.messages[:-1])

    def _clear(self, _rest: str) -> None:
        self.messages, self.pictures, self._attempts = [], [], 0

    def _set_system(self, rest: str) -> None:
        self._system = rest
        self._clear("")

    def _end(self, _rest: str) -> None:
        self.ended = True

    def _save(self, rest: str) -> None:
        if not rest or not self.messages:
            if rest:
                raise BadInput("The conversation is empty.", "Send a message before /save.")
            raise BadInput("/save requires a file name.", "For example: /save chat.md")
        path = expanded(rest)
        try:
            suffix = path.suffix.lower()
            if not sys.stdin.isatty() and suffix not in _SAVE_SUFFIXES:
                # piped text may come from somebody else and contain commands that the user has not read
                reason = (
                    f"Text that is piped in can only save to a new file that ends with {', '.join(_SAVE_SUFFIXES)}."
                )
                raise BadInput(reason, "Use another file name.")
            if suffix == ".json":
                data = json_bytes({"model": self._model, "messages": self.messages})
            else:
                data = markdown(self.messages).encode("utf-8", "replace")
            # only a file that this conversation wrote, and that nobody has changed since, is replaced
            write_private(path, data, replace=self._saved is not None and _same(self._saved, path))
            self._saved = (path, path.stat())
        except FileExistsError as error:
            raise OutputProblem(f"{path} already exists and is not overwritten.", "Choose another name.") from error
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputProblem(f"{rest} cannot be written: {reason}.", "Choose another file.") from error
        self._terminal.print_info(f"saved: {printable(str(path))}\n")


def _same(saved: tuple[Path, os.stat_result], path: Path) -> bool:
    """Return whether the file at `path` is the one that was saved, unchanged since."""
    try:
        found = path.stat()
    except OSError:
        return False
    before = saved[1]
    return path == saved[0] and all(
        getattr(found, name) == getattr(before, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def markdown(messages: list[Message]) -> str:
    """Return a conversation as Markdown."""
    names = {"system": "System", "user": "You", "assistant": "Model"}

    def shown(message: Message) -> str:
        pictures = "".join(f"![](<{source}>)\n\n" for source in message.get("pictures", ()))
        return f"**{names.get(message['role'], message['role'])}**\n\n{pictures}{message['content']}\n"

    return "\n".join(map(shown, messages))
