"""Downloads from a local Hub: the files that are downloaded, and the errors."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from core.errors import (
    BitwrightError,
    Cancelled,
    CorruptFile,
    DiskFull,
    HubUnreachable,
    ModelNotFound,
    UnsupportedModel,
)
from core.events import Event, Log, Progress
from core.hub import download as module
from core.hub.download import cached, download, wanted_files
from core.model.headers import read_folder
from tests.core.hub.local_hub import Hub, closed_port, point_at, serve

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def weights(value: float) -> bytes:
    return save({f"x{value}": np.full(200_000, value, np.float32)})


FILES: dict[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"hello",
    "preprocessor_config.json": b"{}",
    "processor_config.json": b"{}",
    "video_preprocessor_config.json": b"{}",
    "LICENSE": b"free",
    "README.md": b"# model",
    "model.safetensors": weights(1),
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"graph",
    "original/consolidated.safetensors": b"other",
}
NEEDED = set(FILES) - {"pytorch_model.bin", "onnx/model.onnx", "original/consolidated.safetensors"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(Hub(dict(FILES))) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def fetch(name: str = "some/model", **options: Any) -> Path:
    return download(name, options.pop("emit", list[Event]().append), lambda: False, **options)


def failure(name: str = "some/model") -> BitwrightError:
    with pytest.raises(BitwrightError) as caught:
        fetch(name)
    return caught.value


def test_only_the_needed_files_are_downloaded(hub: Hub) -> None:
    assert {path.name for path in fetch().iterdir()} == NEEDED


def test_the_downloaded_folder_is_a_checkpoint(hub: Hub) -> None:
    assert list(read_folder(fetch())) == ["x1"]


def test_shards_and_their_index_are_downloaded(hub: Hub) -> None:
    del hub.files["model.safetensors"]
    shards = {f"model-0000{n}-of-00002.safetensors": weights(n) for n in (1, 2)}
    table = {"weight_map": {"x1": "model-00001-of-00002.safetensors", "x2": "model-00002-of-00002.safetensors"}}
    hub.files.update(shards | {"model.safetensors.index.json": json.dumps(table).encode(), "extra.safetensors": b"x"})
    folder = fetch()
    assert set(read_folder(folder)) == {"x1", "x2"}
    assert not (folder / "extra.safetensors").exists()


def test_a_second_call_downloads_nothing(hub: Hub) -> None:
    fetch()
    hub.requests.clear()
    events: list[Event] = []
    fetch(emit=events.append)
    assert events == []
    assert not [path for path in hub.requests if path.endswith(".safetensors")]


def test_progress_is_logged_in_steps_of_10_percent(hub: Hub) -> None:
    events: list[Event] = []
    fetch(emit=events.append)
    messages = [event.message for event in events if isinstance(event, Log)]
    assert messages[0] == "Downloading some/model: 800 kB."
    assert messages[1:]
    assert all(message.endswith(" % of 800 kB.") for message in messages[1:])


def test_measured_progress_increases_to_1(hub: Hub) -> None:
    events: list[Event] = []
    fetch(emit=events.append, measured=True)
    shares = [event.fraction for event in events if isinstance(event, Progress)]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_a_download_for_a_run_emits_no_progress_events(hub: Hub) -> None:
    events: list[Event] = []
    fetch(emit=events.append)
    assert not [event for event in events if isinstance(event, Progress)]


def test_the_config_is_checked_before_any_weight(hub: Hub) -> None:
    def refuse(config: Any) -> None:
        assert config == CONFIG
        raise UnsupportedModel("No.")

    with pytest.raises(UnsupportedModel):
        fetch(check=refuse)
    assert not [path for path in hub.requests if path.endswith(".safetensors")]


def test_a_model_in_the_cache_is_found_without_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch()
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path / "cache", monkeypatch)
    events: list[Event] = []
    assert fetch(emit=events.append) == folder
    assert [event.level for event in events if isinstance(event, Log)] == ["warning"]


def test_offline_mode_uses_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == folder


def test_an_incomplete_model_in_the_cache_is_not_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()
    (folder / "model.safetensors").unlink()
    assert cached("some/model") is None


def test_no_server_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path, monkeypatch)
    error = failure()
    assert (type(error), "could not be reached" in error.message) == (HubUnreachable, True)


def test_a_silent_server_is_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKUP_SECONDS", 2.5)
    hub.silent = 4.0
    assert "could not be reached" in failure().message


def test_bounded_times_out_even_if_the_call_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        module.bounded(never.wait, lambda: False, 0.3)
    never.set()


def test_offline_mode_without_a_copy_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in failure().message


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "RepoNotFound", ModelNotFound, "no such model"),
        (401, "RepoNotFound", ModelNotFound, "no such model"),
        (401, "", HubUnreachable, "status 401"),
        (401, "GatedRepo", HubUnreachable, "gated"),
        (403, "GatedRepo", HubUnreachable, "gated"),
        (403, "", HubUnreachable, "status 403"),
        (500, "", HubUnreachable, "status 500"),
        (429, "", HubUnreachable, "status 429"),
    ],
)
def test_denied_requests_are_distinguished(
    hub: Hub, status: int, code: str, kind: type[BitwrightError], words: str
) -> None:
    hub.status, hub.error_code = status, code
    error = failure()
    assert (type(error), words in error.message) == (kind, True)


def test_a_gated_model_is_detected_at_its_first_file(hub: Hub) -> None:
    hub.gated = True
    error = failure()
    assert (type(error), "gated" in error.message) == (HubUnreachable, True)


@pytest.mark.parametrize("drop", ["model.safetensors", "config.json"])
def test_a_repository_without_config_or_weights_is_unsupported(hub: Hub, drop: str) -> None:
    del hub.files[drop]
    assert isinstance(failure(), UnsupportedModel)


def test_too_little_disk_space_is_reported_before_the_weights_are_requested(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda path: 1000)
    assert isinstance(failure(), DiskFull)
    assert not [path for path in hub.requests if path.endswith(".safetensors")]


def test_a_full_disk_is_distinguished_from_a_network_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    assert isinstance(failure(), DiskFull)


@pytest.mark.parametrize("name", ["config.json", "LICENSE", "model.safetensors"])
def test_a_file_damaged_in_transfer_is_downloaded_again(hub: Hub, name: str) -> None:
    hub.checksums, hub.damaged[name] = True, 1
    events: list[Event] = []
    folder = fetch(emit=events.append)
    assert (folder / name).read_bytes() == FILES[name]
    warnings = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert warnings == [f"{name} was damaged in transfer and is downloaded again."]


def test_a_file_that_is_damaged_twice_is_rejected_and_removed(hub: Hub) -> None:
    hub.checksums, hub.damaged["model.safetensors"] = True, 2
    problem = failure()
    assert isinstance(problem, CorruptFile)
    assert "model.safetensors of some/model was damaged in transfer twice: its checksum differs" in problem.message
    assert (fetch() / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_should_stop_cancels_a_download(hub: Hub) -> None:
    hub.slow = 0.2
    answers = iter([False] * 8)
    with pytest.raises(Cancelled):
        download("some/model", list[Event]().append, lambda: next(answers, True))


@pytest.mark.parametrize("names", [["config.json"], ["config.json", "sub/model.safetensors"], ["model.safetensors"]])
def test_files_without_config_or_weights_are_unsupported(names: list[str]) -> None:
    with pytest.raises(UnsupportedModel):
        wanted_files(names, "some/model")


# --- repositories of GGUF files ---


@pytest.fixture
def gguf_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    parts = {f"Q8_0/m-Q8_0-0000{number}-of-00002.gguf": b"GGUF%d" % number for number in (1, 2)}
    files = {"README.md": b"# model", "m-Q4_0.gguf": b"GGUF", "mmproj-F16.gguf": b"GGUF", **parts}
    with serve(Hub(files)) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def test_a_type_selects_the_gguf_model(gguf_hub: Hub) -> None:
    path = fetch("some/model:Q4_0")
    assert (path.name, path.read_bytes()) == ("m-Q4_0.gguf", b"GGUF")
    assert [found.name for found in path.parent.iterdir()] == ["m-Q4_0.gguf"]


def test_all_parts_of_a_split_gguf_model_are_downloaded(gguf_hub: Hub) -> None:
    path = fetch("some/model:q8_0")
    assert path.name == "m-Q8_0-00001-of-00002.gguf"
    assert sorted(found.read_bytes() for found in path.parent.iterdir()) == [b"GGUF1", b"GGUF2"]


def test_several_gguf_models_are_listed(gguf_hub: Hub) -> None:
    problem = failure()
    assert (problem.code, problem.message) == ("bad-input", "some/model contains 2 GGUF models: Q8_0, Q4_0.")
    assert "some/model:Q8_0" in problem.hint


def test_a_gguf_model_in_the_cache_is_found_without_the_hub(gguf_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch("some/model:Q8_0")
    point_at(f"http://127.0.0.1:{closed_port()}", Path(constants.HF_HUB_CACHE), monkeypatch)
    assert cached("some/model:Q8_0") == path == cached("some/model")
    assert fetch("some/model:Q8_0") == path
    assert cached("some/model:Q4_0") is None
