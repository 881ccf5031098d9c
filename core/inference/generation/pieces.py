"""Incremental decoding of tokens into text, in whole characters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from core.model.tokenizer import hidden_ids

_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
_MAX_TOKENS_PER_CHARACTER: Final = 8
"""Tokens after which an incomplete character is emitted as it is: its bytes are not valid UTF-8."""


class Pieces:
    """Incremental decoder, one token at a time.

    The text of a token depends on the tokens before it (spaces, characters of several tokens), so each token is decoded
    together with the last emitted ones. The cost per token does not grow with the length of the text.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = (), shown: Collection[str] = ()) -> None:
        """Start a text.

        Args:
            before: token ids that the text continues; empty for a new text.
            shown: special tokens that are emitted as text; the others have no text.
        """
        self._decode = _decoder(tokenizer)
        added = tokenizer.get_added_vocab()
        self._special = hidden_ids(tokenizer) - {added.get(word) for word in shown}
        self._ids = [token for token in before[-4:] if token not in self._special]
        self._emitted = len(self._ids)
        self._emitted_text = self._decode(self._ids) if self._ids else ""

    def feed(self, token: int) -> str:
        """Return the new complete text after one more token; "" for a special token or an incomplete character."""
        if token in self._special:
            return ""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) and len(self._ids) - self._emitted < _MAX_TOKENS_PER_CHARACTER:
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """Return the pending text without its incomplete last character."""
        if len(self._ids) == self._emitted:
            return ""
        return self._emit(self._decode(self._ids)).rstrip(_UNFINISHED)

    def _emit(self, text: str) -> str:
        piece = text[len(self._emitted_text) :]
        if piece:
            self._ids = self._ids[self._emitted :]
            self._emitted_text = self._decode(self._ids)
        else:
            self._ids = self._ids[-_MAX_TOKENS_PER_CHARACTER:]
            self._emitted_text = self._decode(self._ids)
        self._emitted = len(self._ids)
        return piece


def _decoder(tokenizer: Any) -> Any:
    """Return the fastest function from ids to text that keeps special tokens and does not clean up spaces."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return lambda ids: fast.decode(ids, skip_special_tokens=False)
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
