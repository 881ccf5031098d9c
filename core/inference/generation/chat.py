"""Answering in a model's own chat format, token by token, with the model's cache kept from one question to the next.

Knows one runner and its tokenizer; nothing of windows, files or how the runner computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.control import ShouldStop, never
from core.errors import BadInput
from core.events import Emit
from core.inference.generation.answering import Answer, PrefixCache
from core.inference.generation.prompt import NO_TEMPLATE, Message, Prompt, PromptWriter, Variables
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling
from core.inference.generation.thinking import Part
from core.inference.generation.turn_ends import end_tokens
from core.inference.runners.runner import Runner

__all__ = ["ChatBackend", "ChatModel", "Message", "Part", "Sampling", "Statistics", "load"]


class ChatBackend(Protocol):
    """What answering needs of a loaded model."""

    @property
    def runner(self) -> Runner: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def folder(self) -> Path: ...


class ChatModel:
    """A loaded model that answers. Not for use from two threads at once.

    Attributes:
        loaded: the model's runner, its tokenizer and its folder.
        statistics: of the last answer.
    """

    def __init__(self, loaded: ChatBackend) -> None:
        self.loaded = loaded
        self.statistics = Statistics()
        self.prompts = PromptWriter(loaded.tokenizer)
        self._ends = end_tokens(loaded.tokenizer, loaded.folder)
        self._reader = PrefixCache(loaded.runner)

    @property
    def context(self) -> int:
        """Tokens that the model can read at once."""
        return self.loaded.runner.context

    @property
    def notice(self) -> str:
        """What a user should know of talking to this model, for once; "" for nothing."""
        return "" if self.template else NO_TEMPLATE

    @property
    def template(self) -> str:
        """The model's chat template; "" for a base model, which has none."""
        return self.prompts.template

    @property
    def thinks(self) -> bool:
        """Whether the model's chat format has a place for thinking."""
        return self.prompts.thinks

    def count(
        self,
        messages: Sequence[Message],
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> int:
        """Return the tokens of a conversation in the model's format, as if nothing were left out.

        Raises:
            BadInput, Cancelled: as `reply`.
        """
        return len(self.prompts.write(messages, continue_last, variables, should_stop).ids)

    def forget(self) -> None:
        """Empty the cache: somebody else has used the runner."""
        self._reader.forget()

    def reply(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        should_stop: ShouldStop = never,
        *,
        continue_last: bool = False,
        variables: Variables | None = None,
    ) -> Iterator[Part]:
        """The answer in parts of whole characters, until it ends (see `Statistics.ended_by`).

        The oldest turns are left out where the context is too small for all of them. Closing the iterator ends the
        answer; what the cache holds by then is kept for the next one.

        Args:
            continue_last: the last message is the model's own and goes on.
            variables: of the chat template, such as `enable_thinking`.

        Raises:
            BadInput: the template refuses the conversation or fails, there is none, or the last question alone is too
                long.
            Cancelled: `should_stop` said so before the answer began.
            OutOfMemory: the device has no room for it.
        """
        prompt = self.prompts.fitted(messages, self.context, sampling.max_tokens, continue_last, variables, should_stop)
        return self._answer(prompt, sampling, should_stop)

    def complete(self, text: str, sampling: Sampling, should_stop: ShouldStop = never) -> Iterator[Part]:
        """What comes after `text`, without any chat format; otherwise as `reply`.

        Raises:
            BadInput: the text is empty or longer than the context.
        """
        prompt = self.prompts.plain(text)
        if not prompt.ids or len(prompt.ids) >= self.context:
            raise BadInput(
                f"The text has {len(prompt.ids)} tokens; the model reads from 1 to {self.context - 1}.",
                "Use another text.",
            )
        return self._answer(prompt, sampling, should_stop)

    def _answer(self, prompt: Prompt, sampling: Sampling, should_stop: ShouldStop) -> Iterator[Part]:
        answer = Answer(self._reader, self.loaded.tokenizer, self._ends, prompt, sampling)
        self.statistics = answer.statistics
        return answer.parts(should_stop)


def load(
    model: str,
    device: str = "auto",
    *,
    backend: str = "auto",
    context: int | None = None,
    emit: Emit = lambda event: None,
    should_stop: ShouldStop = never,
) -> ChatModel:
    """Load a model to talk to; arguments and errors as `core.inference.loader.load_runner`."""
    from core.inference.loader import load_runner

    return ChatModel(load_runner(model, device, backend=backend, context=context, emit=emit, should_stop=should_stop))
