"""Which tokens end an answer, from what a model folder says of it. Knows no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

USUAL: Final = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
)
"""Ends of a turn in chat formats. Some models name only the end of a document, and would then talk to themselves."""
_CHANNELS: Final = "<|channel|>"
"""In formats with channels, `<|end|>` ends a part of an answer only."""


def end_tokens(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Tokens that end an answer: of the tokenizer, of generation_config.json, and ends of turns in the template."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, _configured(folder / "generation_config.json")):
        found.update(each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int))
    template = str(getattr(tokenizer, "chat_template", None) or "")
    added = tokenizer.get_added_vocab()
    for word in USUAL:
        if word in added and word in template and not (word == "<|end|>" and _CHANNELS in template):
            found.add(added[word])
    return frozenset(found)


def _configured(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return None
