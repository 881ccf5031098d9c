"""Tests of the types that are taken from another GGUF file, and of the metadata that go with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from core.bitsmap import BitsMap
from core.errors import BadInput, CorruptFile
from core.formats.gguf import file_types
from core.formats.gguf.file_types import read_file_types
from core.formats.gguf.plan import plan_gguf
from core.formats.grids import plan_layers
from core.model.tree import ModelTree
from tests.core.conversion.sources import make, save_original
from tests.core.formats.tiny import open_tree


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(tmp_path_factory.mktemp("original") / "model", wide=True)


@pytest.fixture(scope="module")
def tree(original: Path) -> ModelTree:
    return open_tree(original)


@pytest.fixture(scope="module")
def other(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(original, tmp_path_factory.mktemp("other") / "gguf", "gguf:q3_k_m")
    return next(folder.glob("*.gguf"))


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def test_every_layer_has_the_type_of_the_file(tree: ModelTree, other: Path) -> None:
    found, stored = read_file_types(other, tree), types_of(other)
    assert found.linears["model.layers.0.mlp.down_proj"].upper() == stored["blk.0.ffn_down.weight"]
    assert found.linears["model.layers.0.self_attn.v_proj"].upper() == stored["blk.0.attn_v.weight"]
    assert len(set(found.linears.values())) > 1
    assert found.embedding.upper() == stored["token_embd.weight"]
    assert not found.separate_head


def test_a_plan_of_the_same_types_gives_the_slots_of_the_file(tree: ModelTree, original: Path, other: Path) -> None:
    plans = plan_layers(tree, BitsMap(), ("gguf",), like=str(other))
    assert {plan.why for plan in plans} == {f"as in {other.name}"}
    made = plan_gguf("gguf", tree, plans, original, "owner/tiny", like=str(other))
    assert {slot.name: slot.type.upper() for slot in made.contents.slots} == types_of(other)
    assert made.file == other.name


def test_q4_0_is_a_plain_scheme_whose_integers_can_be_learned(tree: ModelTree, original: Path, tmp_path: Path) -> None:
    path = next(make(original, tmp_path / "gguf", "gguf:q4_0").glob("*.gguf"))
    plans = plan_layers(tree, BitsMap(), ("gguf",), like=str(path))
    assert {plan.scheme.label() for plan in plans} == {"W4 g32 sym"}


def test_layers_that_are_floats_in_the_file_stay_in_16_bits(tree: ModelTree, other: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(other)
    writer = gguf.GGUFWriter(tmp_path / "mixed.gguf", "llama")
    for tensor in reader.tensors:
        if tensor.name == "blk.0.attn_q.weight":
            writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype("float16"))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plans = plan_layers(tree, BitsMap(), ("gguf",), like=str(tmp_path / "mixed.gguf"))
    assert [plan.linear.name for plan in plans if not plan.scheme.quantized] == ["model.layers.0.self_attn.q_proj"]


def test_a_file_of_another_model_is_refused(tree: ModelTree, tmp_path: Path) -> None:
    small = save_original(tmp_path / "small")
    path = next(make(small, tmp_path / "gguf", "gguf:q4_1").glob("*.gguf"))
    with pytest.raises(BadInput, match=r"of another model: it has the shape \[288, 64\] instead of \[288, 256\]"):
        read_file_types(path, tree)


def test_types_that_are_not_written_are_listed(tree: ModelTree, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_types, "TYPES", {"q3_k": None, "q6_k": None, "q8_0": None})
    with pytest.raises(BadInput, match=r"types that Bitwright does not write: Q4_K \(2\), Q5_K \(1\)"):
        read_file_types(other, tree)


@pytest.mark.parametrize(("content", "error"), [(None, BadInput), (b"GGUF", CorruptFile)])
def test_what_is_no_file_is_an_error(tree: ModelTree, tmp_path: Path, content: bytes | None, error: Any) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error):
        read_file_types(path, tree)


def test_tokenizer_and_general_entries_come_from_the_file(tree: ModelTree, original: Path, other: Path) -> None:
    plans = plan_layers(tree, BitsMap(), ("gguf",), like=str(other))
    made = plan_gguf("gguf", tree, plans, original, "owner/renamed", like=str(other))
    stored, header = other.read_bytes(), read_file_types(other, tree).header
    packed = {entry.key: entry.packed for entry in made.contents.entries}
    for key, (begin, end) in header.spans.items():
        if key.startswith(("general.", "tokenizer.")):
            assert packed[key] == stored[begin:end], key
    assert "general.base_model.0.name" not in packed  # of the label, which the other file does not have
    assert len(packed) == len(made.contents.entries)


def test_a_file_without_tokenizer_leaves_that_of_the_model(tree: ModelTree, original: Path, other: Path) -> None:
    from core.formats.gguf.metadata import entries_like

    plans = plan_layers(tree, BitsMap(), ("gguf",))
    entries = plan_gguf("gguf", tree, plans, original, "tiny").contents.entries
    header = read_file_types(other, tree).header
    spans = {key: span for key, span in header.spans.items() if not key.startswith("tokenizer.")}
    found = {entry.key: entry.packed for entry in entries_like(entries, replace(header, spans=spans))}
    assert {key for key in found if key.startswith("tokenizer.")} == {
        entry.key for entry in entries if entry.key.startswith("tokenizer.")
    }
