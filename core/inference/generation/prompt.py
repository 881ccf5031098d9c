"""A conversation as token ids in the model's own chat format, short enough for its context.

Knows a transformers tokenizer and its template; nothing of models or answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from core.errors import BadInput
from core.inference.generation.thinking import KNOWN, Marks, marks_of

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`, and `thinking` where an answer had some."""


@dataclass(frozen=True)
class Prompt:
    """What a model is given.

    Attributes:
        ids: token ids; text: what they say.
        dropped: messages that were left out because the context is too small, from the oldest.
        thinking: whether the answer begins within a thought.
        marks: that the answer's thoughts may have.
        continues: whether the answer goes on where the last message ends.
        plain: whether it is bare text, without any format.
    """

    ids: tuple[int, ...]
    text: str
    dropped: int = 0
    thinking: bool = False
    marks: tuple[Marks, ...] = KNOWN
    continues: bool = False
    plain: bool = False


class PromptWriter:
    """Writes conversations in one model's format."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._marks = marks_of(self.template)
        self._known = tuple(dict.fromkeys((self._marks, *KNOWN))) if self._marks else KNOWN
        self._left_out: tuple[Message, ...] = ()

    @property
    def template(self) -> str:
        """The model's chat template; "" for a base model, which continues text."""
        return str(getattr(self._tokenizer, "chat_template", None) or "")

    @property
    def thinks(self) -> bool:
        """Whether the model's format has a place for thinking."""
        return self._marks is not None

    def plain(self, text: str) -> Prompt:
        """A text to be continued, without any format."""
        return Prompt(tuple(self._tokenizer(text)["input_ids"]), text, marks=(), continues=True, plain=True)

    def write(
        self, messages: Sequence[Message], continue_last: bool = False, variables: Mapping[str, Any] | None = None
    ) -> Prompt:
        """The whole conversation, ready for an answer.

        A model without a template gets the bare text of all messages: it is a base model, which continues text.

        Args:
            variables: for the template, beside the conversation: `enable_thinking`, `add_generation_prompt` and so on.

        Raises:
            BadInput: the template refuses the conversation, or there is nothing in it, or nothing to continue.
        """
        _check(messages, continue_last)
        if not self.template:
            return self.plain("\n".join(message["content"] for message in messages))
        more = dict(variables or {})
        text = self._rendered(messages[:-1] if continue_last else messages, {"add_generation_prompt": True, **more})
        opened = next((marks for marks in self._known if text.rstrip().endswith(marks.opens)), None)
        known = (opened, *self._known) if opened else self._known
        thinking = opened is not None
        if continue_last:
            text, thinking = self._continued(messages, text, known[0], thinking, more)
            known = known if thinking or not messages[-1]["content"] else ()
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return Prompt(tuple(ids), text, 0, thinking, known, continue_last)

    def fitted(
        self,
        messages: Sequence[Message],
        context: int,
        room: int,
        continue_last: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The conversation without its oldest turns, as far as the context asks for it.

        The system prompt and the last question stay. Where turns have to go, more go than this answer needs, so that
        the next ones find their beginning in the model's cache; and the same go again as long as they are there.

        Args:
            context: tokens that the model reads.
            room: tokens that should be left for the answer, if leaving turns out can do it.
            variables: as `write`.

        Raises:
            BadInput: as `write`, or the last question alone is too long.
        """
        head, turns = _turns(messages)
        goal = context - min(room, context // 4)
        best = self._without(head, turns, 0, continue_last, variables)
        if len(best.ids) <= goal:
            return best
        if start := self._start(turns):
            best = self._without(head, turns, start, continue_last, variables)
            if len(best.ids) <= goal:
                return best
        low, high = start + 1, len(turns) - 1
        while low <= high:  # the fewest turns that free a quarter of the context; else all but the last
            middle = (low + high) // 2
            found = self._without(head, turns, middle, continue_last, variables)
            if len(found.ids) <= context - context // 4:
                best, high = found, middle - 1
            else:
                low = middle + 1
                best = found if middle == len(turns) - 1 else best
        if len(best.ids) >= context:
            raise BadInput(
                f"The question has {len(best.ids)} tokens and the model reads {context}.", "Ask a shorter one."
            )
        self._left_out = tuple(message for turn in turns for message in turn)[: best.dropped]
        return best

    def _start(self, turns: Sequence[Sequence[Message]]) -> int:
        """The number of turns that were left out before and are there again at the conversation's beginning."""
        count, number = 0, 0
        for turn in turns[:-1]:
            if count >= len(self._left_out) or tuple(turn) != self._left_out[count : count + len(turn)]:
                break
            count, number = count + len(turn), number + 1
        return number if count == len(self._left_out) else 0

    def _without(
        self,
        head: Sequence[Message],
        turns: Sequence[Sequence[Message]],
        count: int,
        continue_last: bool,
        variables: Mapping[str, Any] | None,
    ) -> Prompt:
        kept = [*head, *(message for turn in turns[count:] for message in turn)]
        prompt = self.write(kept, continue_last, variables)
        dropped = sum(len(turn) for turn in turns[:count])
        return replace(prompt, dropped=dropped)

    def _rendered(self, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
        """The conversation as the model's template writes it; if that knows no system prompt, the question has it."""
        tries = [list(messages)]
        first = messages[0]
        if len(messages) > 1 and first["role"] == "system" and messages[1]["role"] == "user":
            question = {"role": "user", "content": f"{first['content']}\n\n{messages[1]['content']}"}
            tries.append([question, *messages[2:]])
        reason = ""
        for some in tries:
            try:
                return str(self._tokenizer.apply_chat_template(some, tokenize=False, **options))
            except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
                reason = reason or str(error).partition("\n")[0][:200]
        raise BadInput(f"The model's chat format refuses this conversation: {reason}", "Start a new one.")

    def _continued(
        self, messages: Sequence[Message], before: str, marks: Marks, opened: bool, variables: Mapping[str, Any]
    ) -> tuple[str, bool]:
        """The conversation up to the end of its last message, which the answer goes on with, and whether it thinks.

        Args:
            before: the conversation up to where that message begins, perhaps within a thought (`opened`).
        """
        thought, said = messages[-1].get("thinking", ""), messages[-1]["content"]
        if said:
            try:
                options = {**variables, "add_generation_prompt": False, "continue_final_message": True}
                return self._rendered(messages, options), False
            except BadInput:
                pass  # a template that does not write the message as it is
        if not thought:
            return f"{before}{said}", opened and not said
        text = before + thought if opened else f"{before}{marks.opens}\n{thought}"
        return (f"{text}\n{marks.closes}\n\n{said}", False) if said else (text, True)


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
