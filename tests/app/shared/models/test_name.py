"""Conversion of typed, pasted and dropped text to model names."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.shared.models.name import model_name, names_a_model, page_of


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("  gpt2 ", "gpt2"),
        ("demo", "demo"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main?x=1#top", "Qwen/Qwen3-0.6B"),
        ("https://HuggingFace.co/Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B"),
        ("huggingface.co/gpt2", "gpt2"),
        ("hf.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("file:///models/my%20model", "/models/my model"),
        ('"/models/in quotes"', "/models/in quotes"),
        ("https://huggingface.co/datasets/squad/plain", "https://huggingface.co/datasets/squad/plain"),
        ("https://example.com/Qwen/Qwen3-0.6B", "https://example.com/Qwen/Qwen3-0.6B"),
    ],
)
def test_the_name_in_a_text(text: str, name: str) -> None:
    assert model_name(text) == name


def test_a_relative_path_that_exists_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_name("mine") == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("qwen3", False), ("small chat model", False), ("", False), ("demo", True), ("a/b", True), ("~/m", True),
     ("C:\\models\\x", True), ("model.gguf", True), ("https://huggingface.co/a/b", True)],
)  # fmt: skip
def test_names_are_told_from_words_to_search_for(text: str, expected: bool) -> None:
    assert names_a_model(text) is expected


def test_a_strange_name_cannot_leave_the_hub() -> None:
    assert page_of("a/b:Q8_0") == "https://huggingface.co/a/b"
    assert page_of("a/b?x=<y>#z") == "https://huggingface.co/a/b%3Fx%3D%3Cy%3E%23z"
