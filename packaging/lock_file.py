"""Reader and writer of lock files: the exact version of every package and the SHA-256 hashes of its wheels.

There is one lock file for each minor version of Python, created by `packaging/make_locks.py`. Standard library only.

An entry is a comment with the parts of Bitwright that need the package, then a requirement in pip's format:

    # base, lm-eval
    tqdm==4.70.1 \\
        --hash=sha256:...

`base` is needed by every installation and `cuda` by torch's CUDA build on Linux; every other part is an extra of
pyproject.toml. The word `source` after the parts marks a package without wheels, which must be built.
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
    """A package in a lock file.

    Attributes:
        parts: parts of Bitwright that need the package.
        source: whether there are no wheels, so that the hash is that of the source archive.
        requirement: lines for pip with name, version, marker and hashes.
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
        OSError: the file cannot be read.
        ValueError: an entry is not in the format described above.
    """
    _, *texts = path.read_text(encoding="utf-8").split("\n\n")
    return [_entry(text) for text in texts if text.strip()]


def _entry(text: str) -> Entry:
    comment, _, requirement = text.strip().partition("\n")
    parts = comment.removeprefix("# ").removesuffix(_SOURCE)
    if not comment.startswith("# ") or "==" not in requirement or "--hash=sha256:" not in requirement:
        raise ValueError(f"invalid entry in a lock file: {text[:80]!r}")
    return Entry(frozenset(parts.split(", ")), comment.endswith(_SOURCE), requirement)


def select(entries: Iterable[Entry], parts: Iterable[str], *, source: bool) -> str:
    """Return a requirements file with the entries needed by `parts`: source packages or wheels."""
    wanted = set(parts)
    chosen = [item.requirement for item in entries if item.parts & wanted and item.source is source]
    return "".join(f"{requirement}\n" for requirement in chosen)


def write(path: Path, entries: Iterable[Entry], header: str) -> None:
    """Write a lock file that starts with the comment `header`."""
    texts = [
        f"# {', '.join(sorted(item.parts))}{_SOURCE if item.source else ''}\n{item.requirement}"
        for item in sorted(entries, key=lambda item: item.requirement)
    ]
    path.write_text("\n\n".join([header.rstrip("\n"), *texts]) + "\n", encoding="utf-8")
