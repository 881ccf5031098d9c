"""Pairs of pictures and text for calibration: a folder of pictures with captions, or a JSON lines file.

In a folder, the text for `a.jpg` is in `a.txt`, or in a line of `metadata.jsonl` with the field `file_name`. A line of
a JSON lines file has a picture (`image`, `images`, `picture`, `file_name`, ...), and a conversation or a text in the
fields that calibration texts use as well. Paths are relative to the folder of the file. Does not open pictures.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.calibration.documents import Document, from_record
from core.errors import BadCalibration

PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of picture files."""
QUESTION: Final = "Describe this picture."
"""Question of a pair that has a caption only."""
_FIELDS: Final = ("image", "images", "picture", "pictures", "image_path", "file_name", "file", "img")
_METADATA: Final = "metadata.jsonl"
_MARKS: Final = ("<image>", "<|image|>", "<image_placeholder>")
"""Marks of pictures in the texts of data sets such as LLaVA's; the processor puts those of the model instead."""
_MOST: Final = 100_000
_HINT: Final = "Give a folder of pictures with a .txt file for each, or a .jsonl file with the fields image and text."


@dataclass(frozen=True)
class PicturePair:
    """Pictures and a conversation about them.

    Attributes:
        pictures: paths of files; they belong to the first question.
        messages: (role, text) of each turn.
    """

    pictures: tuple[Path, ...]
    messages: tuple[tuple[str, str], ...]


def read_pairs(path: Path, count: int, seed: int) -> list[PicturePair]:
    """Return at most `count` pairs, drawn at random.

    Raises:
        BadCalibration: the path does not exist, cannot be read, or has no pair of a picture and a text.
    """
    try:
        if path.is_dir():
            metadata = path / _METADATA
            pairs = list(_from_lines(metadata) if metadata.is_file() else _from_folder(path))
        elif path.is_file():
            pairs = list(_from_lines(path))
        else:
            raise BadCalibration(f"{path} does not exist.", _HINT)
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise BadCalibration(f"{path} is not UTF-8 text.", _HINT) from error
    if not pairs:
        raise BadCalibration(f"{path} has no pair of a picture and a text.", _HINT)
    random.Random(seed).shuffle(pairs)
    return pairs[:count]


def _from_folder(folder: Path) -> Iterator[PicturePair]:
    """Yield the pictures of a folder that have a caption in a .txt file of the same name."""
    for picture in sorted(folder.iterdir()):
        caption = picture.with_suffix(".txt")
        if picture.suffix.lower() in PICTURES and caption.is_file():
            text = caption.read_text(encoding="utf-8").strip()
            if text:
                yield PicturePair((picture,), (("user", QUESTION), ("assistant", text)))


def _from_lines(path: Path) -> Iterator[PicturePair]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if number > _MOST:
                return
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadCalibration(f"Line {number} of {path} is not JSON.", _HINT) from error
            pair = _from_record(record, path.parent)
            if pair is not None:
                yield pair


def _from_record(record: Any, folder: Path) -> PicturePair | None:
    """Return the pair of a record; None if it has no picture or no text."""
    if not isinstance(record, Mapping):
        return None
    given = next((record[field] for field in _FIELDS if record.get(field)), None)
    names = [name for name in (given if isinstance(given, list) else [given]) if isinstance(name, str) and name]
    document = from_record({key: value for key, value in record.items() if key not in _FIELDS} | _caption(record))
    if not names or document is None:
        return None
    messages = _messages(document)
    return PicturePair(tuple(folder / name for name in names), messages) if messages else None


def _caption(record: Mapping[str, Any]) -> dict[str, Any]:
    caption = record.get("caption")
    return {"text": caption} if isinstance(caption, str) and "text" not in record else {}


def _messages(document: Document) -> tuple[tuple[str, str], ...]:
    """Return the turns of a document from its first question on, without marks of pictures."""
    if not document.messages:
        return (("user", QUESTION), ("assistant", _unmarked(document.text)))
    roles = [role for role, _ in document.messages]
    if "user" not in roles:
        return ()
    return tuple((role, _unmarked(text)) for role, text in document.messages)


def _unmarked(text: str) -> str:
    for mark in _MARKS:
        text = text.replace(mark, "")
    return text.strip()
