"""Tests of the progress of an import, and of stopping it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import pace
from core.errors import Cancelled
from core.events import Event, Progress
from core.formats.gguf import values as gguf_values
from core.formats.gguf.importing import import_gguf
from tests.core.formats.gguf import gguf_files


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file, with an empty cache for its import."""
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.build("llama"))


def test_import_has_progress(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_INTERVAL", 0.0)
    events: list[Event] = []
    import_gguf(llama, events.append, lambda: False, measured=True)
    shares = [event.fraction for event in events if isinstance(event, Progress)]
    assert (shares[0], shares[-1], shares == sorted(shares)) == (0.0, 1.0, True)


def test_an_import_for_a_run_leaves_progress_to_the_run(llama: Path) -> None:
    events: list[Event] = []
    import_gguf(llama, events.append, lambda: False)
    assert not any(isinstance(event, Progress) for event in events)


def test_import_of_a_large_tensor_can_be_stopped(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_values, "CHUNK_ELEMENTS", 500)  # 42 pieces of the embedding, which comes first
    asked = iter(range(10_000))
    with pytest.raises(Cancelled):
        import_gguf(llama, list[Event]().append, lambda: next(asked) > 20)
    assert next(asked) == 22
