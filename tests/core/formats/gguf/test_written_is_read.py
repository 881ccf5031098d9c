"""Files of our writer come back through our reader: by their metadata alone, and by their tensor map."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from core.errors import CorruptFile
from core.formats.gguf.export import Export, export
from core.formats.gguf.file import GgufWriter
from core.formats.gguf.reader import GgufCheckpoint
from core.inference.loader import load_model
from core.model.headers import read_folder
from core.model.tree import build_tree
from core.model.weights import TensorStore
from tests.core.formats.gguf import families

IDS = torch.arange(1, 301).reshape(1, 300)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


@dataclass(frozen=True)
class Written:
    """A model, the folder it was saved in, and the file that was made of it."""

    model: Any
    folder: Path
    contents: Export
    path: Path


def write(family: str, place: Path) -> Written:
    """A family's random model as a file of 32-bit floats."""
    model = families.build(family)
    place.mkdir(exist_ok=True)
    folder = families.save(model, place / "model")
    tree = build_tree(json.loads((folder / "config.json").read_text(encoding="utf-8")), read_folder(folder))
    matrices = [*(linear.name for linear in tree.nameable), tree.embedding]
    contents = export(tree, folder, "owner/name", dict.fromkeys(matrices, "f32"))
    store = TensorStore(folder)
    with GgufWriter(place / "m.gguf", contents.entries, contents.slots) as writer:
        contents.write_computed(writer)
        for item in contents.tensor_map.mapped:
            contents.write_plain(writer, item, store, lambda: False)
    return Written(model, folder, contents, place / "m.gguf")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_file_computes_what_the_model_computes(family: str, tmp_path: Path) -> None:
    written = write(family, tmp_path)
    loaded = load_model(str(written.path), "cpu", "float32")
    with torch.no_grad():
        difference = (loaded.model(IDS).logits - written.model(IDS).logits).abs().max()
    # What is left comes from the order of sums in two kinds of attention.
    assert float(difference) < 2e-5


@pytest.mark.parametrize("family", ["llama-biased", "gemma3", "phi3"])
def test_a_tensor_map_gives_every_tensor_its_own_name_back(family: str, tmp_path: Path) -> None:
    written = write(family, tmp_path)
    found = GgufCheckpoint(written.path, written.folder, written.contents.tensor_map)
    source = TensorStore(written.folder)
    assert set(found.plain) == set(source.table)
    for name in found.plain:
        assert torch.equal(found.store.get(name).bfloat16(), source.get(name)), name
    assert found.config == json.loads((written.folder / "config.json").read_text(encoding="utf-8"))


def test_a_file_that_is_not_by_its_tensor_map_is_corrupt(tmp_path: Path) -> None:
    written = write("llama", tmp_path)
    tensor_map = written.contents.tensor_map
    mapped = tensor_map.mapped
    shorter, longer = mapped[:-1], (*mapped, replace(mapped[-1], name="another.weight"))
    for mapped_tensors, words in ((shorter, "was not planned"), (longer, "as it was planned")):
        with pytest.raises(CorruptFile, match=words):
            GgufCheckpoint(written.path, written.folder, replace(tensor_map, mapped=mapped_tensors))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_tokenizer_comes_back(family: str, tmp_path: Path) -> None:
    written = write(family, tmp_path)
    folder = GgufCheckpoint(written.path).folder
    ours, theirs = (AutoTokenizer.from_pretrained(place) for place in (folder, written.folder))
    for text in ("the thing in 12 re<|end|>", "ñ 日本\n\t  \U0001f600 don't", "<|start|>  a"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    chat = [{"role": "user", "content": "in"}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
