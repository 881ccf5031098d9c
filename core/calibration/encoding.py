"""Turning documents into token ids the way a model met them in training: begin-of-text and separators in their places.

Asks the tokenizer what it does instead of knowing families. Knows nothing of files or of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.calibration.documents import Document
from core.errors import BadInput
from core.model.chat_template import ChatTemplate, TemplateRefusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")


class Encoder:
    """A tokenizer with its habits found out.

    Attributes:
        prefix: ids that the tokenizer puts before every text (begin-of-text), to begin every row with: models
            trained with it (Gemma above all) answer far from their habit in its absence.
        separator: ids that stand between two documents.
        refusals: why the chat template refused a conversation, one reason for each.
        conversations: how many there were.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._template = ChatTemplate(tokenizer)
        self.prefix = self._find_prefix()
        self.separator = self._find_separator()
        self.refusals: list[str] = []
        self.conversations = 0
        self._broken = ""

    @property
    def remark(self) -> str:
        """What became of conversations that the template did not write, in one sentence; "" if there were none."""
        if self.conversations and not self._template.text:
            return f"The model has no chat template: {self.conversations} conversations are read as plain text."
        if not self.refusals:
            return ""
        reason = Counter(self.refusals).most_common(1)[0][0]
        return (
            f"The chat template of the model refuses {len(self.refusals)} of {self.conversations} conversations "
            f"({reason}); they are read as plain text."
        )

    def encode(self, documents: Sequence[Document]) -> list[list[int]]:
        """Ids of each document, without begin-of-text and without separators."""
        texts = [self._text(document) for document in documents]
        if not texts:
            return []
        # verbose=False: texts longer than the model's window are meant to be, they are cut into rows.
        rows: list[list[int]] = self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        size = len(self.prefix)
        return [row[size:] if size and tuple(row[:size]) == self.prefix else row for row in rows]

    def _text(self, document: Document) -> str:
        if not document.messages:
            return document.text
        self.conversations += 1
        if not self._template.text:
            return document.plain()
        if self._broken:
            self.refusals.append(self._broken)
            return document.plain()
        turns = document.turns or tuple({"role": role, "content": said} for role, said in document.messages)
        more = {"tools": list(document.tools)} if document.tools else {}
        try:
            return self._template.render(turns, {"add_generation_prompt": False, **more})
        except BadInput as error:
            # Templates refuse what their model was not trained on: a system turn, two user turns in a row. One that
            # cannot be read or does not end is not asked again.
            said = " ".join(error.message.split()).rstrip(".")[:160]
            reason = said.partition("refuses this conversation: ")[2] or said
            if not isinstance(error, TemplateRefusal):
                self._broken = reason
            self.refusals.append(reason)
            return document.plain()

    def _find_prefix(self) -> tuple[int, ...]:
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        for size in range(len(full) - len(plain) + 1):
            if full[size : size + len(plain)] == plain:
                return tuple(full[:size])
        return ()

    def _find_separator(self) -> tuple[int, ...]:
        # A chat model's end-of-sequence token ends a turn; between documents of its training text stood this one.
        vocabulary = self._tokenizer.get_added_vocab()
        for name in _END_OF_TEXT:
            if name in vocabulary:
                return (vocabulary[name],)
        if self._tokenizer.eos_token_id is not None:
            return (self._tokenizer.eos_token_id,)
        return self.prefix
