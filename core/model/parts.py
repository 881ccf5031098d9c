"""Names of the parts of a split GGUF file, as llama.cpp's gguf-split writes them."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final, TypeVar

_PART: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)
_MAX_PARTS: Final = 1 << 12


_P = TypeVar("_P", bound=PurePath)


def parts_of(path: _P) -> list[_P]:
    """Return the paths of all parts of a split file from the path of one; `[path]` for any other file name."""
    found = _PART.fullmatch(path.name)
    if found is None or not 1 <= int(found[2]) <= int(found[3]) <= _MAX_PARTS:
        return [path]
    count = int(found[3])
    return [path.with_name(f"{found[1]}-{number:05d}-of-{count:05d}{found[4]}") for number in range(1, count + 1)]


def whole_name(name: str) -> str:
    """Return a file name without its part number."""
    found = _PART.fullmatch(name)
    return name if found is None else found[1] + found[4]
