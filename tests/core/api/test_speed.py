"""Measurement of a model's speed, and the report that keeps the figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core.api import speed
from core.codec import encode
from core.errors import BadInput
from core.events import Event, Log
from core.inference import bandwidth
from core.inference.bandwidth import Bandwidth
from core.inference.figures import SpeedReport
from tests.core.inference.scripted_runners import CountingRunner
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model


@pytest.fixture(autouse=True)
def known_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "read_bandwidth", lambda device: Bandwidth(2e9, device, 1, "said by the test"))


def loaded(folder: Path, weight_bytes: int = 1000) -> Any:
    return SimpleNamespace(
        runner=CountingRunner(), folder=folder, device="cpu", device_name="a processor", dtype="float32",
        weight_bytes=weight_bytes, counts={"native": 3, "dense": 14},
    )  # fmt: skip


def bench(folder: Path, lengths: Any = (8,), model: str = "") -> tuple[SpeedReport, list[Event]]:
    events: list[Event] = []
    found = speed.measure_speed(loaded(folder), lengths, events.append, lambda: False, model)
    return found, events


def test_the_backend_is_that_of_most_layers(tmp_path: Path) -> None:
    assert bench(tmp_path)[0].backend == "dense"


def test_the_report_of_the_run_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "bitwright.json").write_text('{"seconds": 5}', encoding="utf-8")
    found, _ = bench(tmp_path)
    report = json.loads((tmp_path / "bitwright.json").read_text(encoding="utf-8"))
    assert found.report_path == str(tmp_path / "bitwright.json")
    assert report["seconds"] == 5
    assert report["bench"][-1]["rows"] == encode(found.rows)


def test_older_figures_stay_up_to_a_number(tmp_path: Path) -> None:
    (tmp_path / "bitwright.json").write_text(json.dumps({"bench": [{"number": n} for n in range(30)]}), "utf-8")
    bench(tmp_path)
    kept = json.loads((tmp_path / "bitwright.json").read_text(encoding="utf-8"))["bench"]
    assert len(kept) == speed.KEPT
    assert [one.get("number") for one in kept[-3:]] == [28, 29, None]


def test_without_a_report_nothing_is_written(tmp_path: Path) -> None:
    assert bench(tmp_path)[0].report_path == ""
    assert list(tmp_path.iterdir()) == []


def test_a_broken_report_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bitwright.json").write_text("{", encoding="utf-8")
    found, events = bench(tmp_path)
    assert found.report_path == ""
    assert (tmp_path / "bitwright.json").read_text(encoding="utf-8") == "{"
    assert any(isinstance(event, Log) and event.level == "warning" for event in events)


def test_the_report_of_a_gguf_file_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "m.gguf").touch()
    (tmp_path / "run" / "bitwright.json").write_text("{}", encoding="utf-8")
    found, _ = bench(tmp_path, model=str(tmp_path / "run" / "m.gguf"))
    assert found.report_path == str(tmp_path / "run" / "bitwright.json")


def test_a_report_beside_several_gguf_files_is_nobodys(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    (tmp_path / "bitwright.json").write_text("{}", encoding="utf-8")
    assert speed.report_of(str(tmp_path / "a.gguf"), tmp_path) is None


@pytest.mark.parametrize("lengths", [[], [0], ["8"], [True], [1] * 17])
def test_lengths_that_are_none_are_refused(tmp_path: Path, lengths: Any) -> None:
    with pytest.raises(BadInput, match="lengths"):
        bench(tmp_path, lengths)


def test_a_tied_embedding_is_read_for_every_token(tmp_path: Path) -> None:
    assert speed.step_bytes(loaded(save_model(tmp_path / "tiny"))) == 1000


def test_experts_that_a_token_does_not_use_are_not_read(tmp_path: Path) -> None:
    make_model("qwen3_moe", tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(tmp_path / "tiny" / "model.safetensors")
    experts = sum(tensor.nbytes for name, tensor in tensors.items() if ".experts." in name)
    everything = sum(tensor.nbytes for tensor in tensors.values())
    used = config["num_experts_per_tok"] / config["num_local_experts"]
    others = everything - experts - tensors["model.embed_tokens.weight"].nbytes
    assert used < 1
    assert speed.step_bytes(loaded(tmp_path / "tiny", everything)) == pytest.approx(others + used * experts, abs=1)


def test_an_embedding_that_is_no_head_is_not(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tiny")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).clone()
    save_file(tensors, folder / "model.safetensors")
    assert speed.step_bytes(loaded(folder, 100_000)) == 100_000 - 288 * 64 * 2
