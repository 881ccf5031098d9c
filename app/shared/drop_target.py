"""Interpretation of a dropped or opened path, link or name: a model, a recipe or a bits map.

Looks at names and reads small JSON files. Depends on QtCore only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

from PySide6.QtCore import QMimeData

from app.shared.models.name import model_name
from core.errors import BadInput
from core.model_id import DEMO
from core.recipes import Recipe

_LARGEST_JSON: Final = 8_000_000
_QUANT_CONFIGS: Final = ("quantize_config.json", "quantization_config.json", "quant_config.json")
"""Files beside `config.json` in which other programs store the quantization settings of a checkpoint."""
_MAP_KEYS: Final = {"default", "rules", "layers"}

Kind = Literal["model", "recipe", "map"]


@dataclass(frozen=True)
class DropTarget:
    """The kind of a dropped item, and the name of the model or the path of the recipe or bits map in `value`."""

    kind: Kind
    value: str


def words_of(mime: QMimeData) -> str:
    """Return the only path or link in dragged data; "" if there is none or more than one."""
    if mime.hasUrls():
        urls = mime.urls()
        if len(urls) != 1:
            return ""
        return urls[0].toLocalFile() if urls[0].isLocalFile() else urls[0].toString()
    text = mime.text().strip() if mime.hasText() else ""
    return text if _is_link(text) else ""


def target_of(words: str) -> DropTarget:
    """Return the meaning of a path, a link or a name; a name that is no file counts as a model.

    Raises:
        BadInput: Bitwright cannot open it.
    """
    if _is_link(words):
        name = model_name(words)
        if _is_link(name) or "/" not in name:
            raise BadInput("This link is not the address of a model.", "Copy the address of a model's page on the Hub.")
        return DropTarget("model", name)
    path = Path(words)
    suffix = path.suffix.lower()
    if words == DEMO or path.is_dir() or suffix == ".gguf" or not path.exists():
        return DropTarget("model", words)
    if suffix == ".safetensors":
        return DropTarget("model", str(path.parent))
    if suffix == ".json":
        return _json_target(path)
    raise BadInput(
        f"Bitwright cannot open {path.name or words}.",
        "Supported are model folders, .gguf files, links to models on the Hub, recipes and bits maps.",
    )


def checkpoint_of(words: str) -> Path | None:
    """Return the folder of a quantized checkpoint, given the folder or a config file in it; None for other paths."""
    path = Path(words)
    folder = path.parent if path.name in ("config.json", *_QUANT_CONFIGS) else path
    try:
        if not words or not folder.is_dir() or not (folder / "config.json").is_file():
            return None
        if any((folder / name).is_file() for name in _QUANT_CONFIGS):
            return folder
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return folder if isinstance(value, dict) and value.get("quantization_config") else None


def is_map(words: str) -> bool:
    """Return whether a path is a bits map, or a checkpoint with quantization settings."""
    if checkpoint_of(words) is not None:
        return True
    if not words.lower().endswith(".json"):
        return False
    try:
        return target_of(words).kind == "map"
    except BadInput:
        return False


def _is_link(text: str) -> bool:
    return text.startswith(("https://", "http://")) and len(text.split()) == 1


def _json_target(path: Path) -> DropTarget:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large for a recipe or a bits map")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path.name} cannot be read as JSON.", "Open a recipe or a bits map that was saved by Bitwright."
        ) from error
    keys = set(value) if isinstance(value, dict) else set()
    if keys & _MAP_KEYS:
        return DropTarget("map", str(path))
    if keys and keys <= {field.name for field in fields(Recipe)}:
        return DropTarget("recipe", str(path))
    if path.name == "config.json" and "model_type" in keys:
        return DropTarget("model", str(path.parent))
    raise BadInput(f"{path.name} is neither a recipe nor a bits map.", "Open a .json file that was saved by Bitwright.")
