"""Tests of local calibration files: the documents of each file format, and the errors for unusable files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.calibration import files
from core.calibration.documents import Document
from core.errors import BadCalibration
from core.events import Event


def texts(path: Path, block_chars: int = 8000) -> list[str]:
    return [document.plain() for document in files.read(path, block_chars, lambda _: None)]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "One.\n\nTwo.", ["One.\n\nTwo."]),
        ("a.md", "# Title\n", ["# Title\n"]),
        ("no_suffix", "text", ["text"]),
        ("mark.txt", b"\xef\xbb\xbftext", ["text"]),
        ("wörter und mehr.txt", "Zürich", ["Zürich"]),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n', ["a", "b"]),
        ("strings.jsonl", '"a"\n"b"', ["a", "b"]),
        ("array.json", '[{"text": "a"}, "b"]', ["a", "b"]),
        ("one.json", '{"text": "a"}', ["a"]),
        ("nested.json", '{"version": 1, "data": [{"content": "a"}]}', ["a"]),
        ("columns.json", '{"text": ["a", "b"]}', ["a", "b"]),
        ("pairs.json", '{"prompt": ["a", "b"], "completion": ["1", "2"]}',
         ["User: a\n\nAssistant: 1", "User: b\n\nAssistant: 2"]),
        ("one_chat.json", '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]',
         ["User: a\n\nAssistant: b"]),
        ("articles.json", '[{"author": "x", "content": "a"}, {"author": "y", "content": "b"}]', ["a", "b"]),
        ("chat.jsonl", '[{"role": "user", "content": "a"}]\n', ["User: a"]),
        ("mark.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n', ["a"]),
        ("a.csv", 'id,Text\n1,"a, b"\n2,"c\nd"\n', ["a, b", "c\nd"]),
        ("a.tsv", "question\tanswer\na\tb\n", ["User: a\n\nAssistant: b"]),
        ("wide.txt", "Zürich".encode("utf-16"), ["Zürich"]),
        ("wide.jsonl", '{"text": "ü"}\n{"text": "b"}\n'.encode("utf-16"), ["ü", "b"]),
        ("packed.txt.gz", gzip.compress("Zürich".encode(), mtime=0), ["Zürich"]),
        ("packed.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "b"}\n', mtime=0), ["a", "b"]),
        ("one_line.jsonl", '[{"text": "a"}, {"text": "b"}]\n', ["a", "b"]),
        ("many_lines.jsonl", '[\n {"text": "a"},\n {"text": "b"}\n]\n', ["a", "b"]),
        ("pandas.json", '{"label": {"0": 1, "1": 2}, "text": {"0": "a", "1": "b"}}', ["a", "b"]),
        ("split.json", '{"columns": ["label", "text"], "index": [0], "data": [[1, "a"]]}', ["a"]),
        ("spreadsheet.csv", 'id;text\n1;"a; b"\n', ["a; b"]),
        ("article.csv", f"id,text\n1,{'a' * 200_000}\n", ["a" * 200_000]),
        ("lines.json", '{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
    ],
)  # fmt: skip
def test_documents_of_each_file_format(tmp_path: Path, name: str, content: str | bytes, expected: list[str]) -> None:
    assert texts(write(tmp_path, name, content)) == expected


def test_parquet_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["a", "b"]


def test_conversations_in_parquet_are_read(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "Hi"}]]
    pq.write_table(pa.table({"messages": turns}), tmp_path / "a.parquet")
    assert next(files.read(tmp_path / "a.parquet", 100, lambda _: None)) == Document(messages=(("user", "Hi"),))


def test_a_long_text_is_cut_at_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path, "long.txt", "\n\n".join(f"Paragraph {number} ends here." for number in range(400)))
    assert all(block.startswith("Paragraph") for block in texts(path, 300))


def test_the_blocks_of_a_text_are_the_text(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {number}." for number in range(5000))
    assert "".join(texts(write(tmp_path, "long.txt", text), 1000)) == text


def test_only_the_first_block_begins_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, "long.txt", "word " * 100)
    assert [block.continues for block in files.read(path, 200, lambda _: None)] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n\n", "no text"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG image"),
        ("model.txt", (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}', "safetensors"),
        ("model.gguf", b"GGUF\3\0\0\0", "GGUF model"),
        ("words.docx", b"PK\x03\x04aaaa", "zip archive"),
        ("words.txt.gz", b"\x1f\x8b\x08\x08", "damaged gzip"),
        ("cut.txt.gz", gzip.compress(bytes(range(32, 127)) * 2000, mtime=0)[:-9], "damaged gzip"),
        ("picture.gz", gzip.compress(b"\x89PNG\r\n", mtime=0), "PNG image"),
        ("nul.txt", b"text\0text", "binary"),
        ("late_nul.txt", b"text " * 2000 + b"\0", "NUL"),
        ("latin1.txt", "au lait\ncaf\u00e9".encode("latin-1"), r"not text in UTF-8 \(line 2\)"),
        ("latin1.jsonl", '{"text": "a"}\n{"text": "\u00e9"}'.encode("latin-1"), r"not text in UTF-8 \(line 2\)"),
        ("odd.txt", "text".encode("utf-16")[:-1], "not text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', r"Line 2 of .* \(column 13\)"),
        ("ids.jsonl", b'{"input_ids": [1, 2]}\n', "token ids"),
        ("labels.csv", b"id,label\n1,2\n", "Columns: id, label"),
        ("deep.jsonl", b"[" * 100_000, "Line 1"),
        ("none.jsonl", b'{"label": 1}\n{"label": 2}\n', "Fields: label"),
        ("number.jsonl", b"1\n2\n", "No record"),
        ("a.json", b'[{"text": "a"},\n{"text": ]', "line 2"),
        ("none.json", b"[]", "no records"),
        ("fake.parquet", b"not parquet at all", "not a Parquet file"),
        ("half.parquet", b"PAR1" + b"\x15\x04" * 40, "damaged Parquet"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(BadCalibration, match=message):
        texts(write(tmp_path, name, content))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match="does not exist"):
        texts(tmp_path / "none.txt")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match="is a folder"):
        texts(tmp_path)


def test_a_parquet_file_cut_in_half(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(1000)]}), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadCalibration, match="damaged Parquet"):
        texts(path)


def test_parquet_without_a_text_column_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"pixels": [1], "label": [2]}), tmp_path / "a.parquet")
    with pytest.raises(BadCalibration, match="pixels, label"):
        texts(tmp_path / "a.parquet")


def test_a_file_without_documents_is_refused_after_the_probed_records(tmp_path: Path) -> None:
    lines = ['{"label": 1}'] * files.PROBED_RECORDS + ["not json"]
    with pytest.raises(BadCalibration, match="No record"):
        texts(write(tmp_path, "a.jsonl", "\n".join(lines)))


def test_skipped_records_are_reported(tmp_path: Path) -> None:
    log: list[Event] = []
    path = write(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": text}) for text in ("a", "", "b")))
    list(files.read(path, 100, log.append))
    assert ["1 of 3 records" in getattr(event, "message", "") for event in log] == [True]
