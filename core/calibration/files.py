"""Calibration documents from local files: plain text, JSON, JSON lines, CSV and Parquet.

Text is UTF-8, or UTF-16 with a byte-order mark, and may be compressed with gzip. Files are streamed, except JSON files,
which are parsed whole. Binary files are detected by their bytes, not by their names.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from core.calibration.documents import FIELDS, IDS_FIELDS, Document, cut_point, from_record, is_conversation
from core.errors import BadCalibration, MissingDependency
from core.events import Emit, Log

TEXT_HINT = "Use plain text (.txt, .md), .jsonl, .json, .csv or .parquet, or the bundled text (`builtin`)."
FIELD_HINT = (
    'Name the field "text" (or "content", "messages", "prompt" with "completion"), or use the bundled text (`builtin`).'
)
PROBED_RECORDS = 10_000
"""Records after which a file or a data set without a single document is rejected."""
_READ_CHARS = 1 << 20
_LINE_CHARS = 1 << 28
_JSON_CHARS = 1 << 30
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SIGNATURES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"\xfd7zXZ\x00", "a file compressed with xz"),
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "an executable"),
    (b"ARROW1", "an Arrow file"),
)


def read(path: Path, block_chars: int, emit: Emit) -> Iterator[Document]:
    """Yield the documents in a file, in the order of the file.

    Args:
        path: Path of the file.
        block_chars: Maximum number of characters of a document of plain text; longer texts are cut, preferably at the
            end of a paragraph.
        emit: Receives a warning if records without text were skipped.

    Raises:
        BadCalibration: The file does not exist, is a folder, cannot be read, is empty, damaged or not text, or none of
            its records has a field with text.
        MissingDependency: The file is Parquet and pyarrow is not installed.
    """
    head = _head(path)
    if head[:4] == b"PAR1":
        records: Iterator[Any] = _parquet(path)
    elif path.suffix.lower() == ".parquet":
        raise BadCalibration(f"{path} is not a Parquet file, or is incomplete.", "Download the file again.")
    else:
        _refuse_binary(path, head)
        kind = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
        if kind in (".jsonl", ".ndjson"):
            records = _lines(path)
        elif kind == ".json":
            records = _json(path)
        elif kind in (".csv", ".tsv"):
            records = _table(path, "\t" if kind == ".tsv" else ",")
        else:
            yield from _plain(path, block_chars)
            return
    yield from _usable(path, records, emit)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise BadCalibration(f"{path} is a folder, not a calibration file.", "Choose a file in the folder.")
        if not path.exists():
            raise BadCalibration(f"The calibration file {path} does not exist.", "Check the path, or use `builtin`.")
        if not path.is_file():
            raise BadCalibration(f"{path} is not a regular file.", TEXT_HINT)
        with _opened(path) as stream:
            head = stream.read(4096)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadCalibration(f"{path} is a damaged gzip file.", "Download the file again.") from error
    except OSError as error:
        raise BadCalibration(
            f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    if not head:
        raise BadCalibration(f"The calibration file {path} is empty.", TEXT_HINT)
    return head


def _opened(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if it is a gzip file."""
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """Open a file for reading text: UTF-16 if it starts with that byte-order mark, otherwise UTF-8."""
    stream = _opened(path)
    head = stream.read(2)
    stream.seek(0)
    return io.TextIOWrapper(stream, encoding="utf-16" if head in _UTF16 else "utf-8-sig", newline=newline)


def _refuse_binary(path: Path, head: bytes) -> None:
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            raise BadCalibration(f"{path} is {name}, not calibration text in UTF-8.", TEXT_HINT)
    if b"\0" in head and head[:2] not in _UTF16:
        name = "a safetensors model file" if head[8:10] == b'{"' else "binary data"
        raise BadCalibration(f"{path} is {name}, not calibration text.", TEXT_HINT)


def _chunks(path: Path) -> Iterator[str]:
    """Yield the text of a file in portions of at most _READ_CHARS characters.

    Raises:
        BadCalibration: The file is not text, is damaged, or contains NUL bytes.
    """
    with _text(path) as stream:
        while chunk := _portion(path, stream.read, _READ_CHARS):
            yield chunk


