"""The tokens that end an answer, from everything that transformers and llama.cpp read about them.

Reads generation_config.json and config.json of a model folder and asks its tokenizer; knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.model.tokenizer import END_MARKS, hidden_ids

_IF_SPECIAL: Final = frozenset({"</s>", "<eos>", "[EOS]", "[EOT]"})
"""The same, but only as special tokens: in some vocabularies they are ordinary text, such as a tag of HTML."""

_PART_ENDS: Final = frozenset({"<|channel|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>"})
"""Tokens of formats with channels (gpt-oss, Solar Open), where `<|end|>` ends a part of an answer only."""

_NESTED: Final = ("decoder", "generator", "text_config")
"""Parts of a config that transformers looks into for a language model's own settings."""


def end_tokens(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Return the ids of the tokens that end an answer.

    These are the tokenizer's own (`eos_token`, and `eot_token` and `eom_token` where it has them), those that
    generation_config.json names, or config.json where the former names none, as in transformers' `generate`
    (vllm-project/vllm#5954), and the tokens of the vocabulary with one of the `END_MARKS` texts.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    found = set(_numbers(tokenizer.eos_token_id))
    for name in ("eot_token", "eom_token"):
        word = getattr(tokenizer, name, None)
        found.update(_numbers(vocabulary.get(str(word)) if word else None))
    found.update(configured_ends(folder))
    special = hidden_ids(tokenizer)
    channels = "<|channel|>" in vocabulary or len(_PART_ENDS & vocabulary.keys()) > 1
    for word in END_MARKS & vocabulary.keys():
        if word != "<|end|>" or not channels:
            found.add(vocabulary[word])
    found.update(vocabulary[word] for word in _IF_SPECIAL & vocabulary.keys() if vocabulary[word] in special)
    return frozenset(found)


def configured_ends(folder: Path) -> tuple[int, ...]:
    """Return the end tokens that generation_config.json names, or else config.json, in their order there."""
    if found := _numbers(_read(folder / "generation_config.json").get("eos_token_id")):
        return found
    config = _read(folder / "config.json")
    parts = [config, *(config.get(name) for name in _NESTED)]
    named = (_numbers(part.get("eos_token_id")) for part in parts if isinstance(part, dict))
    return next((numbers for numbers in named if numbers), ())


def _numbers(value: Any) -> tuple[int, ...]:
    """The token ids in a value of a config: one, a list of them, or anything else."""
    return tuple(each for each in (value if isinstance(value, list) else [value]) if type(each) is int and each >= 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
