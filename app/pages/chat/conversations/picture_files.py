"""The pictures of saved conversations: copies in a folder of their own, named by their content.

A message contains the paths of its copies, so a conversation does not depend on the files that the user attached. A
copy that no conversation mentions is removed. Does not depend on Qt; called in a background thread.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, OutputProblem
from core.home import home
from core.pictures.sources import MAX_BYTES
from core.private_files import private_folder, write_private

PICTURES: Final = "pictures"
SUFFIXES: Final = {
    "png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif", "bmp": ".bmp", "tiff": ".tiff", "avif": ".avif",
    "ppm": ".ppm", "ico": ".ico",
}  # fmt: skip
"""File suffix of each supported format, by the name in its media type."""

_ALIASES: Final = {"jpg": "jpeg", "tif": "tiff"}
_MOST_NAME_BYTES: Final = 120
_STORED: Final = re.compile(r"([0-9a-f]{64})-([\w .()+-]{1,120}\.(?:png|jpg|webp|gif|bmp|tiff|avif|ppm|ico))")
_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_URI: Final = re.compile(r"data:image/([a-z]+)(?:;name=([^;,]*))?;base64,(.*)", re.DOTALL)


class PictureFiles:
    """The copies of attached pictures in a folder, which is created with the first of them."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "conversations" / PICTURES

    def put(self, data: bytes, name: str, format: str) -> Path:
        """Copy a picture and return the path of the copy; equal content and name give the same file.

        Args:
            data: content of the file; name: its name, for display; format: one of SUFFIXES.

        Raises:
            OutputProblem: the folder is not writable.
        """
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}-{_clean(name)}{SUFFIXES[format]}"
        try:
            private_folder(self.folder)
            if path.is_file() and path.stat().st_size == len(data):
                os.utime(path)  # `sweep` keeps recent copies
            else:
                write_private(path, data)
        except OSError as error:
            raise OutputProblem(
                f"The picture cannot be copied to {self.folder}: {error.strerror}.",
                "Free disk space or check the permissions.",
            ) from error
        return path

    def path(self, stored: str) -> str:
        """Return the absolute path of a copy with the name `stored`.

        Raises:
            ValueError: no copy can have this name.
        """
        if not _STORED.fullmatch(stored):
            raise ValueError("a message has a picture with an unknown form")
        return str(self.folder / stored)

    def sweep(self, conversations: list[Path], days: float) -> None:
        """Remove copies that are older than `days` and that none of the files `conversations` mentions.

        Unreadable conversations count: their text is searched, too. If one cannot be opened, nothing is removed.
        """
        limit = time.time() - days * 86_400
        with contextlib.suppress(OSError):
            old = [path for path in self.folder.iterdir() if _STORED.fullmatch(path.name)]
            old = [path for path in old if path.stat().st_mtime < limit]
            used: set[bytes] = set()
            for conversation in conversations if old else ():
                used.update(_HASH.findall(conversation.read_bytes()))
            for path in old:
                if path.name[:64].encode() not in used:
                    path.unlink()


def display_name(path: str) -> str:
    """Return the name of a picture for display: that of the attached file, without the hash of its copy."""
    if path.startswith("data:"):
        return "picture"
    name = Path(path).name
    found = _STORED.fullmatch(name)
    return found[2] if found else name


def embed(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a conversation (`json_format.to_json`) with pictures as data URIs; a missing one keeps its name."""
    return _replaced(value, lambda stored: _data_uri(folder / stored))


def extract(value: Any, files: PictureFiles) -> Any:
    """Return a conversation in which each data URI is a copy in `files`; the opposite of `embed`.

    Messages of other programs, a list or in `messages`, may have pictures as parts of their content, as in the OpenAI
    API.

    Raises:
        CorruptFile: a picture is not a valid data URI.
        OutputProblem: a picture cannot be written.
    """
    if isinstance(value, list):
        return extract({"messages": value}, files)["messages"]
    return _replaced(value, lambda picture: _copied(picture, files)) if isinstance(value, dict) else value


def _replaced(value: dict[str, Any], change: Any) -> dict[str, Any]:
    entries = value.get("messages")
    if not isinstance(entries, list):
        return value
    messages = []
    for entry in entries:
        entry = _joined(entry) if isinstance(entry, dict) and isinstance(entry.get("content"), list) else entry
        pictures = entry.get("pictures") if isinstance(entry, dict) else None
        if isinstance(pictures, list):
            entry = {**entry, "pictures": [change(each) if isinstance(each, str) else each for each in pictures]}
        messages.append(entry)
    return {**value, "messages": messages}


def _joined(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list of parts as one with `pictures` and a text."""
    texts, pictures = [], []
    for part in entry["content"]:
        kind = part.get("type") if isinstance(part, dict) else None
        address = part.get("image_url") if kind == "image_url" else None
        uri = address.get("url") if isinstance(address, dict) else address
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(uri, str) and uri.startswith("data:"):
            pictures.append(uri)
        else:
            raise CorruptFile("A message in this file has parts that are neither text nor contained pictures.",
                              "Choose another file.")  # fmt: skip
    return {**entry, "content": "\n\n".join(texts), "pictures": pictures}


def _data_uri(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError:
        return path.name
    name = display_name(str(path))
    kind = next((format for format, suffix in SUFFIXES.items() if suffix == path.suffix), "png")
    return f"data:image/{kind};name={name};base64,{base64.b64encode(data).decode('ascii')}"


def _copied(picture: str, files: PictureFiles) -> str:
    if not picture.startswith("data:"):
        return picture
    found = _URI.fullmatch(picture)
    kind = _ALIASES.get(found[1], found[1]) if found is not None else ""
    if found is None or kind not in SUFFIXES:
        raise CorruptFile("A picture in this file has an unknown form.", "Choose another file.")
    try:
        data = base64.b64decode(found[3], validate=True)
    except binascii.Error as error:
        raise CorruptFile("A picture in this file is damaged.", "Choose another file.") from error
    if len(data) > MAX_BYTES:
        raise CorruptFile(f"A picture in this file has more than {MAX_BYTES >> 20} MB.", "Choose another file.")
    return files.put(data, found[2] or "picture", kind).name


def _clean(name: str) -> str:
    """Return the stem of a file name with the characters that every file system and a data URI accept."""
    stem = Path(name).stem
    kept = "".join(letter if re.fullmatch(r"[\w .()+-]", letter) else " " for letter in stem)
    short = " ".join(kept.split()).encode("utf-8", errors="ignore")[:_MOST_NAME_BYTES].decode("utf-8", errors="ignore")
    return short.strip(" .") or "picture"
