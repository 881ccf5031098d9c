"""Tests of the detection of llama-cpp-python and of the models that it supports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.inference.backends import llama_cpp as backend
from core.inference.machine import Device

CPU = Device("cpu", "cpu", "a processor", 1, 1)
CUDA = Device("cuda:0", "cuda", "a card", 1, 1)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    cached = backend._loaded
    cached.cache_clear()
    yield
    cached.cache_clear()


def library(*, offload: bool) -> SimpleNamespace:
    return SimpleNamespace(llama_supports_gpu_offload=lambda: offload)


def test_a_missing_library_has_an_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = backend.missing(CPU)
    assert found is not None
    assert found.install == "pip install llama-cpp-python"


def test_a_library_that_cannot_be_imported_gives_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise OSError('libggml.so: cannot open')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    found = backend.missing(CPU)
    assert found is not None
    assert "libggml.so: cannot open" in found.reason


def test_an_old_library_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("__version__ = '0.2.1'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    found = backend.missing(CPU)
    assert found is not None
    assert "0.2.1 is too old" in found.reason
    del sys.modules["llama_cpp"]  # monkeypatch would restore it for the following tests


def test_a_build_for_the_cpu_does_not_run_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", lambda: (library(offload=False), None))
    found = backend.missing(CUDA)
    assert found is not None
    assert "GGML_CUDA" in found.install


def test_a_build_with_gpu_support_runs_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", lambda: (library(offload=True), None))
    assert backend.missing(CUDA) is None


def test_only_gguf_files_are_supported(tmp_path: Path) -> None:
    assert backend.refusal(tmp_path / "m.GGUF") == ""
    assert "GGUF" in backend.refusal(tmp_path)
