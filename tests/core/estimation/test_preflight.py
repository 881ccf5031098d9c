"""Tests of the checks of a job before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.estimation.preflight import is_folder
from tests.core.tiny_model import save_model


@pytest.mark.parametrize("names", [["m.gguf"], ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]])
def test_a_folder_with_one_gguf_file_is_not_a_safetensors_folder(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert not is_folder(str(tmp_path))


def test_a_folder_of_safetensors_is_recognized(tmp_path: Path) -> None:
    assert is_folder(str(save_model(tmp_path / "m")))


@pytest.mark.parametrize("name", ["demo", "owner/model", "a\0b"])
def test_other_names_are_not_folders(name: str) -> None:
    assert not is_folder(name)