def _portion(path: Path, call: Any, size: int) -> str:
    try:
        portion: str = call(size)
    except UnicodeError as error:
        place = _undecodable(path)
        where = f" (line {place})" if place else ""
        raise BadCalibration(f"{path} is not text in UTF-8{where}.", f"Save it as UTF-8. {TEXT_HINT}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadCalibration(f"{path} is a damaged gzip file.", "Download the file again.") from error
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}.", "Check the disk.") from error
    if "\0" in portion:
        raise BadCalibration(f"{path} contains NUL bytes, so it is not text.", TEXT_HINT)
    return portion


def _undecodable(path: Path) -> int:
    """Return the number of the first line that is not UTF-8, counted from 1; 0 if there is none."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _plain(path: Path, block_chars: int) -> Iterator[Document]:
    rest = ""
    first = True
    for chunk in _chunks(path):
        rest += chunk
        start = 0
        while len(rest) - start > block_chars:
            end = cut_point(rest, start, block_chars)
            block = rest[start:end]
            if block.strip():
                yield Document(text=block, continues=not first)
                first = False
            start = end
        rest = rest[start:]
    if rest.strip():
        yield Document(text=rest, continues=not first)
    elif first:
        raise BadCalibration(f"The calibration file {path} contains no text.", TEXT_HINT)


def _lines(path: Path) -> Iterator[Any]:
    with _text(path) as stream:
        number = 0
        while line := _portion(path, stream.readline, _LINE_CHARS):
            number += 1
            if len(line) >= _LINE_CHARS:
                raise BadCalibration(f"Line {number} of {path} is too long to be a record.", TEXT_HINT)
            if line.strip():
                try:
                    value = json.loads(line.rstrip())
                except (ValueError, RecursionError) as error:
                    if number == 1 and line.strip() in (
                        "[",
                        "{",
                    ):  # one JSON value over several lines
                        yield from _json(path)
                        return
                    raise _not_a_record(path, number, error) from error
                # an array of records in one line
                yield from value if isinstance(value, list) and from_record(value) is None else [value]


def _not_a_record(path: Path, number: int, error: Exception) -> BadCalibration:
    place = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
    return BadCalibration(
        f"Line {number} of {path} is not valid JSON{place}.",
        "Correct or delete the line; each line is one JSON record.",
    )


def _table(path: Path, separator: str) -> Iterator[Any]:
    """Yield the rows of a CSV or TSV file with a header line as mappings, with the known text columns only.

    Some spreadsheet programs separate the columns with semicolons, so the separator is detected from the header.
    """
    csv.field_size_limit(_LINE_CHARS)  # the default is 131,072 characters; an article may have more
    with _text(path, newline="") as stream:
        lines = iter(lambda: _portion(path, stream.readline, _LINE_CHARS), "")
        header = next(lines, "")
        rows = csv.DictReader(chain([header], lines), delimiter=_separator(header, separator))
        try:
            names = [name for name in rows.fieldnames or [] if name.strip().lower() in FIELDS]
            if not names:
                known = ", ".join(str(name)[:40] for name in (rows.fieldnames or [])[:8]) or "none"
                raise BadCalibration(f"{path} has no text column. Columns: {known}.", FIELD_HINT)
            for row in rows:
                yield {name.strip().lower(): row[name] for name in names}
        except csv.Error as error:
            raise BadCalibration(
                f"Line {rows.line_num} of {path} is not a valid table row ({error}).", "Save it as .jsonl or .txt."
            ) from error


def _separator(header: str, usual: str) -> str:
    """Return the first separator, starting with `usual`, that gives a known text column; `usual` if none does."""
    for separator in (usual, ";", "\t", ","):
        names = next(csv.reader([header], delimiter=separator), [])
        if any(name.strip().lower() in FIELDS for name in names):
            return separator
    return usual


def _json(path: Path) -> Iterator[Any]:
    """Yield the records of a JSON file: an array, a table by columns, one object, or JSON lines despite the suffix."""
    parts, size = [], 0
    for chunk in _chunks(path):
        size += len(chunk)
        if size > _JSON_CHARS:
            raise BadCalibration(
                f"{path} is too large to be read as one JSON value.", "Save it as .jsonl, with one record per line."
            )
        parts.append(chunk)
    text = "".join(parts)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # "Extra data" after a complete first line: the file is JSON lines.
        if error.msg == "Extra data" and text.lstrip()[0] == "{":
            yield from _lines(path)
            return
        raise BadCalibration(
            f"{path} is not valid JSON (line {error.lineno}, column {error.colno}).",
            "Correct the file, or download it again.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadCalibration(f"{path} is not valid JSON.", "Correct the file, or download it again.") from error
    if isinstance(value, Mapping) and (columns := _columns(value)):
        yield from columns
    elif isinstance(value, Mapping) and from_record(value) is None:
        # a common form: {"data": [...]}
        yield from next((column for column in value.values() if isinstance(column, list)), [])
    else:
        # a single conversation is a list too
        yield from [value] if not isinstance(value, list) or is_conversation(value) else value


def _columns(value: Mapping[str, Any]) -> list[Any]:
    """Return the records of a table that is stored by columns, as pandas or {"text": ["...", "..."]}; otherwise []."""
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        rows = [row for row in value["data"] if isinstance(row, list) and len(row) == len(value["columns"])]
        return [dict(zip(map(str, value["columns"]), row, strict=True)) for row in rows]
    value = {name: _by_number(column) for name, column in value.items()}
    lists = [column for name, column in value.items() if name in FIELDS and isinstance(column, list)]
    texts = [column for column in lists if column and all(isinstance(item, str) for item in column)]
    if not texts or any(len(column) != len(texts[0]) for column in lists):
        return []
    names = [name for name, column in value.items() if isinstance(column, list) and len(column) == len(texts[0])]
    return [dict(zip(names, row, strict=True)) for row in zip(*(value[name] for name in names), strict=True)]


def _by_number(column: Any) -> Any:
    """Return the values of {"0": ..., "1": ...}, a column written by pandas, as a list; other values unchanged."""
    numbered = isinstance(column, Mapping) and all(str(key).isdecimal() for key in column)
    return list(column.values()) if numbered else column


def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency("Reading Parquet files requires pyarrow.", "pip install pyarrow") from error
    try:
        with pq.ParquetFile(path) as table:
            columns = [name for name in table.schema_arrow.names if name in FIELDS]
            if not columns:
                names = ", ".join(table.schema_arrow.names[:8]) or "none"
                raise BadCalibration(f"{path} has no text column. Columns: {names}.", FIELD_HINT)
            for batch in table.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadCalibration(f"{path} is a damaged Parquet file.", "Download the file again.") from error


def _usable(path: Path, records: Iterable[Any], emit: Emit) -> Iterator[Document]:
    found = 0
    number = 0
    names = ""
    for number, record in enumerate(records, 1):
        document = from_record(record)
        if document is not None:
            found += 1
            yield document
        elif not names and isinstance(record, Mapping):
            names = ", ".join(str(key)[:40] for key in list(record)[:8])
        if not found and number >= PROBED_RECORDS:
            break
    if found:
        if found < number:
            seen = f" (fields: {names})" if names else ""
            emit(Log("warning", f"{number - found} of {number} records of {path} have no text and were skipped{seen}."))
        return
    if not number:
        raise BadCalibration(f"The calibration file {path} contains no records.", FIELD_HINT)
    if any(name in IDS_FIELDS for name in names.split(", ")):
        raise BadCalibration(
            f"The records of {path} contain token ids, which are valid for one tokenizer only. Fields: {names}.",
            "Provide the text itself in a field named text.",
        )
    seen = f" Fields: {names}." if names else ""
    raise BadCalibration(f"No record of {path} has a field with text.{seen}", FIELD_HINT)
