"""Reads a lock file: the exact version of every package and the SHA-256 of each of its wheels, one file for each minor
version of Python. `packaging/make_locks.py` writes them. Standard library only; installs nothing.

An entry is a comment that names the parts of Bitwright that need the package, then a requirement in pip's own notation:

    # base, lm-eval
    tqdm==4.70.1 \\
        --hash=sha256:...

`base` is what every installation needs and `cuda` what torch's CUDA build needs on Linux; every other part is an extra
of pyproject.toml. The word `source` behind the parts marks a package that
is published without wheels and has to be built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "locks"
BASE = "base"
CUDA = "cuda"
_SOURCE = " (source)"


@dataclass(frozen=True)
class Entry:
    """One package of a lock file.

    Attributes:
        parts: the parts of Bitwright that need it.
        source: there are no wheels; the hash is that of the source archive.
        requirement: the lines for pip: name, version, marker and hashes.
    """

    parts: frozenset[str]
    source: bool
    requirement: str

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2].split()[0]


def path_for(version: tuple[int, int] = sys.version_info[:2]) -> Path:
    """Return the path of the lock file for a minor version of Python; it need not exist."""
    return FOLDER / f"python{version[0]}.{version[1]}.txt"


def read(path: Path) -> list[Entry]:
    """Return the entries of a lock file.

    Raises:
        OSError: it cannot be read.
        ValueError: an entry is not in the notation above.
    """
    _, *texts = path.read_text(encoding="utf-8").split("\n\n")
    return [_entry(text) for text in texts if text.strip()]


def _entry(text: str) -> Entry:
    comment, _, requirement = text.strip().partition("\n")
    parts = comment.removeprefix("# ").removesuffix(_SOURCE)
    if not comment.startswith("# ") or "==" not in requirement or "--hash=sha256:" not in requirement:
        raise ValueError(f"not an entry of a lock file: {text[:80]!r}")
    return Entry(frozenset(parts.split(", ")), comment.endswith(_SOURCE), requirement)


def select(entries: Iterable[Entry], parts: Iterable[str], *, source: bool) -> str:
    """Return the requirements file with the entries that any of `parts` needs, built ones or wheels."""
    wanted = set(parts)
    chosen = [item.requirement for item in entries if item.parts & wanted and item.source is source]
    return "".join(f"{requirement}\n" for requirement in chosen)


def write(path: Path, entries: Iterable[Entry], header: str) -> None:
    """Write a lock file; `header` is the comment at its top."""
    texts = [
        f"# {', '.join(sorted(item.parts))}{_SOURCE if item.source else ''}\n{item.requirement}"
        for item in sorted(entries, key=lambda item: item.requirement)
    ]
    path.write_text("\n\n".join([header.rstrip("\n"), *texts]) + "\n", encoding="utf-8")
