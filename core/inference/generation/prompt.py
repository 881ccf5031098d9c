"""Conversion of conversations to prompts: token ids in the model's chat format, shortened to fit its context."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

from core.control import ShouldStop, never
from core.errors import BadInput
from core.inference.generation.message import Message
from core.inference.generation.thinking import KNOWN, ThinkingTags, marks_of
from core.inference.memory import memory_errors
from core.model.chat_template import ChatTemplate, TemplateRefusal
from core.model.processor import PictureInputs, PictureProcessor

Variables = Mapping[str, Any]
"""Variables of a chat template."""

NO_TEMPLATE: Final = (
    "This model has no chat template, so it continues text instead of answering. Its prompt is the text of all "
    "messages, one per line and without roles, the system prompt first."
)
SYSTEM_IN_QUESTION: Final = (
    "The model's chat format does not support system prompts, so the system prompt was added to the first question."
)
_PROBE: Final = "SystemPromptProbe"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Prompt:
    """Input of a model.

    Attributes:
        ids: token ids.
        text: the text of the token ids.
        dropped: number of messages, from the oldest, left out because the context is too small.
        thinking: whether the answer starts within thinking.
        marks: thinking marks that the answer may contain.
        continues: whether the answer continues the last message.
        note: remark about the prompt for the user, as one sentence, or "".
        pictures: inputs of the model for a prompt with pictures; None without.
    """

    ids: tuple[int, ...]
    text: str
    dropped: int = 0
    thinking: bool = False
    marks: tuple[ThinkingTags, ...] = ()
    continues: bool = False
    note: str = ""
    pictures: PictureInputs | None = None


class PromptWriter:
    """Writer of prompts in the format of one model. Equal conversations give equal prompts."""

    def __init__(self, tokenizer: Any, processor: PictureProcessor | None = None, pictures_note: str = "") -> None:
        """Prepare for a model.

        Args:
            tokenizer: of the model.
            processor: of the model's pictures; None if it cannot get any.
            pictures_note: reason, as a sentence, why a model that can see pictures cannot get them; "" for others.
        """
        self._tokenizer, self._processor, self._pictures_note = tokenizer, processor, pictures_note
        self._format = ChatTemplate(tokenizer)
        self._marks = marks_of(self.template, tokenizer.get_added_vocab()) if self.template else ()
        self._takes_system: bool | None = None

    @property
    def template(self) -> str:
        """The model's chat template; "" for a base model."""
        return self._format.text

    @property
    def reads_pictures(self) -> bool:
        """True if messages can have pictures."""
        return self._processor is not None and bool(self.template)

    @property
    def pictures_note(self) -> str:
        """Reason, as a sentence, why a model that can see pictures cannot get them; "" for others."""
        if self._processor is not None and not self.template:
            return "The model can see pictures, but has no chat template to place them in a prompt."
        return self._pictures_note

    @property
    def thinks(self) -> bool:
        """True if the model's format has a place for thinking."""
        return bool(self._marks)

    def plain(self, text: str) -> Prompt:
        """Return a prompt that continues `text` without a chat format, with the begin-of-text token if there is one."""
        text = _whole(text)
        ids = list(self._tokenizer(text)["input_ids"])
        end = self._tokenizer.eos_token_id
        if ids and ids[-1] == end and list(self._tokenizer(text, add_special_tokens=False)["input_ids"])[-1:] != [end]:
            ids.pop()  # the end token that the tokenizer appended would end the text before it is continued
        return Prompt(tuple(ids), text, continues=True)

    def write(
        self,
        messages: Sequence[Message],
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> Prompt:
        """Return the prompt of the whole conversation.

        The prompt of a base model, which has no template, is the text of all messages, one per line. A system prompt
        that the template does not support is added to the first question, and `Prompt.note` is set.

        Args:
            continue_last: continue the last message, which is the model's.
            variables: variables of the template, such as `enable_thinking`.
            should_stop: polled while the template is rendered.

        Raises:
            BadInput: the conversation is empty or has nothing to continue, the template refuses it or fails, or it has
                pictures, which this model cannot get or which cannot be opened.
            Cancelled: `should_stop` returned True.
        """
        _check(messages, continue_last)
        sources = [source for message in messages for source in message.get("pictures", ())]
        if sources and not self.reads_pictures:
            raise BadInput(
                self.pictures_note or "This model reads text only.",
                "Remove the pictures from the conversation, or choose a vision-language model.",
            )
        mark = self._processor.mark if self._processor is not None else ""
        if not self.template:
            return self.plain("\n".join(message["content"] for message in messages))
        messages, note = self._with_system(messages, should_stop)

        def rendered(some: Sequence[Message], **options: Any) -> str:
            return self._format.render(some, variables, picture_mark=mark, should_stop=should_stop, **options)

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
        pictures = None
        if sources and self._processor is not None:
            with memory_errors("Preparing the pictures"):
                pictures = self._processor.inputs(text, sources)
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"] if pictures is None else pictures.ids
        return Prompt(tuple(ids), text, 0, thinking, known, continue_last, note, pictures)

    def fitted(
        self,
        messages: Sequence[Message],
        context: int,
        room: int,
        continue_last: bool = False,
        variables: Variables | None = None,
        should_stop: ShouldStop = never,
    ) -> Prompt:
        """Return the prompt of the conversation without the oldest turns that do not fit into the context.

        The system prompt and the last question are always kept. Turns are dropped in steps of a quarter of the context,
        so that the next questions have the same prefix, which is in the model's cache.

        Args:
            context: length of the context in tokens.
            room: tokens to leave free for the answer, as far as dropping turns can free them.

        Raises:
            BadInput: as in `write`, or the last question alone is too long.
            Cancelled: as in `write`.
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
        picture = self._tokens_of_a_picture(best)
        sizes = list(accumulate(self._size(turn, picture, should_stop) for turn in turns))
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
                f"The question has {len(best.ids)} tokens, but the context has only {context}.",
                "Shorten the question."
                if best.pictures is None
                else "Use fewer or smaller pictures, or a longer context.",
            )
        return best

    def _tokens_of_a_picture(self, prompt: Prompt) -> int:
        """Return the mean number of tokens of the pictures in a prompt; 0 if there are none."""
        if prompt.pictures is None:
            return 0
        text = len(self._tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
        return max(0, len(prompt.ids) - text) // len(prompt.pictures.digests)

    def _size(self, turn: Sequence[Message], picture: int, should_stop: ShouldStop) -> int:
        """Return the approximate number of tokens of a turn: its texts and pictures, and the template's text around.

        Args:
            picture: number of tokens of a picture.
        """
        size = sum(len(self._tokenizer(message["content"], add_special_tokens=False)["input_ids"]) for message in turn)
        size += picture * sum(len(message.get("pictures", ())) for message in turn)
        bare: list[Message] = [{**message, "content": "", "pictures": ()} for message in turn]
        with suppress(TemplateRefusal):  # a template may refuse a turn by itself
            around, alone = (len(self.write(some, should_stop=should_stop).ids) for some in (bare, bare[:1]))
            size += around - alone
        return size

    def _with_system(self, messages: Sequence[Message], should_stop: ShouldStop) -> tuple[Sequence[Message], str]:
        """Return the messages in a form that the template supports, and a note about the change or "".

        If the template refuses system prompts or ignores them silently (Gemma 2, Mistral 7B), the system prompt is
        moved into the first question.
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
        question: Message = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        return [question, *messages[2:]], SYSTEM_IN_QUESTION


def _continued(
    messages: Sequence[Message], before: str, marks: ThinkingTags, opened: bool, rendered: Callable[..., str]
) -> tuple[str, bool]:
    """Return the conversation up to the end of its last message, and whether it ends within thinking.

    Args:
        before: the conversation up to the beginning of the last message.
        marks: thinking marks of the model.
        opened: whether `before` ends with the opening mark.
        rendered: renders messages with the template.
    """
    thinking, content = messages[-1].get("thinking", ""), messages[-1]["content"]
    if content:
        with suppress(TemplateRefusal):  # the template changes the message
            return rendered(messages, continue_last=True), False
    if not thinking:
        return f"{before}{content}", opened and not content
    text = before + thinking if opened else f"{before}{marks.opens}\n{thinking}"
    return (f"{text}\n{marks.closes}\n\n{content}", False) if content else (text, True)


def _whole(text: str) -> str:
    """Replace surrogates, which a template can produce but no tokenizer accepts."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _check(messages: Sequence[Message], continue_last: bool) -> None:
    if not messages:
        raise BadInput("There is no message to answer.", "Write a message.")
    for message in messages:
        if not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadInput("A message needs a role and a content, both strings.", "Correct the message.")
        pictures = message.get("pictures", ())
        if not isinstance(pictures, list | tuple) or not all(isinstance(source, str) for source in pictures):
            raise BadInput("The pictures of a message must be a list of paths.", "Correct the message.")
    if continue_last and messages[-1]["role"] != "assistant":
        raise BadInput("The last message is not an answer, so it cannot be continued.", "Ask for an answer.")


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the system messages, and the other messages in turns that each start with a question."""
    size = next((number for number, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    turns: list[list[Message]] = []
    for message in messages[size:]:
        if message.get("role") == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:size]), turns or [[]]
