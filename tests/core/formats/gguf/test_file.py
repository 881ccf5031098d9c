"""Tests of GGUF files that are written tensor by tensor."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGUFValueType
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DiskFull, OutputProblem
from core.files import free_bytes
from core.formats.gguf.file import Entry, GgufWriter, TensorSlot, header_bytes
from core.model.gguf_header import read_gguf_header

SLOTS = [
    TensorSlot("b", "bf16", (3, 5)),
    TensorSlot("a", "f32", (7,)),
    TensorSlot("q", "q4_k", (2, 512)),
    TensorSlot("h", "f16", (2, 3, 4)),
    TensorSlot("ü.weight", "q8_0", (1, 32)),
]
METADATA = [
    Entry.text("general.architecture", "llama"),
    Entry.count("llama.block_count", 2**32 - 1),
    Entry.float("x.float", 1e-5),
    Entry.flag("x.flag", True),
    Entry("x.long", 2**63, GGUFValueType.UINT64),
    Entry("x.small", -3, GGUFValueType.INT8),
    Entry.text("x.text", "ünï\n\x00 {{ code }}"),
    Entry.list_of("x.texts", GGUFValueType.STRING, ["", "a", "▁を"]),
    Entry.list_of("x.ints", GGUFValueType.INT32, [1, -2, 3]),
    Entry.list_of("x.floats", GGUFValueType.FLOAT32, [0.5, -1000.0]),
    Entry.list_of("x.flags", GGUFValueType.BOOL, [True, False]),
    Entry.list_of("x.none", GGUFValueType.STRING, []),
]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def random(slot: TensorSlot) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(slot.name))
    if slot.type in DTYPES:
        return torch.randn(slot.shape, generator=generator).to(DTYPES[slot.type])
    return torch.randint(0, 256, (slot.nbytes,), generator=generator, dtype=torch.uint8)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def write_all(path: Path, metadata: list[Entry] = METADATA) -> dict[str, torch.Tensor]:
    tensors = {slot.name: random(slot) for slot in SLOTS}
    with GgufWriter(path, metadata, SLOTS) as writer:
        for name in sorted(tensors):  # not the order of the file
            writer.write(name, tensors[name])
    return tensors


def by_gguf_py(path: Path, metadata: list[Entry], tensors: dict[str, torch.Tensor]) -> None:
    """Write the same file with gguf-py."""
    theirs = gguf.GGUFWriter(path, metadata[0].value)
    for entry in metadata[1:]:
        theirs.add_key_value(entry.key, entry.value, entry.kind, sub_type=entry.element)
    for slot in SLOTS:
        kind = gguf.GGMLQuantizationType[slot.type.upper()]
        value = tensors[slot.name]
        array = value.view(torch.uint8).numpy() if slot.type == "bf16" else value.numpy()
        if slot.type not in DTYPES:
            array = array.reshape(*slot.shape[:-1], -1)
        theirs.add_tensor(slot.name, array, raw_dtype=kind)
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()


def test_every_byte_is_that_of_another_writer(tmp_path: Path) -> None:
    metadata = METADATA[:-1]  # theirs leaves empty lists out
    tensors = write_all(tmp_path / "ours.gguf", metadata)
    by_gguf_py(tmp_path / "theirs.gguf", metadata, tensors)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_our_own_reader_finds_the_tensors(tmp_path: Path) -> None:
    tensors = write_all(tmp_path / "m.gguf")
    found = read_gguf_header(tmp_path / "m.gguf").tensors
    data = (tmp_path / "m.gguf").read_bytes()
    assert {name: (item.shape, item.kind.name.lower()) for name, item in found.items()} == {
        slot.name: (slot.shape, slot.type) for slot in SLOTS
    }
    assert all(data[found[name].start : found[name].start + found[name].nbytes] == raw(tensors[name]) for name in found)


def test_metadata_are_read_back_by_another_reader(tmp_path: Path) -> None:
    write_all(tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    for entry in METADATA[:-1]:
        found = fields[entry.key].contents()
        assert found == pytest.approx(entry.value) if "float" in entry.key else found == entry.value


def test_the_size_is_known_beforehand(tmp_path: Path) -> None:
    writer = GgufWriter(tmp_path / "m.gguf", METADATA, SLOTS)
    assert writer.total_bytes == header_bytes(METADATA, SLOTS) + sum(-(-slot.nbytes // 32) * 32 for slot in SLOTS)
    writer.abort()
    write_all(tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").stat().st_size == writer.total_bytes


def test_pieces_make_the_same_file(tmp_path: Path) -> None:
    tensors = write_all(tmp_path / "whole.gguf")
    with GgufWriter(tmp_path / "pieces.gguf", METADATA, SLOTS) as writer:
        for slot in SLOTS:
            data = raw(tensors[slot.name])
            writer.write(slot.name, [data[:7], memoryview(data[7:8]), data[8:]])
    assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    slots = [TensorSlot(f"t{number}", "f32", (64, 64)) for number in range(16)]
    tensors = {slot.name: torch.full(slot.shape, float(number)) for number, slot in enumerate(slots)}

    def rows(name: str) -> Iterator[torch.Tensor]:
        yield from tensors[name]

    with GgufWriter(tmp_path / "m.gguf", [], slots) as writer:
        threads = [threading.Thread(target=writer.write, args=(name, rows(name))) for name in tensors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = gguf.GGUFReader(tmp_path / "m.gguf").tensors
    assert all(np.array_equal(item.data, tensors[item.name].numpy()) for item in found)


@given(
    st.lists(
        st.tuples(st.sampled_from(["f32", "f16", "bf16", "q4_0", "q6_k"]), st.integers(1, 3), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_any_tensors_in_any_order(kinds: list[tuple[str, int, int]], order: Any) -> None:
    columns = {"q4_0": 32, "q6_k": 256}
    slots = [
        TensorSlot(f"t{number}", kind, (rows, columns.get(kind, 1) * width))
        for number, (kind, rows, width) in enumerate(kinds)
    ]
    shuffled = list(slots)
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        with GgufWriter(path, METADATA[:1], slots) as writer:
            for slot in shuffled:
                writer.write(slot.name, random(slot))
        found = read_gguf_header(path).tensors
        data = path.read_bytes()
        assert list(found) == [slot.name for slot in slots]
        assert all(data[found[s.name].start :][: s.nbytes] == raw(random(s)) for s in slots)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[GgufWriter]:
    writer = GgufWriter(tmp_path / "m.gguf", METADATA, [TensorSlot("t", "f32", (2, 3)), TensorSlot("u", "f32", (1,))])
    yield writer
    writer.abort()


def test_until_it_is_closed_nothing_looks_like_a_model(writer: GgufWriter) -> None:
    assert [path.name for path in writer.path.parent.iterdir()] == ["m.gguf.partial"]


def test_a_failure_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="why"), GgufWriter(tmp_path / "m.gguf", METADATA, SLOTS):
        raise RuntimeError("why")
    assert not list(tmp_path.iterdir())


def test_closing_with_tensors_missing_is_an_error(writer: GgufWriter) -> None:
    writer.write("t", torch.zeros(2, 3))
    assert writer.missing == ["u"]
    with pytest.raises(ValueError, match="such as u"):
        writer.close()


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("t", torch.zeros(2, 4), "more than the planned 24"),
        ("t", torch.zeros(2, 2), "16 bytes, planned were 24"),
        ("t", torch.zeros(2, 3, dtype=torch.int32), "planned was f32"),
        ("t", b"x", "1 bytes, planned were 24"),
        ("v", b"", "not planned"),
    ],
)
def test_what_does_not_fit_the_plan_is_an_error(writer: GgufWriter, name: str, data: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        writer.write(name, data)
    assert writer.missing == ["t", "u"]


def test_a_tensor_is_written_once(writer: GgufWriter) -> None:
    writer.write("u", torch.zeros(1))
    with pytest.raises(ValueError, match="before"):
        writer.write("u", torch.zeros(1))


def test_a_closed_writer_takes_nothing(writer: GgufWriter) -> None:
    writer.abort()
    with pytest.raises(ValueError, match="closed"):
        writer.write("u", torch.zeros(1))


def test_names_and_keys_are_given_once(tmp_path: Path) -> None:
    slot = TensorSlot("t", "f32", (1,))
    with pytest.raises(ValueError, match="duplicated"):
        GgufWriter(tmp_path / "m.gguf", [], [slot, slot])
    with pytest.raises(ValueError, match="duplicated"):
        GgufWriter(tmp_path / "m.gguf", [METADATA[0], METADATA[0]], [slot])


def test_too_little_disk_space_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="The output needs"):
        GgufWriter(tmp_path / "m.gguf", [], [TensorSlot("t", "f32", (free_bytes(tmp_path) + 10**12,))])
    assert not list(tmp_path.iterdir())


def test_full_disk_while_writing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DiskFull, match="is full"):
        GgufWriter(tmp_path / "m.gguf", [], SLOTS)
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputProblem, match="cannot be written"):
        GgufWriter(tmp_path / "missing" / "m.gguf", [], SLOTS)


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    write_all(tmp_path / "m.gguf")
    with pytest.raises(OutputProblem, match="exists already"):
        GgufWriter(tmp_path / "m.gguf", [], SLOTS)


def test_what_a_killed_run_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.gguf.partial").write_bytes(b"x" * 10**6)
    write_all(tmp_path / "m.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert len(gguf.GGUFReader(tmp_path / "m.gguf").tensors) == len(SLOTS)
