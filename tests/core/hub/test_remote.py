"""Headers of models on a local Hub, and the number of bytes that are requested for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from core.errors import BitwrightError, Cancelled, CorruptFile, HubUnreachable, ModelNotFound, UnsupportedModel
from core.events import Event, Progress
from core.hub.download import download
from core.hub.remote import RemoteModel, read_remote
from core.model.headers import read_folder
from tests.core.hub.local_hub import Hub, closed_port, point_at, serve

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
BIG = save({"a": np.zeros((512, 1024), np.float32), "b": np.zeros(7, np.float16)})
INDEX = "model.safetensors.index.json"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": BIG, "tokenizer.json": b"{}"}
    with serve(Hub(files)) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def read(emit: Any = None, **options: Any) -> RemoteModel:
    return read_remote("some/model", emit or list[Event]().append, lambda: False, **options)


def failure() -> BitwrightError:
    with pytest.raises(BitwrightError) as caught:
        read()
    return caught.value


def in_shards(hub: Hub, count: int) -> None:
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    del hub.files["model.safetensors"]
    for number, name in enumerate(names):
        hub.files[name] = save({f"x{number}": np.zeros(1000 + number, np.float32)})
    table = {"weight_map": {f"x{number}": name for number, name in enumerate(names)}}
    hub.files[INDEX] = json.dumps(table).encode()


def test_the_table_equals_that_of_the_downloaded_model(hub: Hub) -> None:
    remote = read()
    folder = download("some/model", list[Event]().append, lambda: False)
    assert (remote.config, remote.tensors) == (CONFIG, read_folder(folder))


def test_the_table_of_shards_equals_that_of_the_downloaded_model(hub: Hub) -> None:
    in_shards(hub, 12)
    remote = read()
    folder = download("some/model", list[Event]().append, lambda: False)
    assert remote.tensors == read_folder(folder)


def sent(hub: Hub, name: str) -> int:
    """Return the bytes of a file that the server sent; its thread counts them after the client has read them."""
    wait = threading.Event()
    while name not in hub.sent:
        wait.wait(0.02)
    return hub.sent[name]


def test_only_the_beginning_of_the_weights_is_requested(hub: Hub) -> None:
    read()
    assert sent(hub, "model.safetensors") <= 128 << 10


def test_reading_stops_early_without_range_support(hub: Hub) -> None:
    hub.ranges, hub.slow = False, 0.02
    hub.files["model.safetensors"] = save({"a": np.zeros((2048, 2048), np.float32)})
    assert read().tensors["a"].shape == (2048, 2048)
    assert sent(hub, "model.safetensors") < 8 << 20


@pytest.mark.parametrize("ranges", [True, False])
def test_a_header_longer_than_one_request_is_read_completely(hub: Hub, ranges: bool) -> None:
    hub.ranges = ranges
    hub.files["model.safetensors"] = save({f"layer.{number}.weight": np.zeros(1, np.int8) for number in range(3000)})
    assert len(read().tensors) == 3000


def test_download_bytes_count_the_wanted_files(hub: Hub) -> None:
    hub.files["pytorch_model.bin"] = b"not wanted"
    assert read().download_bytes == sum(
        len(hub.files[n]) for n in ("config.json", "model.safetensors", "tokenizer.json")
    )


def test_download_bytes_exclude_files_in_the_cache(hub: Hub) -> None:
    download("some/model", list[Event]().append, lambda: False)
    assert read().download_bytes == 0


def test_progress_is_emitted_for_several_files(hub: Hub) -> None:
    in_shards(hub, 12)
    hub.silent = 0.15
    events: list[Event] = []
    read(events.append)
    assert [event.fraction for event in events if isinstance(event, Progress)][-1] == 1.0


def test_the_config_is_checked_before_any_header(hub: Hub) -> None:
    def refuse(config: Any) -> None:
        raise UnsupportedModel("No.")

    with pytest.raises(UnsupportedModel):
        read(check=refuse)
    assert "model.safetensors" not in hub.sent


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", BIG[:-5]),
        ("model.safetensors", b"\x10" + bytes(7) + b"x" * 16),
    ],
)
def test_an_invalid_file_is_corrupt(hub: Hub, name: str, content: bytes) -> None:
    hub.files[name] = content
    assert isinstance(failure(), CorruptFile | HubUnreachable)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"weight_map": {}},
        {"weight_map": {"x0": "../../etc/passwd"}},
        {"weight_map": {"x0": "missing.safetensors"}},
    ],
)
def test_an_invalid_index_is_corrupt(hub: Hub, table: dict[str, Any]) -> None:
    in_shards(hub, 2)
    hub.files[INDEX] = json.dumps(table).encode()
    assert isinstance(failure(), CorruptFile)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "RepoNotFound", ModelNotFound), (401, "GatedRepo", HubUnreachable), (500, "", HubUnreachable)],
)
def test_denied_requests_are_distinguished(hub: Hub, status: int, code: str, kind: type[BitwrightError]) -> None:
    hub.status, hub.error_code = status, code
    assert isinstance(failure(), kind)


def test_a_gated_model_is_reported(hub: Hub) -> None:
    hub.gated = True
    assert "gated" in failure().message


def test_no_server_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path, monkeypatch)
    assert isinstance(failure(), HubUnreachable)


def test_should_stop_ends_the_wait_for_a_silent_server(hub: Hub) -> None:
    hub.silent = 2.0
    answers = iter([False])
    with pytest.raises(Cancelled):
        read_remote("some/model", list[Event]().append, lambda: next(answers, True))


def test_a_gguf_model_is_read_after_its_download(hub: Hub) -> None:
    hub.files["m-Q8_0.gguf"] = b"GGUF"
    with pytest.raises(UnsupportedModel, match="some/model:Q8_0 is a GGUF file"):
        read_remote("some/model:Q8_0", list[Event]().append, lambda: False)
