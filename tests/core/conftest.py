"""Fixtures for the tests of `core`: reproducible random inputs, a tiny model, a working folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.core.tiny_model import save_model


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Draw the same random inputs in every order of the tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, which no test changes; its name has spaces and letters outside ASCII."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny model, kleine Größe")


@pytest.fixture
def place(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a home for jobs outside it."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
