"""Model cards: of folders, of the cache, of a Hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from core.errors import HubUnreachable
from core.hub.card import LIMIT_BYTES, license_of, read_card
from core.hub.download import download
from tests.core.hub.local_hub import Hub, closed_port, point_at, serve

CARD = b"---\nlicense: apache-2.0\ntags:\n- x\n---\n\n# A model\n\n---\n\ntext\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    weights = save({"x": np.zeros(10, np.float32)})
    files = {"config.json": json.dumps({}).encode(), "model.safetensors": weights, "README.md": CARD}
    with serve(Hub(files)) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def card(model: str) -> str:
    return read_card(model, lambda: False)


def test_a_card_on_the_hub_comes_without_its_metadata(hub: Hub) -> None:
    assert card("some/model") == "# A model\n\n---\n\ntext\n"


def test_a_model_without_a_card_has_none(hub: Hub) -> None:
    del hub.files["README.md"]
    assert card("some/model") == ""


def test_a_card_of_a_downloaded_model_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download("some/model", [].append, lambda: False)
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path / "cache", monkeypatch)
    assert card("some/model").startswith("# A model")


def test_a_hub_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path, monkeypatch)
    with pytest.raises(HubUnreachable):
        card("some/model")


def test_an_endless_card_is_cut(hub: Hub) -> None:
    hub.files["README.md"] = b"x" * (2 * LIMIT_BYTES)
    assert len(card("some/model")) == LIMIT_BYTES


def test_a_folder_has_the_card_that_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\r\na: b\r\n---\r\nhello")
    assert card(str(tmp_path)) == "hello"


@pytest.mark.parametrize("model", ["demo", "/no/such/folder", "/no/such.gguf"])
def test_what_has_no_card_has_none(model: str) -> None:
    assert card(model) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [(CARD.decode(), "apache-2.0"), ("---\nlicense: 'mit'\n---\n", "mit"), ("license: mit", ""), ("", "")],
)
def test_the_licence_is_in_the_metadata(text: str, name: str) -> None:
    assert license_of(text) == name
