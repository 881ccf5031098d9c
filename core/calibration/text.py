"""Sources of calibration text: the bundled text, a local file, or a data set on the Hub.

Parses and checks a calibration argument and yields the documents of its source. Does not tokenize.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.calibration import files, hub
from core.calibration.documents import Document, from_record
from core.errors import BadCalibration, CorruptFile
from core.events import Emit, Event
from core.files import expanded, read_json
from core.recipes import RESOURCES

BUILTIN = "builtin"
DEFAULT_DATASET = "NeelNanda/pile-10k"
BLOCK_CHARS = 8000
"""Default size of a document of plain text, in characters: about 2,000 tokens of English."""
BREAK = "====="
"""Separator line between documents in the bundled texts."""
_BUNDLE = RESOURCES / "calibration"
_NOVELS_WEIGHT = 1.0
_VARIED_WEIGHT = 12.0
"""Weight of everything but the novels, which is a twelfth of the bundled text: a small run draws novels, articles,
conversations and code in about equal parts, and a large run draws everything."""
_SUFFIXES = (".txt", ".text", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".log", ".gz")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_PATH_START = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
_CHECK_CHARS = 1 << 25


@dataclass(frozen=True)
class CalibrationSource:
    """A parsed calibration argument.

    Attributes:
        kind: `builtin`, `file` or `hub`.
        label: The argument as given.
        path: Path of the file, if `kind` is `file`.
        dataset: Id of the data set, if `kind` is `hub`.
        options: Options of the data set, if `kind` is `hub`; see `core.calibration.hub.OPTIONS`.
    """

    kind: str
    label: str
    path: Path = Path()
    dataset: str = ""
    options: dict[str, str] = field(default_factory=dict)


def parse(calibration: str) -> CalibrationSource:
    """Parse a calibration argument.

    `builtin` is the bundled text. An argument that exists as a file, has the suffix of a text or data file, or starts
    with `.`, `/`, `~` or a drive letter is a path. Anything else is a data set on the Hub, as `ID` or
    `ID:split=train:name=CONFIG:field=NAME:revision=SHA`.

    Raises:
        BadCalibration: The argument has an unknown option, or is neither a path nor the id of a data set.
    """
    if calibration == BUILTIN:
        return CalibrationSource(BUILTIN, BUILTIN)
    if not calibration.strip() or "\0" in calibration:
        raise BadCalibration("No calibration text is specified.", "Use `builtin`, a file, or the id of a data set.")
    path = _expanded(calibration)
    if _PATH_START.match(calibration) or path.suffix.lower() in _SUFFIXES or _exists(path):
        return CalibrationSource("file", calibration, path=path)
    dataset, *pairs = calibration.split(":")
    if not _HUB_ID.fullmatch(dataset):
        raise BadCalibration(
            f"The calibration file {calibration} does not exist.", "Check the path, or use `builtin` or a data set id."
        )
    return CalibrationSource("hub", calibration, dataset=dataset, options=_options(dataset, pairs))


def check(calibration: str) -> None:
    """Check a calibration argument before any expensive work.

    Reads at most about 32 million characters of a file; later parts are checked when they are drawn. Does not send
    requests to the Hub.

    Raises:
        BadCalibration: See `documents`.
    """
    source = parse(calibration)
    if source.kind == "hub":
        return
    seen = 0
    for document in records(source, _silent):
        seen += len(document.text) + sum(len(content) for _, content in document.messages)
        if seen > _CHECK_CHARS:
            return


def documents(calibration: str, emit: Emit) -> Iterator[str]:
    """Yield the plain text of each document, in the order of the source; a Hub data set is shuffled with seed 0.

    Raises:
        BadCalibration: The source does not exist, is empty, damaged or not text, or has no field with text.
        HubUnreachable: The Hub did not respond within about 15 seconds, or denied access.
    """
    for document in records(parse(calibration), emit):
        yield document.plain()


def records(source: CalibrationSource, emit: Emit, block_chars: int = BLOCK_CHARS, seed: int = 0) -> Iterator[Document]:
    """Return an iterator over the documents of a source; conversations are not converted to plain text.

    Args:
        source: A parsed calibration argument.
        emit: Receives warnings.
        block_chars: Maximum number of characters of a document of plain text; longer texts are cut.
        seed: Random seed of the order of a Hub data set.

    Raises:
        BadCalibration: See `documents`.
        HubUnreachable: See `documents`.
    """
    if source.kind == BUILTIN:
        return bundled(_BUNDLE)
    if source.kind == "file":
        return files.read(source.path, block_chars, emit)
    return hub.read(source.dataset, source.options, seed, emit)


def bundled(folder: Path) -> Iterator[Document]:
    """Yield the documents in a folder of bundled texts: `*.txt` with separators between documents, then `chat.json`.

    Raises:
        CorruptFile: `chat.json` has a record without text.
    """
    for path in sorted(folder.glob("*.txt")):
        weight = _NOVELS_WEIGHT if path.stem == "novels" else _VARIED_WEIGHT
        for passage in path.read_text(encoding="utf-8").split(f"\n{BREAK}\n"):
            yield Document(text=passage.strip("\n"), weight=weight)
    chat = folder / "chat.json"
    for record in read_json(chat) if chat.is_file() else []:
        document = from_record(record)
        if document is None:
            raise CorruptFile(f"{chat} has a record without text.", "Reinstall Bitwright.")
        yield replace(document, weight=_VARIED_WEIGHT)


def _options(dataset: str, pairs: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in hub.OPTIONS or not value:
            raise BadCalibration(
                f"{pair!r} is not an option of a data set.",
                f"Use the form {dataset}:split=train:name=CONFIG. Options: {', '.join(hub.OPTIONS)}.",
            )
        options[key] = value
    return options


def _expanded(calibration: str) -> Path:
    try:
        return expanded(calibration)
    except RuntimeError:  # ~name, without such a user
        return Path(calibration)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a file name
        return False


def _silent(event: Event) -> None:
    """Ignore an event."""
