"""Tests of the end tokens from the tokenizer, from the configs, and by their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.inference.generation.turn_ends import end_tokens
from core.model.tokenizer import END_MARKS


class Tokenizer:
    """The attributes of a tokenizer that `end_tokens` uses."""

    def __init__(self, words: dict[str, int], end: Any = 2, special: tuple[int, ...] = (), **named: str) -> None:
        self.words, self.eos_token_id, self.all_special_ids = words, end, list(special)
        self.added_tokens_decoder: dict[int, Any] = {}
        for name, word in named.items():
            setattr(self, name, word)

    def get_vocab(self) -> dict[str, int]:
        return self.words


def ends(folder: Path, tokenizer: Tokenizer, config: Any = None, generation: Any = None) -> set[int]:
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        if value is not None:
            (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return set(end_tokens(tokenizer, folder))


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (None, None, {2}),
        (None, {"eos_token_id": [3, 4]}, {2, 3, 4}),
        (None, {"eos_token_id": 5}, {2, 5}),
        (None, "{", {2}),
        ({"eos_token_id": [2, 6]}, None, {2, 6}),
        ({"eos_token_id": 6}, {"temperature": 1}, {2, 6}),
        ({"text_config": {"eos_token_id": [7, 8]}}, None, {2, 7, 8}),
        ({"eos_token_id": None, "text_config": {"eos_token_id": 7}}, None, {2, 7}),
        # transformers reads config.json only if generation_config.json has no end token: it may be a class's default
        ({"eos_token_id": 9}, {"eos_token_id": 5}, {2, 5}),
        ({"eos_token_id": ["x", True, -1, 3.0, 6]}, None, {2, 6}),
        ([1], [2], {2}),
    ],
)
def test_end_tokens_are_read_from_the_configs(tmp_path: Path, config: Any, generation: Any, expected: set[int]) -> None:
    assert ends(tmp_path, Tokenizer({}), config, generation) == expected


@pytest.mark.parametrize("word", sorted(END_MARKS))
def test_a_token_with_a_known_text_ends_an_answer(tmp_path: Path, word: str) -> None:
    assert ends(tmp_path, Tokenizer({"a": 0, word: 9})) == {2, 9}


@pytest.mark.parametrize(("special", "expected"), [((), {2}), ((5,), {2, 5})])
def test_an_ambiguous_text_counts_only_as_a_special_token(
    tmp_path: Path, special: tuple[int, ...], expected: set[int]
) -> None:
    assert ends(tmp_path, Tokenizer({"</s>": 5}, special=special)) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"<|end|>": 9}, {2, 9}),
        ({"<|end|>": 9, "<|channel|>": 8}, {2}),
        ({"<|end|>": 9, "<|return|>": 10, "<|call|>": 11}, {2, 10, 11}),
    ],
)
def test_the_end_of_a_channel_is_no_end_token(tmp_path: Path, words: dict[str, int], expected: set[int]) -> None:
    assert ends(tmp_path, Tokenizer(words)) == expected


def test_the_tokenizer_s_end_of_turn_token_counts(tmp_path: Path) -> None:
    assert ends(tmp_path, Tokenizer({"<over>": 7}, eot_token="<over>")) == {2, 7}


@pytest.mark.parametrize(("end", "expected"), [(None, set()), ([3, 4], {3, 4})])
def test_a_tokenizer_may_have_no_or_several_end_tokens(tmp_path: Path, end: Any, expected: set[int]) -> None:
    assert ends(tmp_path, Tokenizer({}, end)) == expected
