"""A message of a conversation, as it is passed from the entry points to the chat of a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class _Text(TypedDict):
    """The required fields of a message."""

    role: str
    content: str


class Message(_Text, total=False):
    """A message: `role` (`system`, `user` or `assistant`), `content` (its text) and optional fields.

    Attributes:
        thinking: reasoning of the model before its answer.
        pictures: each the absolute path of a picture file or a `data:` URI. They stand before the text.
    """

    thinking: str
    pictures: Sequence[str]
