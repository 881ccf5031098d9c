"""Conversion of a byte-level BPE tokenizer (as in GPT-2) from tokenizer.json to llama.cpp's tokenizer model `gpt2`."""

from __future__ import annotations

from typing import Any, Final

from gguf.constants import TokenType

from core.errors import UnsupportedModel
from core.formats.gguf.pretokenizers import differs, rule
from core.formats.gguf.vocabulary import Tokens, added_tokens

_HINT: Final = "Choose another format, such as auto_round."


def is_byte_level(tokenizer: dict[str, Any]) -> bool:
    """Return whether tokenizer.json describes a byte-level BPE tokenizer."""
    return _has(tokenizer.get("pre_tokenizer"), "ByteLevel") and tokenizer["model"].get("type") == "BPE"


def byte_level(tokenizer: dict[str, Any]) -> Tokens:
    """Return the tokens with their types and merges.

    Raises:
        UnsupportedModel: a detail that llama.cpp's tokenizer does not have.
    """
    model = tokenizer["model"]
    tokens = Tokens("gpt2", rule(tokenizer))
    tokens.notes += differs(tokens.pre)
    tokens.notes += _normalizer(tokenizer.get("normalizer"))
    if model.get("byte_fallback") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnsupportedModel(
            "The tokenizer has prefixes or suffixes for subwords, which llama.cpp does not support.", _HINT
        )
    for text, number in model["vocab"].items():
        tokens.put(number, text, TokenType.NORMAL)
    tokens.added = added_tokens(tokenizer.get("added_tokens") or [])
    for item in tokens.added:
        tokens.put(item.number, item.text, item.kind)
    for merge in model["merges"]:
        pair = merge if isinstance(merge, list) else merge.split(" ")
        if len(pair) != 2 or any(" " in part or not part for part in pair):
            raise UnsupportedModel("The tokenizer has merges with spaces, which a GGUF file cannot represent.", _HINT)
        tokens.merges.append(" ".join(pair))
    return tokens


def _normalizer(value: Any) -> list[str]:
    """Return notes about the normalizer, which llama.cpp does not apply."""
    if value is None or (value.get("type") == "Sequence" and not value.get("normalizers")):
        return []
    if value.get("type") == "NFC":
        return ["llama.cpp does not compose letters and accents (NFC) before it cuts text, as this tokenizer does."]
    raise UnsupportedModel(
        f"The tokenizer changes text by {str(value.get('type'))[:40]} before splitting it; llama.cpp does not.",
        _HINT,
    )


def _has(value: Any, kind: str) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("type") == kind or any(_has(item, kind) for item in value.get("pretokenizers") or [])
