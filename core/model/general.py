"""What a model says about itself besides its shape: licence, tags, languages, name, base models.

Under the keys that GGUF has for it (without `general.`), out of the metadata of a GGUF file that the folder was made
of, or out of the block above a model card. Knows no weights and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import BitwrightError
from core.files import read_json, write_json

FILE: Final = "gguf_general.json"
"""In the folder of an imported GGUF file: its own words, which no card has."""

_CARD: Final = "README.md"
_CARD_BYTES: Final = 1 << 16
_TEXT_CHARS, _TEXTS = 4096, 256
_OWN: Final = frozenset({
    "architecture", "type", "alignment", "file_type", "quantization_version", "quantized_by", "size_label",
    "parameter_count",
})  # fmt: skip
"""What is of one file only, or follows from its tensors."""
_HUB: Final = "https://huggingface.co/"
Facts = dict[str, str | int | list[str]]


def facts_in_header(metadata: Mapping[str, Any]) -> Facts:
    """Return what the metadata of a GGUF file say of the model, ready for another file."""
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
    """Keep the facts of a GGUF file in the folder that it is imported to."""
    if facts:
        write_json(folder / FILE, facts)


def read_facts(folder: Path) -> Facts:
    """Return what a model folder says of its model; {} where it says nothing that can be read."""
    if (folder / FILE).is_file():
        try:
            value = read_json(folder / FILE)
        except BitwrightError:
            return {}
        kept = value if isinstance(value, dict) else {}
        return facts_in_header({f"general.{key}": item for key, item in kept.items()})
    return _of_card(_front_matter(folder / _CARD))


def _front_matter(path: Path) -> dict[str, Any]:
    """The metadata of a model card, {} where there are none."""
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
    """A text, or the texts of a list, of a reasonable length and number."""
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items[:_TEXTS] if isinstance(item, str) and 0 < len(item.strip()) <= _TEXT_CHARS]
