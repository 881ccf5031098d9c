"""Tokenization of calibration documents, with begin-of-text and separator tokens placed as in training.

The special tokens are found by probing the tokenizer; there is no table of model families.
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
    """A tokenizer with its chat template, its begin-of-text tokens and the separator of documents.

    Attributes:
        prefix: Token ids that the tokenizer adds before every text (begin-of-text). Every calibration row starts with
            them: the activations of models trained with them, above all Gemma, are different without them.
        separator: Token ids between two documents.
        refusals: Reason of each conversation that the chat template did not accept.
        conversations: Number of conversations encoded.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._template = ChatTemplate(tokenizer)
        self.prefix = self._find_prefix()
        self.separator = self._find_separator()
        self.refusals: list[str] = []
        self.conversations = 0
        self._template_error = ""

    @property
    def template_message(self) -> str:
        """Sentence about the conversations that were encoded as plain text; "" if there were none."""
        if self.conversations and not self._template.text:
            return f"The model has no chat template: {self.conversations} conversations are used as plain text."
        if not self.refusals:
            return ""
        reason = Counter(self.refusals).most_common(1)[0][0]
        return (
            f"The chat template of the model does not accept {len(self.refusals)} of {self.conversations} "
            f"conversations ({reason}); they are used as plain text."
        )

    def encode(self, documents: Sequence[Document]) -> list[list[int]]:
        """Return the token ids of each document, without begin-of-text and separator tokens."""
        texts = [self._text(document) for document in documents]
        if not texts:
            return []
        # verbose=False: no warning for texts longer than the model's context, because they are cut into rows.
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
        if self._template_error:
            self.refusals.append(self._template_error)
            return document.plain()
        turns = document.turns or tuple({"role": role, "content": content} for role, content in document.messages)
        more = {"tools": list(document.tools)} if document.tools else {}
        try:
            return self._template.render(turns, {"add_generation_prompt": False, **more})
        except BadInput as error:
            # Chat templates reject conversations that their model was not trained on: a system turn, two user turns
            # in a row. A template that cannot be parsed or does not end is not used again.
            message = " ".join(error.message.split()).rstrip(".")[:160]
            reason = message.partition("rejects this conversation: ")[2] or message
            if not isinstance(error, TemplateRefusal):
                self._template_error = reason
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
        # The end-of-sequence token of a chat model ends a turn; pre-training separates documents with these tokens.
        vocabulary = self._tokenizer.get_added_vocab()
        for name in _END_OF_TEXT:
            if name in vocabulary:
                return (vocabulary[name],)
        if self._tokenizer.eos_token_id is not None:
            return (self._tokenizer.eos_token_id,)
        return self.prefix
