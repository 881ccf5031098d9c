"""Where calibration text comes from: bundled, a local file, or a data set on the Hub.

Finds and checks the source and yields its documents; knows nothing of tokens or models.
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
"""Plain text is cut into documents of about this size (2,000 tokens of English)."""
BREAK = "====="
"""A line that ends a document in the bundled texts."""
_BUNDLE = RESOURCES / "calibration"
_NOVELS_WEIGHT = 1.0
_VARIED_WEIGHT = 12.0
"""The varied passages are a twelfth of the bundled text; drawn this much earlier, a small run sees novels,
articles, talk and code in about equal parts, and a large one sees everything."""
_SUFFIXES = (".txt", ".text", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".log", ".gz")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_PATH_START = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
_CHECK_CHARS = 1 << 25


@dataclass(frozen=True)
class CalibrationSource:
    """A calibration argument, taken apart.

    Attributes:
        kind: `builtin`, `file` or `hub`.
        label: what the user wrote.
        path: of a file.
        dataset, options: id and options of a data set on the Hub.
    """

    kind: str
    label: str
    path: Path = Path()
    dataset: str = ""
    options: dict[str, str] = field(default_factory=dict)


def parse(calibration: str) -> CalibrationSource:
    """What a calibration argument means.

    `builtin` is the bundled text. Anything that exists, has the suffix of a text or data file, or starts with
    `.`, `/`, `~` or a drive is a path. The rest is `ID` or `ID:split=train:name=CONFIG:field=NAME:revision=SHA`.

    Raises:
        BadCalibration: an unknown option, or neither a path nor an id.
    """
    if calibration == BUILTIN:
        return CalibrationSource(BUILTIN, BUILTIN)
    if not calibration.strip() or "\0" in calibration:
        raise BadCalibration("No calibration text is named.", "Use `builtin`, a file, or a data set id.")
    path = _expanded(calibration)
    if _PATH_START.match(calibration) or path.suffix.lower() in _SUFFIXES or _exists(path):
        return CalibrationSource("file", calibration, path=path)
    dataset, *pairs = calibration.split(":")
    if not _HUB_ID.fullmatch(dataset):
        raise BadCalibration(
            f"There is no calibration file {calibration}.", "Check the path, or use `builtin` or a data set id."
        )
    return CalibrationSource("hub", calibration, dataset=dataset, options=_options(dataset, pairs))


def check(calibration: str) -> None:
    """Refuse, before any heavy work, what cannot be calibration text. Data sets on the Hub are not asked for.

    Reads at most about 32 million characters of a file: later parts are judged when they are drawn.

    Raises:
        BadCalibration: as `documents`.
    """
    source = parse(calibration)
    if source.kind == "hub":
        return
    seen = 0
    for document in records(source, _silent):
        seen += len(document.text) + sum(len(said) for _, said in document.messages)
        if seen > _CHECK_CHARS:
            return


def documents(calibration: str, emit: Emit) -> Iterator[str]:
    """The plain text of each document, in the source's order (a Hub data set's is shuffled, with seed 0).

    Raises:
        BadCalibration: nothing there, not text, broken, empty, or without a field that holds text.
        HubUnreachable: the Hub does not answer within about 15 seconds, or refuses.
    """
    for document in records(parse(calibration), emit):
        yield document.plain()


def records(source: CalibrationSource, emit: Emit, block_chars: int = BLOCK_CHARS, seed: int = 0) -> Iterator[Document]:
    """The documents of a source, conversations kept as such.

    Args:
        block_chars: plain text is cut into documents of at most so many characters.
        seed: order in which a Hub data set is read.

    Raises:
        as `documents`.
    """
    if source.kind == BUILTIN:
        return bundled(_BUNDLE)
    if source.kind == "file":
        return files.read(source.path, block_chars, emit)
    return hub.read(source.dataset, source.options, seed, emit)


def bundled(folder: Path) -> Iterator[Document]:
    """The documents of a folder of bundled texts: `*.txt` with breaks between documents, then `chat.json`."""
    for path in sorted(folder.glob("*.txt")):
        weight = _NOVELS_WEIGHT if path.stem == "novels" else _VARIED_WEIGHT
        for passage in path.read_text(encoding="utf-8").split(f"\n{BREAK}\n"):
            yield Document(text=passage.strip("\n"), weight=weight)
    chat = folder / "chat.json"
    for record in read_json(chat) if chat.is_file() else []:
        document = from_record(record)
        if document is None:
            raise CorruptFile(f"{chat} has a record without text.", "Install Bitwright again.")
        yield replace(document, weight=_VARIED_WEIGHT)


def _options(dataset: str, pairs: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in hub.OPTIONS or not value:
            raise BadCalibration(
                f"{pair!r} is not an option of a data set.",
                f"Write {dataset}:split=train:name=CONFIG; the options are {', '.join(hub.OPTIONS)}.",
            )
        options[key] = value
    return options


def _expanded(calibration: str) -> Path:
    try:
        return expanded(calibration)
    except RuntimeError:  # ~name of nobody here
        return Path(calibration)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long to be a file
        return False


def _silent(event: Event) -> None:
    """Drop an event."""
