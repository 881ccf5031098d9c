"""A conversation as token ids in the model's own chat format, short enough for its context.

Knows a transformers tokenizer and its template; nothing of models or answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

from core.control import ShouldStop, never
from core.errors import BadInput
from core.inference.generation.thinking import KNOWN, ThinkingTags, marks_of
from core.model.chat_template import ChatTemplate, TemplateRefusal

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`, and `thinking` where an answer had some."""
Variables = Mapping[str, Any]
"""Of a chat template."""

NO_TEMPLATE: Final = (
    "This model has no chat template: it continues text instead of answering. Of a conversation it reads the texts, "
    "each on a line of its own and without roles, the system prompt first."
)
SYSTEM_IN_QUESTION: Final = "The model's chat format has no system prompt, so it stands before the first question."
_PROBE: Final = "SystemPromptProbe"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Prompt:
    """What a model is given.

    Attributes:
        ids: token ids; text: what they say.
        dropped: messages that were left out because the context is too small, from the oldest.
        thinking: whether the answer begins within a thought.
        marks: that the answer's thoughts may have.
        continues: whether the answer goes on where the last message ends.
        note: what a user should know about how it was written, as one sentence; "" for nothing.
    """

    ids: tuple[int, ...]
    text: str
    dropped: int = 0
    thinking: bool = False
    marks: tuple[ThinkingTags, ...] = ()
    continues: bool = False
    note: str = ""


