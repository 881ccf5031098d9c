"""Descriptive metadata of a model: license, tags, languages, name and base models.

The keys are those of GGUF without the prefix `general.`. The values are read from the metadata of the GGUF file that a
folder was imported from, or from the YAML block at the start of a model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import BitwrightError
from core.files import read_json, write_json

FILE: Final = "gguf_general.json"
"""File in the folder of an imported GGUF file that stores its descriptive metadata."""

_CARD: Final = "README.md"
_CARD_BYTES: Final = 1 << 16
_TEXT_CHARS, _TEXTS = 4096, 256
_OWN: Final = frozenset({
    "architecture", "type", "alignment", "file_type", "quantization_version", "quantized_by", "size_label",
    "parameter_count",
})  # fmt: skip
"""Keys that belong to one file only, or follow from its tensors."""
_HUB: Final = "https://huggingface.co/"
Facts = dict[str, str | int | list[str]]


def facts_in_header(metadata: Mapping[str, Any]) -> Facts:
    """Return the descriptive entries in the metadata of a GGUF file that also hold for a file derived from it."""
    found: Facts = {}
    for key, value in metadata.items():
        name = key.removeprefix("general.")
        if name == key or name in _OWN:
            continue
        text = isinstance(value, str) and 0 < len(value) <= _TEXT_CHARS
        texts = isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
        count = name.endswith(".count") and type(value) is int and 0 <= value < 1 << 16
        if text or texts or count:
            found[name] = value
    return found


def write_facts(folder: Path, facts: Facts) -> None:
    """Store the descriptive metadata of a GGUF file in the folder that it is imported to."""
    if facts:
        write_json(folder / FILE, facts)


def read_facts(folder: Path) -> Facts:
    """Return the descriptive metadata of the model in a folder; {} if there is none or it cannot be read."""
    if (folder / FILE).is_file():
        try:
            value = read_json(folder / FILE)
        except BitwrightError:
            return {}
        kept = value if isinstance(value, dict) else {}
        return facts_in_header({f"general.{key}": item for key, item in kept.items()})
    return _of_card(_front_matter(folder / _CARD))


def _front_matter(path: Path) -> dict[str, Any]:
    """Return the metadata of a model card; {} if there is none."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        with path.open("rb") as stream:
            text = stream.read(_CARD_BYTES).decode("utf-8", "replace").replace("\r\n", "\n").removeprefix("\ufeff")
    except OSError:
        return {}
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        return {}
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(block.group(2))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_card(card: Mapping[str, Any]) -> Facts:
    """Translate the metadata of a model card to the keys of GGUF."""
    found: Facts = {}
    for key, name in (
        ("license", "license"), ("license_name", "license.name"), ("license_link", "license.link"),
        ("model_name", "name"), ("author", "author"), ("model_creator", "author"),
    ):  # fmt: skip
        if texts := _texts(card.get(key)):
            found.setdefault(name, texts[0])
    for keys, name in ((("tags", "pipeline_tag"), "tags"), (("language", "languages"), "languages")):
        texts = [text for key in keys for text in _texts(card.get(key))]
        if texts:
            found[name] = list(dict.fromkeys(texts))
    bases = _texts(card.get("base_model"))
    if bases:
        found["base_model.count"] = len(bases)
    for number, base in enumerate(bases):
        organization, _, name = base.rpartition("/")
        found[f"base_model.{number}.name"] = name
        if organization and not organization.startswith((".", "/")):
            found[f"base_model.{number}.organization"] = organization
            found[f"base_model.{number}.repo_url"] = f"{_HUB}{base}"
    return found


def _texts(value: Any) -> list[str]:
    """Return a string, or the strings of a list, as a list limited in number; strings that are too long are dropped."""
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items[:_TEXTS] if isinstance(item, str) and 0 < len(item.strip()) <= _TEXT_CHARS]
