"""The tokens of a tokenizer as a GGUF file lists them: text, type, and what joins them.

Knows tokenizer.json's `added_tokens` and the token types of llama.cpp; which texts a model's own table has is the work
of `byte_level` and `sentencepiece`.
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
    """One token that was added to a model's own table: it is found in text before anything else.

    Attributes:
        special: hidden in decoded text.
        strips: whether it swallows blanks before or behind it.
        normalized: it is looked for in the text as the normalizer leaves it.
    """

    number: int
    text: str
    special: bool
    strips: tuple[bool, bool]
    normalized: bool

    @property
    def kind(self) -> TokenType:
        """The type: llama.cpp takes control tokens out of text only when asked to, user-defined ones always."""
        looks = any(self.text.startswith(start) and self.text.endswith(end) for start, end in _SPECIAL_LOOKS)
        return TokenType.CONTROL if self.special or looks else TokenType.USER_DEFINED


@dataclass
class Tokens:
    """A whole vocabulary, built up token by token.

    Attributes:
        model: `gpt2` (byte-level) or `llama` (SentencePiece), as llama.cpp calls them.
        pre: name of the rule that cuts text.
        texts, kinds: of every token, by number; a hole is None until `close`.
        scores: of every token of a `llama` model.
        merges: of a `gpt2` model, first the one that is applied first.
        added: tokens beyond the model's own table.
        prefix: a blank is put before the text; None where the question does not arise.
        notes: what a user should know.
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
        """Set one token; a later one replaces an earlier.

        Raises:
            UnsupportedModel: its number is beyond any vocabulary known.
        """
        if not 0 <= number < MAX_TOKENS:
            raise UnsupportedModel(f"The tokenizer has a token numbered {number:.4g}.", "Check tokenizer.json.")
        while len(self.texts) <= number:
            self.texts.append(None)
            self.kinds.append(TokenType.UNUSED)
            self.scores.append(_UNUSED_SCORE)
        self.texts[number], self.kinds[number], self.scores[number] = text, kind, score

    def close(self, rows: int) -> None:
        """Fill up to as many tokens as the embedding has rows.

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
                # llama.cpp ends the process at such a file.
                raise UnsupportedModel(f"The tokens {seen[text]} and {number} have the same text {text!r:.40}.", _HINT)
            seen[text] = number

    def number(self, text: str) -> int | None:
        """The token with this text: an added one first."""
        for item in self.added:
            if item.text == text:
                return item.number
        return self.texts.index(text) if text in self.texts else None

    def entries(self) -> list[Entry]:
        """The lists, for the file."""
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
"""Low enough that no merge makes the token out of its letters before all others are done."""


def added_tokens(items: Iterable[dict[str, Any]]) -> list[Added]:
    """What `added_tokens` of tokenizer.json says."""
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
