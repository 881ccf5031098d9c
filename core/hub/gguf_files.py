"""Choice of one GGUF model among the files of a Hub repository, by its type: `owner/name:Q4_K_M`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from core.errors import BadInput, UnsupportedModel
from core.model.parts import parts_of, whole_name

_OTHERS: Final = ("mmproj", "imatrix")
"""Words in the names of GGUF files that are not language models."""
_TYPE: Final = re.compile(r"(?:UD[-_])?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4\w*|BF16|F16|F32)\Z", re.IGNORECASE)
_SHOWN: Final = 30


def split_type(model: str) -> tuple[str, str]:
    """Return the repository and the GGUF type of a model on the Hub; the type is "" if it has none."""
    repository, _, kind = model.partition(":")
    return repository, kind


def has_gguf(names: Sequence[str]) -> bool:
    """Return whether there is a GGUF model among the files of a repository."""
    return bool(_models(names))


def gguf_files(names: Sequence[str], repository: str, kind: str) -> list[str]:
    """Return the GGUF files of one model, the first part first.

    Args:
        names: of the files of the repository, with their folders.
        repository: for messages.
        kind: type at the end of the file name, such as `Q4_K_M`, or the whole name without suffix; "" if the repository
            has a single model.

    Raises:
        BadInput: no model or several models match.
        UnsupportedModel: there is no GGUF model, or parts of it are missing.
    """
    models = _models(names)
    if not models:
        raise UnsupportedModel(f"{repository} contains no GGUF model.", f"Remove :{kind} from the name.")
    matching = {name: parts for name, parts in models.items() if not kind or _matches(name, kind)}
    if len(matching) != 1:
        listed = _types(matching or models)
        shown = ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
        if matching:
            problem = f"{repository} contains {len(matching)} GGUF models: {shown}."
        else:
            problem = f"{repository} contains no GGUF model of the type {kind}, but {shown}."
        raise BadInput(problem, f"Add the type to the name, such as {repository}:{listed[0]}")
    (parts,) = matching.values()
    missing = [name for name in parts if name not in names]
    if missing:
        raise UnsupportedModel(f"{repository} lacks {missing[0]}.", "Choose another file or repository.")
    return parts


def _models(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the name of each model without part number and suffix -> its files."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() == ".gguf" and not any(word in path.name.lower() for word in _OTHERS):
            whole = PurePosixPath(whole_name(path.name)).stem
            parts = [part.as_posix() for part in parts_of(path)]
            found.setdefault((path.parent / whole).as_posix(), parts)
    return found


def _matches(model: str, kind: str) -> bool:
    stem = PurePosixPath(model).name
    return bool(re.search(rf"(?:\A|[-._]){re.escape(kind)}\Z", stem, re.IGNORECASE))


def _types(models: Iterable[str]) -> list[str]:
    """Return the type of each model, or its whole name if types are not unique."""
    stems = [PurePosixPath(model).name for model in models]
    found = [match[0] if (match := _TYPE.search(stem)) else stem for stem in stems]
    return found if len(set(found)) == len(found) else stems
