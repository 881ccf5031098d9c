"""Tokens that end an answer: of the tokenizer, of the generation config, of the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.inference.generation.turn_ends import end_tokens


class Tokenizer:
    """What is asked of one."""

    eos_token_id: Any = 2
    chat_template = "<|im_start|>{{ messages }}<|im_end|>"

    def get_added_vocab(self) -> dict[str, int]:
        return {"<|im_start|>": 8, "<|im_end|>": 9, "<|end|>": 10, "<|eot_id|>": 11}


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, {2, 9}), ('{"eos_token_id": [3, 4]}', {2, 3, 4, 9}), ('{"eos_token_id": 5}', {2, 5, 9}), ("{", {2, 9})],
)
def test_ends_are_gathered(tmp_path: Path, text: str | None, expected: set[int]) -> None:
    if text is not None:
        (tmp_path / "generation_config.json").write_text(text)
    assert end_tokens(Tokenizer(), tmp_path) == expected


@pytest.mark.parametrize(("template", "expected"), [("<|end|>", {2, 10}), ("<|channel|>a<|end|>", {2})])
def test_a_part_of_an_answer_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, expected: set[int]
) -> None:
    monkeypatch.setattr(Tokenizer, "chat_template", template)
    assert end_tokens(Tokenizer(), tmp_path) == expected


def test_a_tokenizer_without_an_end_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "eos_token_id", None)
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    assert end_tokens(Tokenizer(), tmp_path) == frozenset()