class PromptWriter:
    """Writes conversations in one model's format. The same conversation gives the same prompt, whatever came before."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._format = ChatTemplate(tokenizer)
        self._marks = marks_of(self.template, tokenizer.get_added_vocab()) if self.template else ()
        self._takes_system: bool | None = None

    @property
    def template(self) -> str:
        """The model's chat template; "" for a base model, which continues text."""
        return self._format.text

    @property
    def thinks(self) -> bool:
        """Whether the model's format has a place for thinking."""
        return bool(self._marks)

    def plain(self, text: str) -> Prompt:
        """Return a text to be continued, without any format: behind begin-of-text where the tokenizer puts it."""
        text = _whole(text)
        ids = list(self._tokenizer(text)["input_ids"])
        end = self._tokenizer.eos_token_id
        if ids and ids[-1] == end and list(self._tokenizer(text, add_special_tokens=False)["input_ids"])[-1:] != [end]:
            ids.pop()  # a tokenizer that ends texts would end this one before it is continued
        return Prompt(tuple(ids), text, continues=True)

    def write(
        self,
        messages: Sequence[Message],
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> Prompt:
        """Return the whole conversation, ready for an answer.

        A model without a template gets the bare text of all messages, one behind the other, each on a line of its own:
        it is a base model, which continues text. A system prompt that the template does not write stands before the
        first question, and `Prompt.note` says so.

        Args:
            continue_last: the last message is the model's own and goes on.
            variables: of the template, such as `enable_thinking`.
            should_stop: asked while the template is rendered.

        Raises:
            BadInput: the template refuses the conversation or fails, there is nothing in it, or nothing to continue.
            Cancelled: `should_stop` said so.
        """
        _check(messages, continue_last)
        if not self.template:
            return self.plain("\n".join(message["content"] for message in messages))
        messages, note = self._with_system(messages, should_stop)

        def rendered(some: Sequence[Message], **options: Any) -> str:
            return self._format.render(some, variables, should_stop=should_stop, **options)

        text = rendered(messages[:-1] if continue_last else messages)
        last = messages[-1]["content"].rstrip()
        written_by_user = bool(last) and not continue_last and text.rstrip().endswith(last)
        opened = None if written_by_user else next((m for m in self._marks if text.rstrip().endswith(m.opens)), None)
        known = tuple(dict.fromkeys((opened, *self._marks))) if opened else self._marks
        thinking = opened is not None
        if continue_last:
            text, thinking = _continued(messages, text, (*known, *KNOWN)[0], thinking, rendered)
            known = known if thinking or not messages[-1]["content"] else ()
        text = _whole(text)
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return Prompt(tuple(ids), text, 0, thinking, known, continue_last, note)

    def fitted(
        self,
        messages: Sequence[Message],
        context: int,
        room: int,
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> Prompt:
        """Return the conversation without its oldest turns, as far as the context asks for it.

        The system prompt and the last question stay. As many turns go as free a whole number of quarters of the
        context, so that the same are gone for the next few questions, which find their beginning in the model's cache.

        Args:
            context: tokens that the model reads.
            room: tokens that should be left for the answer, if leaving turns out can do it.

        Raises:
            BadInput, Cancelled: as `write`, or the last question alone is too long.
        """
        head, turns = _turns(messages)

        def without(count: int) -> Prompt:
            kept = [*head, *(message for turn in turns[count:] for message in turn)]
            prompt = self.write(kept, continue_last, variables, should_stop)
            return replace(prompt, dropped=sum(len(turn) for turn in turns[:count]))

        goal = context - min(room, context // 4)
        best = without(0)
        if len(best.ids) <= goal:
            return best
        sizes = list(accumulate(self._size(turn, should_stop) for turn in turns))
        step = max(context // 4, 1)
        freed = -(-(len(best.ids) - goal) // step) * step
        while best.dropped < sum(len(turn) for turn in turns[:-1]):
            count = next((number + 1 for number, size in enumerate(sizes) if size >= freed), len(turns))
            best = without(min(count, len(turns) - 1))
            if len(best.ids) <= goal:
                break
            freed += step
        if len(best.ids) >= context:
            raise BadInput(
                f"The question has {len(best.ids)} tokens and the model reads {context}.", "Ask a shorter one."
            )
        return best

    def _size(self, turn: Sequence[Message], should_stop: ShouldStop) -> int:
        """Tokens that a turn takes, about: what is said in it, and what the template writes around an answer."""
        said = sum(len(self._tokenizer(message["content"], add_special_tokens=False)["input_ids"]) for message in turn)
        bare: list[Message] = [{**message, "content": ""} for message in turn]
        with suppress(TemplateRefusal):  # a template may refuse a turn by itself
            around, alone = (len(self.write(some, should_stop=should_stop).ids) for some in (bare, bare[:1]))
            said += around - alone
        return said

    def _with_system(self, messages: Sequence[Message], should_stop: ShouldStop) -> tuple[Sequence[Message], str]:
        """The messages with a system prompt that the template has a place for, and a note where it has none.

        Some templates refuse system prompts, and others leave them out in silence (Gemma 2, Mistral 7B).
        """
        if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
            return messages, ""
        if self._takes_system is None:
            probe = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "question"}]
            try:
                self._takes_system = _PROBE in self._format.render(probe, should_stop=should_stop)
            except TemplateRefusal:
                self._takes_system = False
        if self._takes_system:
            return messages, ""
        question = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        return [question, *messages[2:]], SYSTEM_IN_QUESTION


def _continued(
    messages: Sequence[Message], before: str, marks: ThinkingTags, opened: bool, rendered: Callable[..., str]
) -> tuple[str, bool]:
    """The conversation up to the end of its last message, which the answer goes on with, and whether it thinks.

    Args:
        before: the conversation up to where that message begins, perhaps within a thought (`opened`).
        rendered: writes messages by the template.
    """
    thought, said = messages[-1].get("thinking", ""), messages[-1]["content"]
    if said:
        with suppress(TemplateRefusal):  # a template that does not write the message as it is
            return rendered(messages, continue_last=True), False
    if not thought:
        return f"{before}{said}", opened and not said
    text = before + thought if opened else f"{before}{marks.opens}\n{thought}"
    return (f"{text}\n{marks.closes}\n\n{said}", False) if said else (text, True)


def _whole(text: str) -> str:
    """The text without halves of characters, which a template can write as well and no tokenizer takes."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _check(messages: Sequence[Message], continue_last: bool) -> None:
    if not messages:
        raise BadInput("There is no message to answer.", "Write one.")
    for message in messages:
        if not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadInput("A message needs a role and a content, both of them text.", "Write it anew.")
    if continue_last and messages[-1]["role"] != "assistant":
        raise BadInput("Only an answer can be continued, and the last message is none.", "Ask for an answer.")


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system prompt, and the rest in turns that begin with a question each."""
    size = next((number for number, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    turns: list[list[Message]] = []
    for message in messages[size:]:
        if message.get("role") == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:size]), turns or [[]]
