"""Tests of incremental decoding against decoding of all tokens at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from core.inference.generation.pieces import Pieces
from core.model.tokenizer import load_tokenizer
from tests.core.tiny_model import save_model

BAD = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_model(tmp_path_factory.mktemp("pieces") / "model"))


@pytest.fixture(scope="module")
def spaced() -> Any:
    """A tokenizer like Llama 2's: a word's token includes its leading space, dropped at the start; bytes are tokens."""
    words = {"<unk>": 0, "</s>": 1, "\u2581the": 2, "\u2581end": 3, "s": 4, "\u2581": 5}
    words |= {f"<0x{byte:02X}>": 6 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def decoded(tokenizer: Any, ids: list[int], **options: Any) -> list[str]:
    pieces = Pieces(tokenizer, **options)
    return [*map(pieces.feed, ids), pieces.flush()]


@given(text=st.text(max_size=40))
def test_decoding_inverts_encoding(byte_level: Any, text: str) -> None:
    ids = byte_level(text, add_special_tokens=False)["input_ids"]
    assert "".join(decoded(byte_level, ids)) == text


@given(ids=st.lists(st.integers(1, 256), max_size=40))
def test_invalid_bytes_are_replaced(byte_level: Any, ids: list[int]) -> None:
    whole = byte_level.decode(ids)
    found = "".join(decoded(byte_level, ids))
    # The number of replacement characters for a run of invalid bytes may differ.
    assert [part for part in found.split(BAD) if part] == [part for part in whole.split(BAD) if part]


def test_a_character_of_several_tokens_is_emitted_with_the_last(byte_level: Any) -> None:
    ids = byte_level("a\N{SNOWMAN}", add_special_tokens=False)["input_ids"]
    assert decoded(byte_level, ids) == ["a", "", "", "\N{SNOWMAN}", ""]


def test_an_incomplete_character_at_the_end_is_dropped(byte_level: Any) -> None:
    ids = byte_level("a\N{SNOWMAN}", add_special_tokens=False)["input_ids"]
    assert "".join(decoded(byte_level, ids[:-1])) == "a"


def test_special_tokens_have_no_text(byte_level: Any) -> None:
    ids = byte_level("ab", add_special_tokens=False)["input_ids"]
    assert decoded(byte_level, [ids[0], 0, ids[1]]) == ["a", "", "b", ""]


def test_a_shown_special_token_has_text(byte_level: Any) -> None:
    assert decoded(byte_level, [0], shown=("<eos>",)) == ["<eos>", ""]


def test_a_word_after_another_keeps_its_space(spaced: Any) -> None:
    assert decoded(spaced, [2, 3, 4]) == ["the", " end", "s", ""]


def test_a_continued_text_keeps_the_space_of_its_first_word(spaced: Any) -> None:
    assert decoded(spaced, [3], before=[2]) == [" end", ""]


def test_byte_tokens_are_joined_to_characters(spaced: Any) -> None:
    ids = [2, *(6 + byte for byte in "\N{SNOWMAN}".encode()), 3]
    assert "".join(decoded(spaced, ids)) == "the\N{SNOWMAN} end"


def test_the_cost_of_a_token_does_not_grow_with_the_text(byte_level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    pieces = Pieces(byte_level)
    decode = pieces._decode

    def counted(ids: list[int]) -> str:
        seen.append(len(ids))
        return decode(ids)

    monkeypatch.setattr(pieces, "_decode", counted)
    for _ in range(500):
        pieces.feed(70)
        pieces.feed(200)  # never a complete character
    assert max(seen) < 20


def test_a_slow_tokenizer_is_supported(tmp_path: Path) -> None:
    """A tokenizer without a fast backend decodes with its own method."""

    class Slow:
        all_special_ids = (0,)
        added_tokens_decoder: ClassVar[dict[int, Any]] = {}

        def get_added_vocab(self) -> dict[str, int]:
            return {}

        def decode(self, ids: list[int], **_options: Any) -> str:
            return "".join(map(chr, ids))

    assert decoded(Slow(), [104, 0, 105]) == ["h", "", "i", ""]


def test_a_shown_mark_that_is_not_in_the_vocabulary_is_ignored(spaced: Any) -> None:
    """A tokenizer returns the id of its unknown token for a text that it does not have."""
    assert decoded(spaced, [0, 2], shown=["<think>"]) == ["", "the", ""]
