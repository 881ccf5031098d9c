"""The vocabulary of a tokenizer as a GGUF file lists it: texts, types, and scores or merges.

Includes the `added_tokens` of tokenizer.json; the tokens of the model itself come from `byte_level` and
`sentencepiece`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from gguf.constants import GGUFValueType, TokenType

from core.errors import UnsupportedModel
from core.formats.gguf.file import Entry
from core.model.tokenizer import MAX_TOKENS

_SPECIAL_LOOKS: Final = (("<|", "|>"), ("<｜", "｜>"))
_HINT: Final = "Choose another format, such as auto_round."


@dataclass(frozen=True)
class Added:
    """A token that was added to the vocabulary, which is matched in text before tokenization.

    Attributes:
        special: hidden in decoded text.
        strips: removes whitespace before or after it.
        normalized: matched in the normalized text.
    """

    number: int
    text: str
    special: bool
    strips: tuple[bool, bool]
    normalized: bool

    @property
    def kind(self) -> TokenType:
        """The type: llama.cpp parses control tokens in text only on request, user-defined ones always."""
        looks = any(self.text.startswith(start) and self.text.endswith(end) for start, end in _SPECIAL_LOOKS)
        return TokenType.CONTROL if self.special or looks else TokenType.USER_DEFINED


@dataclass
class Tokens:
    """A vocabulary under construction.

    Attributes:
        model: `gpt2` (byte-level) or `llama` (SentencePiece), the names of llama.cpp.
        pre: name of the pre-tokenizer.
        texts, kinds: of every token, by id; a missing token is None until `close`.
        scores: of every token of a `llama` model.
        merges: of a `gpt2` model, in order of priority.
        added: the added tokens.
        prefix: a space is put before the text; None for models without this setting.
        notes: for the user.
    """

    model: str
    pre: str
    texts: list[str | None] = field(default_factory=list)
    kinds: list[TokenType] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)
    prefix: bool | None = None
    notes: list[str] = field(default_factory=list)

    def put(self, number: int, text: str, kind: TokenType, score: float = 0.0) -> None:
        """Set one token, replacing an earlier one with the same id.

        Raises:
            UnsupportedModel: its id is larger than any vocabulary.
        """
        if not 0 <= number < MAX_TOKENS:
            raise UnsupportedModel(f"The tokenizer has a token numbered {number:.4g}.", "Check tokenizer.json.")
        while len(self.texts) <= number:
            self.texts.append(None)
            self.kinds.append(TokenType.UNUSED)
            self.scores.append(_UNUSED_SCORE)
        self.texts[number], self.kinds[number], self.scores[number] = text, kind, score

    def close(self, rows: int) -> None:
        """Add unused tokens until there are as many as rows of the embedding.

        Raises:
            UnsupportedModel: there are more tokens than rows, or two of the same text.
        """
        if len(self.texts) > rows:
            raise UnsupportedModel(
                f"The tokenizer has {len(self.texts)} tokens and the model's embedding only {rows} rows.", _HINT
            )
        for number in range(rows):
            if number >= len(self.texts) or self.texts[number] is None:
                self.put(number, f"[PAD{number}]", TokenType.UNUSED, _UNUSED_SCORE)
        seen: dict[str | None, int] = {}
        for number, text in enumerate(self.texts):
            if text in seen:
                # llama.cpp aborts when it loads such a file.
                raise UnsupportedModel(f"The tokens {seen[text]} and {number} have the same text {text!r:.40}.", _HINT)
            seen[text] = number

    def number(self, text: str) -> int | None:
        """Return the id of the token with this text, preferring added tokens."""
        for item in self.added:
            if item.text == text:
                return item.number
        return self.texts.index(text) if text in self.texts else None

    def entries(self) -> list[Entry]:
        """Return the metadata of the vocabulary."""
        text, whole, real = GGUFValueType.STRING, GGUFValueType.INT32, GGUFValueType.FLOAT32
        found = [
            Entry.text("tokenizer.ggml.model", self.model),
            Entry.text("tokenizer.ggml.pre", self.pre),
            Entry.list_of("tokenizer.ggml.tokens", text, self.texts),
            Entry.list_of("tokenizer.ggml.token_type", whole, [int(kind) for kind in self.kinds]),
        ]
        if self.model == "llama":
            found.append(Entry.list_of("tokenizer.ggml.scores", real, self.scores))
        else:
            found.append(Entry.list_of("tokenizer.ggml.merges", text, self.merges))
        if self.prefix is not None:
            found.append(Entry.flag("tokenizer.ggml.add_space_prefix", self.prefix))
        return found


_UNUSED_SCORE: Final = -10000.0
ADDED_SCORE: Final = -1000.0
"""Low enough that all other merges come before those that form the token from its characters."""


def added_tokens(items: Iterable[dict[str, Any]]) -> list[Added]:
    """Return the `added_tokens` of tokenizer.json."""
    return [
        Added(
            number=int(item["id"]),
            text=str(item["content"]),
            special=bool(item.get("special")),
            strips=(bool(item.get("lstrip")), bool(item.get("rstrip"))),
            normalized=bool(item.get("normalized")),
        )
        for item in items
    ]
