"""llama.cpp in the table of backends: what is missing, and which models it takes."""

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
    asked = backend._loaded
    asked.cache_clear()
    yield
    asked.cache_clear()


def library(*, offload: bool) -> SimpleNamespace:
    return SimpleNamespace(llama_supports_gpu_offload=lambda: offload)


def test_a_missing_library_has_an_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = backend.missing(CPU)
    assert found is not None
    assert found.install == "pip install llama-cpp-python"


def test_a_library_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise OSError('libggml.so: cannot open')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    found = backend.missing(CPU)
    assert found is not None
    assert "libggml.so: cannot open" in found.reason


def test_an_old_library_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("__version__ = '0.2.1'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    found = backend.missing(CPU)
    assert found is not None
    assert "0.2.1 is too old" in found.reason
    del sys.modules["llama_cpp"]  # monkeypatch would put it back for the tests that follow


def test_a_build_for_the_cpu_is_not_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", lambda: (library(offload=False), None))
    found = backend.missing(CUDA)
    assert found is not None
    assert "GGML_CUDA" in found.install


def test_a_build_with_a_card_has_nothing_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", lambda: (library(offload=True), None))
    assert backend.missing(CUDA) is None


def test_it_takes_gguf_files_only(tmp_path: Path) -> None:
    assert backend.refusal(tmp_path / "m.GGUF") == ""
    assert "GGUF" in backend.refusal(tmp_path)
