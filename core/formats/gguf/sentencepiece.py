"""Conversion of a SentencePiece BPE tokenizer (as in Llama 2 and Gemma) to llama.cpp's tokenizer model `llama`.

tokenizer.json lists merges by priority; llama.cpp and SentencePiece merge any two neighbours that form a token, the
token with the highest score first. Both are equivalent if every pair that forms a token is among the merges and the
merges of a token are consecutive; this is checked here, and scores are computed from the ranks of the merges.
tokenizer.model has the scores themselves.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Final

from gguf.constants import TokenType

from core.errors import CorruptFile, UnsupportedModel
from core.formats.gguf.vocabulary import ADDED_SCORE, Added, Tokens, added_tokens

BLANK: Final = "\u2581"
"""The character that replaces spaces in tokens."""

_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")
_HINT: Final = "Choose another format, such as auto_round."
_BPE: Final = 2
_TYPES: Final = {1: TokenType.NORMAL, 2: TokenType.UNKNOWN, 3: TokenType.CONTROL, 4: TokenType.USER_DEFINED,
                 5: TokenType.UNUSED, 6: TokenType.BYTE}  # fmt: skip


def from_json(tokenizer: dict[str, Any]) -> Tokens:
    """Return the tokens with their types and scores from tokenizer.json.

    Raises:
        UnsupportedModel: llama.cpp does not support the tokenizer.
    """
    model = tokenizer["model"]
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnsupportedModel(
            f"The tokenizer is of the kind {str(model.get('type'))[:40]}, which is not written to GGUF files.", _HINT
        )
    tokens = Tokens("llama", "default")
    tokens.prefix, notes = _space_prefix(tokenizer)
    tokens.notes += notes
    tokens.added = added_tokens(tokenizer.get("added_tokens") or [])
    scores = _scores(model)
    for text, number in model["vocab"].items():
        kind = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
        tokens.put(number, text, kind, scores.get(text, 0.0))
    if model.get("unk_token") in model["vocab"]:
        tokens.put(model["vocab"][model["unk_token"]], model["unk_token"], TokenType.UNKNOWN)
    for item in tokens.added:
        _put_added(tokens, item, item.text in scores)
    _check_bytes(tokens)
    _check_merges(tokens, scores, model)
    return tokens


def from_model(path: Path, added: list[Added]) -> Tokens:
    """Return the tokens with their types and scores from SentencePiece's tokenizer.model.

    Args:
        path: of the file.
        added: tokens that other files add.

    Raises:
        UnsupportedModel: llama.cpp does not support the kind of model.
        CorruptFile: the file is not a SentencePiece model.
    """
    try:
        parts = _fields(path.read_bytes())
        pieces = [_fields(raw) for raw in parts.get(1, [])]
        trainer, normalizer = _fields(parts[2][0]), _fields(parts[3][0])
        kind = trainer.get(3, [1])[0]
        tokens = Tokens("llama", "default")
        tokens.prefix = bool(normalizer.get(3, [1])[0])
        for number, piece in enumerate(pieces):
            score = _float(piece[2][0]) if 2 in piece else 0.0
            tokens.put(number, piece[1][0].decode("utf-8"), _TYPES[piece.get(3, [1])[0]], score)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError, OSError) as error:
        raise CorruptFile(f"{path} is not a SentencePiece model.", "Fetch the file again.") from error
    if kind != _BPE:
        raise UnsupportedModel("The tokenizer is of SentencePiece's kind unigram, which is not written.", _HINT)
    if normalizer.get(2, [b""])[0]:
        tokens.notes.append("llama.cpp does not put letters into one form before it cuts text, as this tokenizer does.")
    tokens.added = added
    for item in added:
        tokens.put(item.number, item.text, item.kind, ADDED_SCORE)
    _check_bytes(tokens)
    return tokens


def _space_prefix(tokenizer: dict[str, Any]) -> tuple[bool, list[str]]:
    """Return whether the normalizer or the pre-tokenizer adds a space before the text, and notes."""
    steps = _flat(tokenizer.get("normalizer"), "normalizers")
    cuts = _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    prefix, replaced, notes = False, False, list[str]()
    for step in steps:
        if step.get("type") == "Prepend" and step.get("prepend") == BLANK and not replaced:
            prefix = True
        elif step.get("type") == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == BLANK:
            replaced = True
        else:
            raise UnsupportedModel(
                f"The tokenizer changes text by {str(step.get('type'))[:40]} before splitting it; llama.cpp does not.",
                _HINT,
            )
    for cut in cuts:
        if cut.get("type") == "Metaspace" and not replaced and cut.get("replacement") == BLANK:
            if cut.get("split", True) and any(BLANK in text[1:] for text in tokenizer["model"]["vocab"]):
                raise UnsupportedModel("The tokenizer splits text at spaces, which llama.cpp does not support.", _HINT)
            scheme = cut.get("prepend_scheme", "always")
            prefix, replaced = scheme != "never", True
            if scheme != "never":
                notes.append(
                    "Unlike this tokenizer, llama.cpp adds a space to text after a special token or before spaces."
                )
        elif not (cut.get("type") == "Split" and cut.get("pattern") == {"String": " "} and replaced):
            # This step has no effect: all spaces are replaced by then.
            raise UnsupportedModel(
                f"The tokenizer splits text with {str(cut.get('type'))[:40]}, which llama.cpp does not support.", _HINT
            )
    if not replaced:
        raise UnsupportedModel("The tokenizer does not replace spaces as SentencePiece does.", _HINT)
    return prefix, notes


def _flat(value: Any, inside: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if value.get("type") == "Sequence":
        return [step for item in value.get(inside) or [] for step in _flat(item, inside)]
    return [value]


def _scores(model: dict[str, Any]) -> dict[str, float]:
    """Return the score of each token that merges form, which decreases with the rank of its first merge.

    Raises:
        UnsupportedModel: the merges of a token are not consecutive, so that one score cannot represent them.
    """
    scores: dict[str, float] = {}
    last = ""
    for merge in model["merges"]:
        left, right = _pair(merge)
        made = left + right
        if made == last:
            continue
        if made not in scores:
            scores[made] = float(-len(scores))
        elif len(set(made)) > 1:
            raise UnsupportedModel("The tokenizer's merges are not those of a SentencePiece model.", _HINT)
        # Runs of one character (Gemma's spaces and line ends) are merged from the left in both cases, longest first.
        last = made if len(set(made)) > 1 else last
    return scores


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge if isinstance(merge, list) else merge.split(" ")
    return left, right


def _put_added(tokens: Tokens, item: Added, merged: bool) -> None:
    if merged and BLANK in item.text and not item.special:
        # Runs of spaces: merges produce them after normalization; the text before it does not contain the token.
        return
    text = item.text.replace(BLANK, " ") if item.normalized else item.text
    tokens.put(item.number, text, item.kind, ADDED_SCORE)


def _check_bytes(tokens: Tokens) -> None:
    """Check that all byte tokens exist: llama.cpp falls back to them and aborts if one is missing."""
    found = {text for text, kind in zip(tokens.texts, tokens.kinds, strict=True) if kind == TokenType.BYTE}
    if any(f"<0x{byte:02X}>" not in found for byte in range(256)):
        raise UnsupportedModel("The tokenizer has no tokens for single bytes, which llama.cpp falls back to.", _HINT)


def _check_merges(tokens: Tokens, scores: dict[str, float], model: dict[str, Any]) -> None:
    """Check that every pair of tokens that forms a token is a merge, as llama.cpp assumes."""
    merges = {_pair(merge) for merge in model["merges"]}
    vocab = model["vocab"]
    for text, kind in zip(tokens.texts, tokens.kinds, strict=True):
        if kind != TokenType.NORMAL or text is None or len(text) < 2:
            continue
        for at in range(1, len(text)):
            if text[:at] in vocab and text[at:] in vocab and (text[:at], text[at:]) not in merges:
                raise UnsupportedModel(
                    f"The tokenizer never joins {text[:at]!r:.40} and {text[at:]!r:.40}, and llama.cpp would.", _HINT
                )


def _fields(raw: bytes) -> dict[int, list[Any]]:
    """Return the fields of a protobuf message by number: ints, and bytes for texts, messages and 32-bit floats.

    Format: https://protobuf.dev/programming-guides/encoding/
    """
    found: dict[int, list[Any]] = {}
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, position = _varint(raw, position)
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, position = _varint(raw, position)
            value, position = raw[position : position + length], position + length
            if position > len(raw):
                raise ValueError("the message is truncated")
        else:
            raise ValueError(f"fields of the wire type {kind} are not supported")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while shift < 64:
        byte = raw[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number has more than 64 bits")


def _float(raw: bytes) -> float:
    return float(struct.unpack("<f", raw)[0])
