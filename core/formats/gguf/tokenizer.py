"""The tokenizer of a model folder as metadata of a GGUF file: tokens, special tokens, chat templates.

Reads tokenizer.json (or SentencePiece's tokenizer.model), tokenizer_config.json, generation_config.json and the
templates beside them, without running any code of the model.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from gguf.constants import GGUFValueType

from core.errors import CorruptFile, UnsupportedModel
from core.files import read_json
from core.formats.gguf import sentencepiece
from core.formats.gguf.byte_level import byte_level, is_byte_level
from core.formats.gguf.file import Entry
from core.formats.gguf.vocabulary import Tokens, added_tokens
from core.model.tokenizer import END_MARKS, MAX_BYTES
from core.model.towers import text_config

_KEYS: Final = {
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "sep": "seperator_token_id",
    "pad": "padding_token_id", "mask": "mask_token_id",
}  # fmt: skip
"""Metadata keys of llama.cpp, in its spelling, by the names of special tokens in transformers."""

_EOS: Final = "eos_token_id"
_MESSAGE_END: Final = "<|eom_id|>"

_NAMES: Final = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "generation_config.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_PHI3: Final = re.compile("(phi)-?3", re.IGNORECASE)
_KEEPING: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as metadata of a file.

    Attributes:
        entries: metadata.
        notes: for the user, one sentence each.
        name: `general.name` of the model, by which llama.cpp detects Phi-3, whose special tokens strip whitespace.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    name: str


def tokenizer(folder: Path, config: Mapping[str, Any], rows: int, name: str) -> Vocabulary:
    """Return the tokenizer of a model.

    Args:
        folder: with the tokenizer's files.
        config: of the model, for special tokens that the tokenizer does not define.
        rows: of the embedding; unused tokens are added up to this number.
        name: of the model.

    Raises:
        UnsupportedModel: a tokenizer, or a detail of one, that llama.cpp does not have.
        CorruptFile: its files are invalid or contradict each other.
    """
    stamps = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder))
    named = [(kind, _first(text_config(config).get(f"{kind}_token_id"))) for kind in _KEYS]
    named += [(kind, _first(config.get(f"{kind}_token_id"))) for kind in _KEYS]
    named += [("ends", number) for part in (text_config(config), config) for number in _whole(part.get(_EOS))]
    return _tokenizer(folder, stamps, tuple((kind, number) for kind, number in named if number is not None), rows, name)


@lru_cache(maxsize=2)
def _tokenizer(
    folder: Path, stamps: tuple[Any, ...], named: tuple[tuple[str, int], ...], rows: int, name: str
) -> Vocabulary:
    """Implement `tokenizer` with a cache: a large vocabulary takes seconds, and every output plan needs it."""
    settings = _read(folder / "tokenizer_config.json") or {}
    try:
        tokens, post = _tokens(folder, settings)
        tokens.close(rows)
        numbers = _special(folder, tokens, settings, named)
        entries = [
            *tokens.entries(),
            *(Entry.count(f"tokenizer.ggml.{_KEYS.get(kind, f'{kind}_token_id')}", numbers[kind]) for kind in numbers),
            *_begin_and_end(tokens, numbers, settings, post),
            *_templates(folder, settings),
        ]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise CorruptFile(
            f"The tokenizer in {folder} is not a valid tokenizer of transformers.", "Download the model again."
        ) from error
    name, notes = _name_for_stripping(tokens, name)
    return Vocabulary(tuple(entries), (*tokens.notes, *notes), name)


def _files(folder: Path) -> list[Path]:
    """Return all files that a tokenizer is read from."""
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    return found + sorted((folder / "additional_chat_templates").glob("*.jinja"))


def _name_for_stripping(tokens: Tokens, name: str) -> tuple[str, list[str]]:
    """Return the name of the model with which llama.cpp strips whitespace after special tokens as needed, and notes.

    llama.cpp has no metadata key for this: if the name of a model contains Phi-3, all special tokens except three strip
    the whitespace after them (llama-vocab.cpp, "set attributes by model/tokenizer/architecture name"), and loading
    fails if one of these is missing.
    """
    stripping = {item.text for item in tokens.added if item.strips[1]}
    others = {item.text for item in tokens.added} - _KEEPING
    named = {"</s>", *_KEEPING} <= set(tokens.texts)
    if stripping and named and stripping >= others and not stripping & _KEEPING:
        return (name if _PHI3.search(name) else f"{name} (Phi-3)"), []
    lost = sorted(stripping | {item.text for item in tokens.added if item.strips[0]})
    notes = [f"llama.cpp keeps the whitespace beside {lost[0]}, which this tokenizer strips."] if lost else []
    return _PHI3.sub(r"\1 3", name), notes


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path, limit=MAX_BYTES)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} is not a JSON object.", "Download the file again.")
    return value


def _tokens(folder: Path, settings: dict[str, Any]) -> tuple[Tokens, Any]:
    """Return the tokens, and the special tokens that tokenizer.json adds around a text."""
    fast = _read(folder / "tokenizer.json")
    if fast is not None and is_byte_level(fast):
        return byte_level(fast), fast.get("post_processor")
    if fast is not None:
        return sentencepiece.from_json(fast), fast.get("post_processor")
    model = folder / "tokenizer.model"
    if not model.is_file():
        raise UnsupportedModel(
            f"{folder} has neither tokenizer.json nor tokenizer.model.",
            "Add the files of the tokenizer to the folder of the model.",
        )
    listed = _read(folder / "added_tokens.json") or {}
    added = {int(number): {"content": text} for text, number in listed.items()}
    described = settings.get("added_tokens_decoder") or {}
    added |= {int(number): value for number, value in described.items()}
    return sentencepiece.from_model(model, added_tokens([value | {"id": id} for id, value in added.items()])), None


def _special(
    folder: Path, tokens: Tokens, settings: dict[str, Any], named: tuple[tuple[str, int], ...]
) -> dict[str, int]:
    """Return the special tokens by name, from the tokenizer, config.json or generation_config.json, in this order."""
    generation = _read(folder / "generation_config.json") or {}
    found: dict[str, int] = {}
    for kind in _KEYS:
        text = settings.get(f"{kind}_token")
        text = text.get("content") if isinstance(text, dict) else text
        numbers = [tokens.number(text) if isinstance(text, str) else None]
        numbers += [number for other, number in named if other == kind]
        numbers.append(_first(generation.get(f"{kind}_token_id")))
        number = next((number for number in numbers if number is not None), None)
        if number is not None and 0 <= number < len(tokens.texts):
            found[kind] = number
    if "eos" not in found:
        raise UnsupportedModel(
            "Neither tokenizer_config.json nor config.json defines the end-of-text token.",
            "Add eos_token to tokenizer_config.json.",
        )
    ends = _whole(generation.get(_EOS)) or [number for kind, number in named if kind == "ends"]
    return found | _more_ends(tokens, found["eos"], list(dict.fromkeys(ends)))


def _more_ends(tokens: Tokens, eos: int, ends: list[int]) -> dict[str, int]:
    """Return the other tokens that end an answer, under the two keys that llama.cpp has for them.

    llama.cpp detects common end tokens by their text, so a key is only needed for a single other one.
    """
    others = [number for number in ends if number != eos and 0 <= number < len(tokens.texts)]
    unknown = [number for number in others if tokens.texts[number] not in END_MARKS]
    if unknown[2:]:
        said = tokens.texts[unknown[2]]
        tokens.notes.append(f"llama.cpp does not end answers at {said!r:.40}, but this model does.")
    if not unknown and len(others) == 1:
        return {"eom" if tokens.texts[others[0]] == _MESSAGE_END else "eot": others[0]}
    return dict(zip(("eot", "eom"), unknown, strict=False))


def _whole(value: Any) -> list[int]:
    """Return the token ids in a value of a config: an id, a list of ids, or anything else."""
    return [each for each in (value if isinstance(value, list) else [value]) if type(each) is int]


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, list) and value else value
    return value if type(value) is int else None


def _begin_and_end(tokens: Tokens, numbers: dict[str, int], settings: dict[str, Any], post: Any) -> list[Entry]:
    """Return whether text begins with BOS and ends with EOS, from tokenizer.json or else from the settings."""
    first, last = _around(post)
    by_default = tokens.model == "llama" and post is None
    begins = settings.get("add_bos_token", by_default) if post is None else first is not None
    ends = settings.get("add_eos_token", False) if post is None else last is not None
    for kind, text in (("bos", first), ("eos", last)):
        if text is not None and tokens.number(text) != numbers.get(kind):
            raise UnsupportedModel(
                f"The tokenizer adds {text[:40]!r} to texts; llama.cpp supports only the {kind} token there.",
                "Choose another format, such as auto_round.",
            )
    return [
        Entry.flag("tokenizer.ggml.add_bos_token", bool(begins) and "bos" in numbers),
        Entry.flag("tokenizer.ggml.add_eos_token", bool(ends)),
    ]


def _around(post: Any) -> tuple[str | None, str | None]:
    """Return the special tokens that a post-processor adds before and after a text."""
    if post is None:
        return None, None
    if post.get("type") == "Sequence":
        pairs = [_around(item) for item in post.get("processors") or []]
        return next((a for a, _ in pairs if a), None), next((b for _, b in pairs if b), None)
    if post.get("type") != "TemplateProcessing":
        return None, None
    pieces = [(item.get("SpecialToken") or {}).get("id") for item in post["single"]]
    at = pieces.index(None)
    before, behind = pieces[:at], pieces[at + 1 :]
    if len(before) > 1 or len(behind) > 1:
        raise UnsupportedModel(
            "The tokenizer adds more than one token before or after a text; llama.cpp supports only one.",
            "Choose another format, such as auto_round.",
        )
    return (before or [None])[0], (behind or [None])[0]


def _templates(folder: Path, settings: dict[str, Any]) -> list[Entry]:
    """Return the metadata of the chat templates: the default one, and others by name."""
    named: dict[str, str] = {}
    inside = settings.get("chat_template")
    if isinstance(inside, str):
        named["default"] = inside
    elif isinstance(inside, list):
        named.update((str(item["name"]), str(item["template"])) for item in inside)
    legacy = _read(folder / "chat_template.json")
    if legacy and isinstance(legacy.get("chat_template"), str):
        named.setdefault("default", legacy["chat_template"])
    # If both exist, transformers uses the file.
    if (folder / "chat_template.jinja").is_file():
        named["default"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = path.read_text(encoding="utf-8")
    entries = []
    others = {re.sub(r"[^A-Za-z0-9]", "_", name): text for name, text in named.items() if name != "default"}
    entries += [Entry.text(f"tokenizer.chat_template.{name}", text) for name, text in others.items()]
    if others:
        entries.append(Entry.list_of("tokenizer.chat_templates", GGUFValueType.STRING, sorted(others)))
    if "default" in named:
        entries.append(Entry.text("tokenizer.chat_template", named["default"]))
    return entries
