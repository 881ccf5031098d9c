"""The small files of a model that go along unchanged: tokenizer, templates, processors, generation config, licence.

Knows file names only; weights, code, the source's own card and what an output writes anew are left behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import OutputProblem

_CARRIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab")
_TEMPLATES = "additional_chat_templates"
_LEGAL = ("license", "licence", "notice", "use_policy", "copying")
_WRITTEN_ANEW = ("config.json", "quantization_config.json", "quantize_config.json", "bitwright.json")


def carry_over(source: Path, target: Path, *, legal_only: bool = False) -> None:
    """Copy the side files of the model in `source` into `target`; hidden files and other folders stay.

    Args:
        legal_only: just the licence and its like, for an output that has everything else inside.

    Raises:
        OutputProblem: one cannot be copied.
    """
    for path in sorted([*source.iterdir(), *(source / _TEMPLATES).glob("*")]):
        relative = path.relative_to(source)
        if not path.is_file() or path.name.startswith("."):
            continue
        if not (_is_legal(path) or (not legal_only and _wanted(path))):
            continue
        destination = target / relative
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
        except OSError as error:
            problem = f"{path.name} could not be copied: {error.strerror}."
            raise OutputProblem(problem, "Check room and rights.") from error


def _is_legal(path: Path) -> bool:
    return path.stem.lower().startswith(_LEGAL) and path.suffix.lower() in ("", ".txt", ".md", ".pdf", ".rst", ".html")


def _wanted(path: Path) -> bool:
    return path.suffix in _CARRIED and path.name not in _WRITTEN_ANEW and not path.name.endswith(".index.json")
