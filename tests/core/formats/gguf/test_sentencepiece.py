"""SentencePiece vocabularies: scores out of merges, and tokenizer.model."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import TokenType

from core.errors import CorruptFile, UnsupportedModel
from core.formats.gguf.sentencepiece import from_json
from core.formats.gguf.tokenizer import tokenizer
from tests.core.formats.gguf import families


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | float) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model(pieces: list[tuple[str, float, int]], kind: int = 2, prefix: int = 1, charsmap: bytes = b"") -> bytes:
    """A SentencePiece model: pieces with scores and types; kind 1 is unigram, 2 BPE."""
    data = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + (field(3, type_) if type_ != 1 else b""))
        for text, score, type_ in pieces
    )
    data += field(2, field(3, kind) + field(4, 1000))
    return data + field(3, field(1, b"identity") + (field(2, charsmap) if charsmap else b"") + field(3, prefix))


PIECES = [
    ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
    ("▁the", -1.5, 1), ("x", -3.0, 1),
]  # fmt: skip


def said(folder: Path, data: bytes, **settings: Any) -> dict[str, Any]:
    families.save_json(folder, {}, **({"bos_token": "<s>", "eos_token": "</s>"} | settings))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(data)
    return {entry.key.removeprefix("tokenizer.ggml."): entry.value for entry in tokenizer(folder, {}, 280, "m").entries}


def test_the_scores_follow_the_merges() -> None:
    value = families.sentencepiece_json()
    found = from_json(value)
    scores = dict(zip(found.texts, found.scores, strict=True))
    made = list(dict.fromkeys(left + right for left, right in value["model"]["merges"]))
    assert sorted(made, key=lambda text: -scores[text]) == made


def test_tokens_have_types() -> None:
    found = from_json(families.sentencepiece_json(gemma=True))
    kinds = dict(zip(found.texts, found.kinds, strict=True))
    assert [kinds[text] for text in ("<unk>", "<s>", "<0x0A>", "a", "\n\n", "<|user|>")] == [
        TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE, TokenType.NORMAL, TokenType.USER_DEFINED,
        TokenType.CONTROL,
    ]  # fmt: skip
    # Runs of blanks are merged like other tokens: text holds blanks, not what stands for them.
    assert kinds["▁▁"] == TokenType.NORMAL


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_pre_tokenizer_may_replace_spaces(scheme: str) -> None:
    value = families.sentencepiece_json() | {"normalizer": None}
    value["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    found = from_json(value)
    assert found.prefix is (scheme != "never")
    assert bool(found.notes) is (scheme != "never")


def merged(merges: list[list[str]]) -> dict[str, Any]:
    value = families.sentencepiece_json()
    value["model"]["merges"] = merges
    return value


def test_a_pair_that_is_never_joined_is_refused() -> None:
    merges = [merge for merge in families.sentencepiece_json()["model"]["merges"] if merge != ["i", "n"]]
    with pytest.raises(UnsupportedModel, match="never joins 'i' and 'n'"):
        from_json(merged(merges))


def test_merges_of_one_token_that_lie_apart_are_refused() -> None:
    merges = families.sentencepiece_json()["model"]["merges"]
    first = next(i for i, merge in enumerate(merges) if "".join(merge) == "▁the")
    with pytest.raises(UnsupportedModel, match="not those of a SentencePiece model"):
        from_json(merged([merges[first], *merges[:first], *merges[first + 1 :]]))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"normalizer": None}, "does not replace spaces"),
        ({"normalizer": {"type": "NFKC"}}, "changes text by NFKC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits text with Whitespace"),
        ({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "split": True}}, "at spaces"),
    ],
)
def test_other_rules_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(UnsupportedModel, match=match):
        from_json(families.sentencepiece_json() | values)


def test_without_tokens_for_bytes_it_is_refused() -> None:
    value = families.sentencepiece_json()
    value["model"]["vocab"] = {text.replace("<0x0A>", "zz"): n for text, n in value["model"]["vocab"].items()}
    with pytest.raises(UnsupportedModel, match="single bytes"):
        from_json(value)


def test_sentencepiece_s_own_file_is_read(tmp_path: Path) -> None:
    found = said(tmp_path, model(PIECES))
    assert found["model"] == "llama"
    assert found["tokens"][259:261] == ["▁the", "x"]
    assert found["scores"][259:261] == [-1.5, -3.0]
    assert found["token_type"][:4] == [2, 3, 3, 6]
    assert (found["add_space_prefix"], found["add_bos_token"], found["add_eos_token"]) == (True, True, False)
    assert (found["bos_token_id"], found["eos_token_id"]) == (1, 2)


def test_settings_change_the_prefix_of_texts(tmp_path: Path) -> None:
    found = said(tmp_path, model(PIECES, prefix=0), add_bos_token=False)
    assert (found["add_space_prefix"], found["add_bos_token"]) == (False, False)


def test_added_tokens_come_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "added_tokens.json").write_text('{"<a>": 262}', encoding="utf-8")
    found = said(tmp_path, model(PIECES), added_tokens_decoder={"261": {"content": "<|user|>", "special": True}})
    assert found["tokens"][261:263] == ["<|user|>", "<a>"]
    assert found["token_type"][261:263] == [TokenType.CONTROL, TokenType.USER_DEFINED]


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="unigram"):
        said(tmp_path, model(PIECES, kind=1))


def test_changing_letters_is_noted(tmp_path: Path) -> None:
    said(tmp_path, model(PIECES, charsmap=b"x"))
    assert "one form" in tokenizer(tmp_path, {}, 280, "m").notes[0]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_truncated_file_is_an_error(tmp_path: Path, cut: int) -> None:
    whole = model(PIECES)
    with pytest.raises((CorruptFile, UnsupportedModel)):
        said(tmp_path, whole[: len(whole) * cut // 60])


def test_random_bytes_are_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="not a SentencePiece model"):
        said(tmp_path, b"\xff" * 100)
