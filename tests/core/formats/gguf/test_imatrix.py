"""Importance matrices: both formats are read, the file has llama.cpp's layout, and bad files are refused."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadInput, BitwrightError
from core.formats.gguf.file import Entry, GgufWriter, TensorSlot
from core.formats.gguf.imatrix import InputSums, importance_of, read_imatrix, write_imatrix
from core.formats.gguf.tensor_map import map_tensors
from tests.core.formats.gguf import families

TENSORS = map_tensors(families.tree_of("llama"))
LINEARS = {item.linear: item for item in TENSORS.mapped if ".layers." in item.linear}


def sums() -> dict[str, InputSums]:
    generator = torch.Generator().manual_seed(0)
    return {name: InputSums(torch.rand(item.shape[1], generator=generator) * 100, 50) for name, item in LINEARS.items()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, known = tmp_path / "i.gguf", sums()
    write_imatrix(path, known, TENSORS, "text.txt", 5, 10)
    found = importance_of(read_imatrix(path), TENSORS, "i.gguf")
    assert found.keys() == known.keys()
    for name, means in found.items():
        assert torch.allclose(means, known[name].squares / 50)


def test_the_layout_is_that_of_llama_cpp(tmp_path: Path) -> None:
    path, known = tmp_path / "i.gguf", sums()
    write_imatrix(path, known, TENSORS, "text.txt", 5, 10)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": ["text.txt"],
        "imatrix.chunk_count": 5,
        "imatrix.chunk_size": 10,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    item = LINEARS["model.layers.0.mlp.down_proj"]
    assert tensors[f"{item.name}.in_sum2"].shape.tolist() == [item.shape[1], 1]
    assert tensors[f"{item.name}.counts"].shape.tolist() == [1, 1]
    assert tensors[f"{item.name}.counts"].data.item() == 50
    assert len(tensors) == 2 * len(known)


def legacy(entries: Mapping[str, tuple[int, np.ndarray]]) -> bytes:
    """Return the bytes of the older format: name -> (number of calls, mean squares times that number)."""
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, means) in entries.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", calls, len(means))]
        parts.append(means.astype("<f4").tobytes())
    return b"".join(parts) + struct.pack("<ii", 7, 4) + b"text"


def test_the_older_format_is_read(tmp_path: Path) -> None:
    path, means = tmp_path / "i.dat", np.arange(1, 33, dtype=np.float32)
    path.write_bytes(legacy({"blk.0.attn_q.weight": (3, 3 * means)}))
    assert np.allclose(read_imatrix(path)["blk.0.attn_q.weight"].numpy(), means[None])


def written(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    slots = [TensorSlot(name, "f32", tuple(value.shape)) for name, value in tensors.items()]
    with GgufWriter(path, [Entry.text("general.type", "imatrix")], slots) as writer:
        for name, value in tensors.items():
            writer.write(name, value)
    return path


def test_experts_without_tokens_have_the_mean_of_the_others(tmp_path: Path) -> None:
    squares = torch.tensor([[2.0, 4.0], [0.0, 0.0], [6.0, 0.0]])
    tensors = {"x.weight.in_sum2": squares, "x.weight.counts": torch.tensor([[2.0], [0.0], [2.0]])}
    found = read_imatrix(written(tmp_path / "i.gguf", tensors))["x.weight"]
    assert torch.equal(found, torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 0.0]]))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a.weight": torch.ones(1, 4)}, "no importance matrix"),
        ({"a.in_sum2": torch.ones(1, 4)}, "no counts"),
        ({"a.in_sum2": torch.ones(2, 4), "a.counts": torch.ones(3, 1)}, "no counts"),
        ({"a.in_sum2": torch.full((1, 4), torch.nan), "a.counts": torch.ones(1, 1)}, "not finite"),
        ({"a.in_sum2": -torch.ones(1, 4), "a.counts": torch.ones(1, 1)}, "negative"),
    ],
)
def test_a_bad_gguf_file_is_refused_in_one_sentence(
    tmp_path: Path, tensors: Mapping[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(BitwrightError, match=words) as caught:
        read_imatrix(written(tmp_path / "i.gguf", tensors))
    assert caught.value.hint


def test_a_missing_file_and_another_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no importance matrix"):
        read_imatrix(tmp_path / "none.gguf")
    item = LINEARS["model.layers.0.mlp.down_proj"]
    with pytest.raises(BadInput, match="another model"):
        importance_of({item.name: torch.ones(1, item.shape[1] + 1)}, TENSORS, "i.gguf")
    with pytest.raises(BadInput, match="no layer of this model"):
        importance_of({"other.weight": torch.ones(1, 4)}, TENSORS, "i.gguf")


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 100), place=st.integers(0, 99), value=st.integers(0, 255), junk=st.binary(max_size=40))
def test_damaged_files_of_the_older_format_end_in_one_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, value: int, junk: bytes
) -> None:
    raw = bytearray(legacy({"blk.0.attn_q.weight": (1, np.ones(16, np.float32))}))
    raw[place % len(raw)] = value
    path = tmp_path_factory.mktemp("damaged") / "i.dat"
    path.write_bytes(bytes(raw[: len(raw) - cut]) + junk)
    with contextlib.suppress(BitwrightError):
        found = read_imatrix(path)
        assert all(bool(means.isfinite().all()) for means in found.values())
