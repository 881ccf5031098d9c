"""Chat with a loaded model: prompts in its chat format, streamed answers, and a cache kept between questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.control import ShouldStop, never
from core.errors import BadInput
from core.events import Emit
from core.inference.generation.answering import Answer, PrefixCache
from core.inference.generation.message import Message
from core.inference.generation.prompt import NO_TEMPLATE, Prompt, PromptWriter, Variables
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling
from core.inference.generation.thinking import Part
from core.inference.generation.turn_ends import end_tokens
from core.inference.runners.runner import Runner
from core.model.processor import PictureProcessor

__all__ = ["ChatBackend", "ChatModel", "Message", "Part", "Sampling", "Statistics", "load"]


class ChatBackend(Protocol):
    """The attributes of a loaded model that `ChatModel` uses."""

    @property
    def runner(self) -> Runner: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def folder(self) -> Path: ...


class ChatModel:
    """A loaded model that answers conversations. Not thread-safe.

    Attributes:
        loaded: the model's runner, tokenizer and folder.
        statistics: figures of the last answer.
        prompts: writer of the model's prompts.
    """

    def __init__(self, loaded: ChatBackend, processor: PictureProcessor | None = None, pictures_note: str = "") -> None:
        """Prepare for chats with a loaded model; `processor` and `pictures_note` as in `PromptWriter`."""
        self.loaded = loaded
        self.statistics = Statistics()
        self.prompts = PromptWriter(loaded.tokenizer, processor, pictures_note)
        self._ends = end_tokens(loaded.tokenizer, loaded.folder)
        self._runner = PrefixCache(loaded.runner)

    @property
    def context(self) -> int:
        """Length of the cache in tokens."""
        return self.loaded.runner.context

    @property
    def notice(self) -> str:
        """Remark about the model for the user, shown once, or ""."""
        return "" if self.template else NO_TEMPLATE

    @property
    def template(self) -> str:
        """The model's chat template; "" for a base model, which has none."""
        return self.prompts.template

    @property
    def reads(self) -> tuple[str, ...]:
        """Kinds of input that messages can have: `text`, `pictures`."""
        return ("text", "pictures") if self.prompts.reads_pictures else ("text",)

    @property
    def pictures_note(self) -> str:
        """Reason, as a sentence, why a model that can see pictures cannot get them here; "" for others."""
        return self.prompts.pictures_note

    @property
    def thinks(self) -> bool:
        """True if the model's chat format has a place for thinking."""
        return self.prompts.thinks

    def count(
        self,
        messages: Sequence[Message],
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> int:
        """Return the number of tokens of a whole conversation in the model's format.

        Raises:
            BadInput, Cancelled: as in `reply`.
        """
        return len(self.prompts.write(messages, continue_last, variables, should_stop).ids)

    def forget(self) -> None:
        """Empty the cache; needed after the runner was used without this object."""
        self._runner.forget()

    def reply(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        should_stop: ShouldStop = never,
        *,
        continue_last: bool = False,
        variables: Variables | None = None,
    ) -> Iterator[Part]:
        """Answer a conversation and yield the parts of the answer, in whole characters, as they are generated.

        The oldest turns are left out if the context is too small for all of them. Closing the iterator ends the
        answer; the cache is kept for the next one. `Statistics.ended_by` gives the reason for the end.

        Args:
            messages: the conversation.
            sampling: sampling parameters.
            should_stop: polled between tokens.
            continue_last: continue the last message, which is the model's.
            variables: variables of the chat template, such as `enable_thinking`.

        Raises:
            BadInput: the conversation is empty, the template refuses it or fails, or the last question alone is too
                long.
            Cancelled: `should_stop` returned True before the answer began.
            OutOfMemory: the device has too little memory.
        """
        prompt = self.prompts.fitted(messages, self.context, sampling.max_tokens, continue_last, variables, should_stop)
        return self._answer(prompt, sampling, should_stop)

    def complete(self, text: str, sampling: Sampling, should_stop: ShouldStop = never) -> Iterator[Part]:
        """Continue `text` without a chat format; otherwise as `reply`.

        Raises:
            BadInput: the text is empty or does not fit into the context.
        """
        prompt = self.prompts.plain(text)
        if not prompt.ids or len(prompt.ids) >= self.context:
            raise BadInput(
                f"The text has {len(prompt.ids)} tokens; the model accepts 1 to {self.context - 1}.",
                "Use a shorter or longer text.",
            )
        return self._answer(prompt, sampling, should_stop)

    def _answer(self, prompt: Prompt, sampling: Sampling, should_stop: ShouldStop) -> Iterator[Part]:
        answer = Answer(self._runner, self.loaded.tokenizer, self._ends, prompt, sampling)
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
    """Load a model for chat; arguments and exceptions as in `core.inference.loader.load_runner`."""
    from core.inference.loader import load_runner

    loaded = load_runner(model, device, backend=backend, context=context, emit=emit, should_stop=should_stop)
    return ChatModel(loaded, loaded.processor, loaded.pictures_note)
