"""From tokens to text as they come, in whole characters. Knows a tokenizer; nothing of models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from core.model.tokenizer import hidden_ids

_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
_LONGEST: Final = 8
"""Tokens that a character may be spread over; more of them are bytes that make none."""


class Pieces:
    """Text of one token after the other.

    A token's text depends on the one before it (spaces, characters of several tokens), so each is decoded together with
    the last that were told: the work for a token does not grow with the text.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = (), shown: Collection[str] = ()) -> None:
        """Begin a text.

        Args:
            before: tokens that the text continues; none where it begins anew.
            shown: special tokens to be told like words; the others have no text.
        """
        self._decode = _decoder(tokenizer)
        added = tokenizer.get_added_vocab()
        self._special = hidden_ids(tokenizer) - {added.get(word) for word in shown}
        self._ids = [token for token in before[-4:] if token not in self._special]
        self._told = len(self._ids)
        self._told_text = self._decode(self._ids) if self._ids else ""

    def feed(self, token: int) -> str:
        """Text that is sure after one more token; "" for a special one, or where a character is not complete."""
        if token in self._special:
            return ""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) and len(self._ids) - self._told < _LONGEST:
            return ""
        return self._tell(text)

    def flush(self) -> str:
        """What was kept because its last character was not complete, without that character."""
        if len(self._ids) == self._told:
            return ""
        return self._tell(self._decode(self._ids)).rstrip(_UNFINISHED)

    def _tell(self, text: str) -> str:
        piece = text[len(self._told_text) :]
        if piece:
            self._ids = self._ids[self._told :]
            self._told_text = self._decode(self._ids)
        else:
            self._ids = self._ids[-_LONGEST:]
            self._told_text = self._decode(self._ids)
        self._told = len(self._ids)
        return piece


def _decoder(tokenizer: Any) -> Any:
    """The quickest way from ids to text, with special tokens and without any tidying."""
    quick = getattr(tokenizer, "backend_tokenizer", None)
    if quick is not None:
        return lambda ids: quick.decode(ids, skip_special_tokens=False)
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
