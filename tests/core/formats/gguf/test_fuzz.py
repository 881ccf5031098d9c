"""Tests with damaged GGUF files: each gives a Bitwright error or the values of the file, with limited memory.

What it really says is found by gguf-py, of the bytes at hand. Damage is the same at every run.
"""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from core.errors import BitwrightError
from core.formats.gguf.reader import GgufCheckpoint
from core.model.gguf_header import read_gguf_header
from core.model.tree import build_tree
from tests.core.formats.gguf import damage, gguf_files

HEADERS, MODELS, TOKENIZERS = 3000, 400, 150
SECONDS_EACH = 5.0
"""Time limit, far above the duration of any case."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    kind = gguf.GGMLQuantizationType.Q4_1
    return gguf_files.write(folder / "m.gguf", "llama", gguf_files.build("llama"), kind=kind)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


def check(error: BitwrightError) -> None:
    """Check that an error message is short and printable."""
    assert error.message.endswith(".")
    assert len(error.message) < 1000
    error.message.encode("utf-8")
    assert not any(ord(character) < 32 for character in error.message)


def read_values(path: Path) -> str:
    """Compare every value of a checkpoint with gguf-py."""
    checkpoint = GgufCheckpoint(path, folder=path.parent)
    tree = build_tree(checkpoint.config, checkpoint.dense_table())
    assert {linear.name for linear in tree.linears} >= set(checkpoint.schemes)
    json.dumps(checkpoint.config)
    data = np.fromfile(path, dtype=np.uint8)
    for name, place in checkpoint.model.mapped.items():
        stem = name.removesuffix(".weight")
        if stem in checkpoint.schemes:
            found = checkpoint.layer(stem).dequantize().numpy()
        else:
            found = checkpoint.store.get(name).float().numpy()
        tensor = place.tensor
        raw = data[tensor.start : tensor.start + tensor.nbytes].reshape(*tensor.shape[:-1], -1)
        with np.errstate(all="ignore"):
            expected = gguf.dequantize(raw, tensor.kind)
            expected = (expected if place.order is None else expected[place.order]) - np.float32(place.shift)
        expected = expected.T if place.transposed and stem not in checkpoint.schemes else expected
        assert np.array_equal(found, expected.reshape(found.shape), equal_nan=True), name
    return "read"


def read_tokenizer(path: Path) -> str:
    """Write the tokenizer of a file to a folder."""
    assert (GgufCheckpoint(path).folder / "tokenizer.json").is_file()
    return "read"


def outcomes(cases: int, make: object, read: object, path: Path) -> dict[str, int]:
    """Return the results of `cases` damaged files; `make` returns the bytes of one by its number."""
    found: dict[str, int] = {}
    for number in range(cases):
        path.write_bytes(make(number))  # type: ignore[operator]
        started = time.monotonic()
        try:
            outcome = read(path)  # type: ignore[operator]
        except BitwrightError as error:
            check(error)
            outcome = error.code
        except BaseException as error:  # the tokenizers library has panics that are no exceptions
            raise AssertionError(f"case {number} ended in {error!r}") from error
        assert time.monotonic() - started < SECONDS_EACH, f"case {number} took too long"
        found[str(outcome)] = found.get(str(outcome), 0) + 1
    return found


def test_damaged_bytes_end_in_an_error_or_in_a_header_within_the_file(healthy: Path, tmp_path: Path) -> None:
    data = healthy.read_bytes()
    header = min(tensor.start for tensor in read_gguf_header(healthy).tensors.values())

    def read(path: Path) -> str:
        size = path.stat().st_size
        tensors = read_gguf_header(path).tensors.values()
        assert all(0 < tensor.start <= tensor.start + tensor.nbytes <= size for tensor in tensors)
        return "read"

    found = outcomes(HEADERS, lambda number: damage.raw(data, number, header), read, tmp_path / "m.gguf")
    assert found["corrupt-file"] > HEADERS / 10
    assert found["read"] > HEADERS / 100


def test_damaged_files_end_in_an_error_or_in_the_values_that_they_hold(healthy: Path, tmp_path: Path) -> None:
    parts = damage.take_apart(healthy)
    found = outcomes(MODELS, lambda number: damage.structured(parts, number), read_values, tmp_path / "m.gguf")
    assert found["corrupt-file"] > MODELS / 10
    assert found["read"] > MODELS / 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_damaged_tokenizers_end_in_an_error_or_in_a_tokenizer(kind: str, tmp_path: Path) -> None:
    more = gguf_files.sentencepiece_vocabulary() if kind == "sentencepiece" else {}
    parts = damage.take_apart(gguf_files.write(tmp_path / "whole.gguf", "llama", gguf_files.build("llama"), **more))
    own = tuple(key for key in parts.keys if key.name.startswith(b"tokenizer."))
    rest = tuple(key for key in parts.keys if key not in own)

    def make(number: int) -> bytes:
        changed = damage.structured_keys(own, number)
        return damage.Parts((*rest, *changed), parts.tensors, parts.data).joined()

    found = outcomes(TOKENIZERS, make, read_tokenizer, tmp_path / "m.gguf")
    assert found["read"] > TOKENIZERS / 10


def header_of(keys: list[bytes], tensors: int = 0, table: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys)) + b"".join(keys) + table


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


GREEDY = {
    "numbers": header_of([text(b"k") + struct.pack("<IIQ", 9, 0, 8_000_000) + bytes(8_000_000)]),
    "halves": header_of([text(b"k") + struct.pack("<IIQ", 9, 2, 4_000_000) + b"\x39\x30" * 4_000_000]),
    "strings": header_of([text(b"k") + struct.pack("<IIQ", 9, 8, 1_000_000) + bytes(8_000_000)]),
    "one text": header_of([text(b"k") + struct.pack("<I", 8) + text(b"a" * 8_000_000)]),
    "keys": header_of([text(b"%07d" % number) + struct.pack("<IB", 0, 1) for number in range(400_000)]),
    "tensors": header_of(
        [], 250_000, b"".join(text(b"%06d" % n) + struct.pack("<IQIQ", 1, 1, 0, 32 * n) for n in range(250_000))
    ),
}


@pytest.mark.parametrize("case", GREEDY, ids=str)
def test_memory_is_a_small_multiple_of_the_file(case: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(GREEDY[case])
    tracemalloc.start()
    started = time.monotonic()
    try:
        read_gguf_header(path)
    except BitwrightError as error:
        check(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 * len(GREEDY[case])
    assert time.monotonic() - started < 20.0
