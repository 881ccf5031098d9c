"""The small files of a model that go along unchanged: tokenizer, templates, generation config, licence.

Knows file names only; weights, code and what an output writes anew are left behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import OutputProblem

_CARRIED = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_TEMPLATES = "additional_chat_templates"
_LEGAL = ("license", "licence", "notice")
_WRITTEN_ANEW = ("config.json", "quantization_config.json", "quantize_config.json", "bitwright.json")


def carry_over(source: Path, target: Path) -> None:
    """Copy the side files of the model in `source` into `target`; hidden files and other folders stay."""
    for path in sorted([*source.iterdir(), *(source / _TEMPLATES).glob("*")]):
        relative = path.relative_to(source)
        if not path.is_file() or path.name.startswith(".") or not _wanted(path):
            continue
        destination = target / relative
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
        except OSError as error:
            problem = f"{path.name} could not be copied: {error.strerror}."
            raise OutputProblem(problem, "Check room and rights.") from error


def _wanted(path: Path) -> bool:
    if path.stem.lower().startswith(_LEGAL):
        return True
    return path.suffix in _CARRIED and path.name not in _WRITTEN_ANEW and not path.name.endswith(".index.json")
