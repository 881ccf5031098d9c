"""The bytes of a picture: from a file or a `data:` URI, with a limit on their number. Nothing is downloaded."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from typing import Final

from core.errors import BadInput

MAX_BYTES: Final = 64 << 20
"""Largest picture file that is read."""
_DATA: Final = "data:"
_SCHEMES: Final = ("http:", "https:", "ftp:", "file:")
_SHOWN: Final = 60


def is_data_uri(source: str) -> bool:
    """Return whether a picture is given as a `data:` URI."""
    return source[: len(_DATA)].lower() == _DATA


def is_address(source: str) -> bool:
    """Return whether a picture is given by an address, which is not supported."""
    return source.lower().startswith(_SCHEMES)


def name_of(source: str) -> str:
    """Return the name of a picture for messages: the file name, or a description of a `data:` URI."""
    if is_data_uri(source):
        return "The picture"
    name = os.path.basename(source.rstrip("/\\")) or source
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}..."


def read_picture(source: str) -> bytes:
    """Return the bytes of a picture.

    Args:
        source: path of a file, or `data:image/...;base64,...`.

    Raises:
        BadInput: it is neither, is too large or empty, or cannot be read.
    """
    if not isinstance(source, str) or not source:
        raise BadInput("The path of a picture is missing.", "Give the path of a picture file.")
    if is_data_uri(source):
        return _decoded(source)
    if is_address(source):
        raise BadInput(
            f"{name_of(source)} is an address, and pictures are not downloaded.",
            "Save the picture and give the path of the file.",
        )
    try:
        with open(source, "rb", opener=_open_file) as stream:  # a named pipe does not block
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{name_of(source)} is not a file.", "Give the path of a picture file.")
            _check_size(name_of(source), status.st_size)
            data = stream.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise BadInput(f"{name_of(source)} is a folder.", "Give the path of a picture file.") from error
    except FileNotFoundError as error:
        raise BadInput(f"There is no picture {source[:400]}.", "Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"{name_of(source)} cannot be read: {reason}.", "Check the path and its permissions.") from error
    _check_size(name_of(source), len(data))
    return data


def _open_file(path: str, flags: int) -> int:
    if os.path.isdir(path):
        raise IsADirectoryError(path)  # Windows reports a missing permission
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise BadInput(
            f"{name} has more than {MAX_BYTES >> 20} MB.", "Use a smaller picture, or save it as a JPEG file."
        )
    if not size:
        raise BadInput(f"{name} is empty.", "Use another file.")


def _decoded(uri: str) -> bytes:
    """Return the data of a `data:` URI, which must be base64 without white space or other characters."""
    head, comma, text = uri.partition(",")
    kind, *options = head[len(_DATA) :].lower().split(";")
    if not comma or options[-1:] != ["base64"]:
        raise BadInput("The data URI of a picture is not encoded in base64.", "Use data:image/png;base64,...")
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise BadInput(f"The data URI contains {kind[:40]}, not a picture.", "Use data:image/png;base64,...")
    _check_size(name_of(uri), len(text) * 3 // 4 - 2 if len(text) > 4 * MAX_BYTES // 3 else len(text))
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadInput("The base64 text of a picture is damaged.", "Encode the picture again.") from error
    _check_size(name_of(uri), len(data))
    return data
