"""Interpretation of dropped items."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QUrl

from app.shared.drop_target import DropTarget, checkpoint_of, is_map, target_of, words_of
from core import recipes
from core.bitsmap import BitsMap
from core.errors import BadInput
from core.files import write_json


def urls(*texts: str) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl(text) for text in texts])
    return mime


def text(words: str) -> QMimeData:
    mime = QMimeData()
    mime.setText(words)
    return mime


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "Qwen/Qwen3-0.6B"),
        ("https://hf.co/Qwen/Qwen3-0.6B?library=true", "Qwen/Qwen3-0.6B"),
    ],
)
def test_a_link_to_a_model_is_its_id(link: str, name: str) -> None:
    assert target_of(link) == DropTarget("model", name)


@pytest.mark.parametrize(
    "link", ["https://huggingface.co/datasets/a/b", "https://huggingface.co/Qwen", "https://example.org/Qwen/Qwen3"]
)
def test_another_link_is_refused_in_one_sentence(link: str) -> None:
    with pytest.raises(BadInput, match="is not the address of a model"):
        target_of(link)


def test_a_folder_and_a_gguf_are_models(tmp_path: Path) -> None:
    file = tmp_path / "Model.GGUF"
    file.touch()
    assert [target_of(str(path)).kind for path in (tmp_path, file)] == ["model", "model"]


def test_a_part_of_a_model_means_its_folder(tmp_path: Path) -> None:
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.touch()
    write_json(config, {"model_type": "llama"})
    assert [target_of(str(path)) for path in (weights, config)] == [DropTarget("model", str(tmp_path))] * 2


@pytest.mark.parametrize("name", ["demo", "Qwen/Qwen3-0.6B", "/no/such/folder"])
def test_a_name_that_is_no_file_is_left_to_the_model_page(name: str) -> None:
    assert target_of(name) == DropTarget("model", name)


def test_a_recipe_and_a_bits_map_are_told_apart(tmp_path: Path) -> None:
    recipe, bits_map, partial = (tmp_path / name for name in ("recipe.json", "map.json", "own.json"))
    write_json(recipe, recipes.load("quick").to_json())
    BitsMap().save(bits_map)
    write_json(partial, {"samples": 32})
    assert [target_of(str(path)).kind for path in (recipe, bits_map, partial)] == ["recipe", "map", "recipe"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "{}", '{"a": 1}', "[" * 100_000, "\x00"])
def test_json_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadInput):
        target_of(str(path))


def test_another_file_is_refused_and_the_hint_says_what_works(tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.touch()
    with pytest.raises(BadInput) as refused:
        target_of(str(path))
    assert "holiday.jpg" in refused.value.message
    assert ".gguf" in refused.value.hint


def test_a_drag_contains_one_path_or_one_link(tmp_path: Path) -> None:
    local = QUrl.fromLocalFile(str(tmp_path)).toString()
    link = "https://huggingface.co/a/b"
    found = [
        words_of(mime) for mime in (urls(local), urls(link), text(f" {link}\n"), urls(link, local), text("some text"))
    ]
    assert found == [str(tmp_path), link, link, "", ""]


def test_an_empty_text_is_no_drop_target() -> None:
    assert words_of(QMimeData()) == ""


def test_a_checkpoint_is_recognized_by_its_quantization_settings(tmp_path: Path) -> None:
    assert checkpoint_of(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert checkpoint_of(str(tmp_path)) is None
    (tmp_path / "quantize_config.json").write_text("{}")
    assert checkpoint_of(str(tmp_path / "quantize_config.json")) == tmp_path
    (tmp_path / "quantize_config.json").unlink()
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert checkpoint_of(str(tmp_path / "config.json")) == tmp_path


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_broken_config_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert checkpoint_of(str(tmp_path)) is None


def test_maps_and_checkpoints_are_maps(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"version": 1, "rules": []}')
    (tmp_path / "other.json").write_text('{"a": 1}')
    assert [is_map(str(tmp_path / name)) for name in ("map.json", "other.json", "none.json")] == [True, False, False]
    assert [is_map(""), is_map("https://huggingface.co/a/b")] == [False, False]
