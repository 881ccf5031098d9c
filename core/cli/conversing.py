"""Talking to a model in a terminal: one answer, or a conversation with commands of its own.

Knows `core.talk` and the terminal; nothing of how the model computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core import talk
from core.cli.terminal import Interrupts, Terminal, printable
from core.errors import BadInput, BitwrightError, OutputProblem
from core.events import Event, Failed, Result, Token
from core.files import expanded, write_atomic, write_json

if TYPE_CHECKING:
    from core.inference.generation.chat import ChatModel
    from core.inference.generation.sampling import Sampling

HELP = """/regenerate  the last question again, with the next seed
/clear       begin a new conversation
/system TEXT what the model is told first, from a new conversation on; without TEXT, nothing
/save FILE   write the conversation as Markdown, or as JSON if FILE ends with .json
/help        this list
A message that begins with a slash: put a space before it. The end of the input ends the talk."""
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
_ENDS = {
    "length": "cut off at the longest answer",
    "context": "cut off where the context is full",
    "stopped": "stopped",
}


def chat(terminal: Terminal, model: str, prompt: str | None, options: Mapping[str, Any]) -> None:
    """Answer one prompt, or talk until the input ends."""
    if prompt is None:
        _talk(terminal, model, options)
        return
    voice = Voice(terminal)
    with terminal.guarded(), Interrupts() as interrupts:
        for event in talk.chat(model, prompt, should_stop=interrupts.asked, **options):
            voice.hear(event)


def _talk(terminal: Terminal, model: str, options: Mapping[str, Any]) -> None:
    places = ("device", "backend", "context")
    settings = {name: value for name, value in options.items() if name not in (*places, "system")}
    sampling = talk.sampling_of(settings)
    with terminal.guarded():
        with Interrupts() as interrupts:
            opened = talk.open_chat(
                model, emit=terminal.event, should_stop=interrupts.asked, **{name: options[name] for name in places}
            )
        conversation = Conversation(terminal, opened, sampling, str(options["system"]), model)
        while (line := terminal.ask()) is not None:
            try:
                conversation.take(line)
            except BitwrightError as error:
                if error.code == "cancelled":
                    raise
                if terminal.json:
                    terminal.event(Failed(error.code, error.message, error.hint, "", False))
                terminal.complain(error.message, error.hint)


class Voice:
    """Shows one answer: what is said on stdout, what is thought and the figures on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._thinking = False

    def hear(self, event: Event) -> None:
        """Show an event of an answer."""
        terminal = self._terminal
        if isinstance(event, Token):
            thinking = event.kind == "thinking"
            if self._thinking and not thinking:
                terminal.aside("\n\n")
            self._thinking = thinking
        terminal.event(event)
        if isinstance(event, Result):
            if self._thinking:
                terminal.aside("\n")
            terminal.line()
            if not terminal.json:
                terminal.aside(f"{figures_line(event.values)}\n")


def figures_line(values: Mapping[str, Any]) -> str:
    """The figures of an answer for people, in one line."""
    told = [
        f"{values['tokens']} tokens, {values['tokens_per_second']:.1f} tokens/s",
        f"first after {values['first_token_seconds']:.2g} s",
        f"prompt {values['prompt_tokens']} tokens, {values['cached_tokens']} of them known",
        f"seed {values['seed']}",
    ]
    if values["dropped_messages"]:
        told.append(f"the oldest {values['dropped_messages']} messages were left out")
    if values["ended_by"] in _ENDS:
        told.append(_ENDS[values["ended_by"]])
    if note := values.get("note"):
        told.append(note[:1].lower() + note[1:].rstrip("."))
    return f"[{'; '.join(told)}]"


class Conversation:
    """Questions and answers, and the commands between them."""

    def __init__(self, terminal: Terminal, opened: ChatModel, sampling: Sampling, system: str, model: str) -> None:
        self._terminal, self._opened, self._sampling, self._system = terminal, opened, sampling, system
        self._model = model
        self._tries = 0
        self.messages: list[dict[str, str]] = []

    def take(self, line: str) -> None:
        """One line of the user: a question, a command, or nothing.

        Raises:
            BitwrightError: the command or the question cannot be followed; the conversation is as it was.
        """
        if not line.strip():
            return
        command = _COMMAND.fullmatch(line.rstrip())
        if command is None:
            self._tries = 0
            self._ask([*self.messages, *talk.conversation(line.strip(), "" if self.messages else self._system)])
            return
        name, rest = command[1], (command[2] or "").strip()
        known: dict[str, Callable[[str], None]] = {
            "regenerate": self._regenerate,
            "clear": self._clear,
            "system": self._tell,
            "save": self._save,
            "help": lambda _rest: self._terminal.aside(f"{HELP}\n"),
        }
        if name not in known:
            raise BadInput(f"There is no command /{name}.", "/help lists them; a space before the slash makes it text.")
        known[name](rest)

    def _ask(self, messages: list[dict[str, str]]) -> None:
        from dataclasses import replace

        seed = self._sampling.seed
        sampling = replace(self._sampling, seed=None if seed is None else seed + self._tries)
        voice = Voice(self._terminal)
        with Interrupts() as interrupts:
            said = talk.answer(self._opened, messages, sampling, voice.hear, interrupts.asked)
        self.messages = [*messages, {"role": "assistant", "content": said}]

    def _regenerate(self, _rest: str) -> None:
        if not self.messages:
            raise BadInput("There is no question to answer again.", "Ask one.")
        self._tries += 1
        self._ask(self.messages[:-1])

    def _clear(self, _rest: str) -> None:
        self.messages, self._tries = [], 0

    def _tell(self, rest: str) -> None:
        self._system = rest
        self._clear("")

    def _save(self, rest: str) -> None:
        if not rest or not self.messages:
            raise BadInput("There is nothing to save." if rest else "/save needs the name of a file.", "/help")
        path = expanded(rest)
        try:
            if path.suffix.lower() == ".json":
                write_json(path, {"model": self._model, "messages": self.messages})
            else:
                write_atomic(path, markdown(self.messages).encode("utf-8", "replace"))
        except OSError as error:
            raise OutputProblem(f"{path} cannot be written: {error.strerror}.", "Choose another file.") from error
        self._terminal.aside(f"written: {printable(str(path))}\n")


def markdown(messages: list[dict[str, str]]) -> str:
    """A conversation as Markdown."""
    names = {"system": "System", "user": "You", "assistant": "Model"}
    return "\n".join(
        f"**{names.get(message['role'], message['role'])}**\n\n{message['content']}\n" for message in messages
    )
