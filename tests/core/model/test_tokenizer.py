"""Untrusted tokenizers are loaded or rejected without running code, panics or excessive use of memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import CorruptFile, MissingDependency, UnsupportedModel
from core.formats.gguf.tokenizer import tokenizer as as_metadata
from core.model import tokenizer as module
from core.model.tokenizer import load_tokenizer
from tests.core.tiny_model import save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "m")


def change(folder: Path, name: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    edit(value)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def test_the_template_is_read_from_chat_template_json(folder: Path) -> None:
    change(folder, "tokenizer_config.json", lambda value: value.pop("chat_template"))
    assert load_tokenizer(folder).chat_template is None
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}), encoding="utf-8")
    assert load_tokenizer(folder).chat_template == "{{ messages }}"


UNIGRAM = {"type": "Unigram", "vocab": [["a", -1.0]], "byte_fallback": False}
DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type of model": lambda value: value["model"].update(type="Nope"),
    "a list as the vocabulary": lambda value: value["model"].update(vocab=[]),
    "a merge of unknown tokens": lambda value: value["model"].update(merges=[["qq", "zz"]]),
    "an invalid regular expression": lambda value: value.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    ),
    "no token for unknown characters": lambda value: value.update(model=UNIGRAM | {"unk_id": None}),
    "an invalid id of the token for unknown characters": lambda value: value.update(model=UNIGRAM | {"unk_id": 7}),
    "a huge token id": lambda value: value["model"]["vocab"].update(hole=2**31),
    "a huge padding length": lambda value: value.update(
        padding={"strategy": {"Fixed": 2**62}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_invalid_tokenizer_is_rejected(damage: str, folder: Path) -> None:
    change(folder, "tokenizer.json", DAMAGE[damage])
    with pytest.raises(UnsupportedModel, match="tokenizer"):
        load_tokenizer(folder)


def test_a_large_token_id_is_rejected_before_memory_is_allocated(folder: Path) -> None:
    change(folder, "tokenizer.json", lambda value: value["model"]["vocab"].update(hole=10**8))
    with pytest.raises(UnsupportedModel, match="numbered"):
        as_metadata(folder, {}, 300, "m")


def test_more_tokens_than_the_limit_are_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 100)
    with pytest.raises(UnsupportedModel, match="more than 100 tokens"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_byte_order_mark_is_ignored(name: str, folder: Path) -> None:
    expected = load_tokenizer(folder)("Hi there")["input_ids"]
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert load_tokenizer(folder)("Hi there")["input_ids"] == expected


def test_a_git_lfs_pointer_is_reported(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n")
    with pytest.raises(CorruptFile, match=r"tokenizer\.json is a Git LFS pointer"):
        load_tokenizer(folder)


def test_settings_that_are_not_an_object_are_corrupt(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CorruptFile, match="not a JSON object"):
        load_tokenizer(folder)


def name_code(folder: Path) -> None:
    code = {"AutoTokenizer": ["own.Own", None]}
    change(folder, "tokenizer_config.json", lambda value: value.update(tokenizer_class="OwnTokenizer", auto_map=code))


def test_a_tokenizer_with_its_own_class_is_loaded_from_tokenizer_json(folder: Path) -> None:
    expected = load_tokenizer(folder)("Hi there")["input_ids"]
    name_code(folder)
    assert load_tokenizer(folder)("Hi there")["input_ids"] == expected


def test_a_tokenizer_that_needs_its_own_code_is_unsupported(folder: Path) -> None:
    name_code(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match="code that comes with the model"):
        load_tokenizer(folder)


@pytest.mark.parametrize(("data", "needed"), [(b"\n\x0e", "sentencepiece"), (b"IQ== 0\n", "tiktoken")])
def test_the_library_that_tokenizer_model_needs_is_reported(
    data: bytes, needed: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(data)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=needed):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_unsupported(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(UnsupportedModel, match="There is no tokenizer in"):
        load_tokenizer(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_not_utf8_is_supported(folder: Path) -> None:
    moved = folder.rename(folder.with_name("m\udcff"))
    assert load_tokenizer(moved)("a")["input_ids"]
