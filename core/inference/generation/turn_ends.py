"""End tokens of a model, collected from all places in which transformers and llama.cpp look for them.

The places are the tokenizer, generation_config.json, config.json, and known texts in the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.model.tokenizer import END_MARKS, hidden_ids

_IF_SPECIAL: Final = frozenset({"</s>", "<eos>", "[EOS]", "[EOT]"})
"""Texts that end an answer only as special tokens: in some vocabularies they are ordinary text, such as HTML tags."""

_PART_ENDS: Final = frozenset({"<|channel|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>"})
"""Tokens of formats with channels (gpt-oss, Solar Open), in which `<|end|>` only ends a part of an answer."""

_NESTED: Final = ("decoder", "generator", "text_config")
"""Sections of config.json in which transformers looks for the settings of the language model."""


def end_tokens(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Return the ids of the tokens that end an answer.

    These are the tokenizer's `eos_token`, `eot_token` and `eom_token`; the tokens in generation_config.json, or in
    config.json if the former has none, as in transformers' `generate` (vllm-project/vllm#5954); and the tokens of the
    vocabulary with one of the texts in `END_MARKS`.
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
    """Return the end tokens of generation_config.json, or else of config.json, in their order."""
    if found := _numbers(_read(folder / "generation_config.json").get("eos_token_id")):
        return found
    config = _read(folder / "config.json")
    parts = [config, *(config.get(name) for name in _NESTED)]
    named = (_numbers(part.get("eos_token_id")) for part in parts if isinstance(part, dict))
    return next((numbers for numbers in named if numbers), ())


def _numbers(value: Any) -> tuple[int, ...]:
    """Return the token ids in a config value: an integer or a list of integers; anything else is ignored."""
    return tuple(each for each in (value if isinstance(value, list) else [value]) if type(each) is int and each >= 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
