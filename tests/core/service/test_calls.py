"""Tests of the handlers without a child process, with a Hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from core.calibration.preview import Preview
from core.codec import decode, encode
from core.errors import BadInput, Cancelled, UnsupportedModel
from core.events import Done, Event, Failed, Log, Progress, Stage
from core.formats.dequantized.source import read_source
from core.inference import devices as machine
from core.inference.machine import Device
from core.jobs import store
from core.model.headers import read_folder
from core.schemes import LayerScheme
from core.sensitivity.spec import AnalysisSpec
from core.service import calls
from core.service.messages import (
    ConvertModel,
    DownloadModel,
    FetchCard,
    ListOutputs,
    MeasureMachine,
    MeasureSensitivity,
    ModelFolder,
    OpenModel,
    PreviewText,
    Request,
    SearchHub,
    SurveyConversions,
    result_type,
)
from core.spec import JobSpec
from tests.core.formats.dequantized.stored import save_quantized_model
from tests.core.formats.gguf import gguf_files
from tests.core.hub.local_hub import Hub, closed_port, point_at, serve
from tests.core.tiny_model import CONFIG, save_model

R = TypeVar("R")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("calls") / "model")


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(Hub({path.name: path.read_bytes() for path in model.iterdir()})) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def ask(request: Request[R], seen: list[Event] | None = None) -> R:
    """Return the result of a request after encoding and decoding."""
    events: list[Event] = [] if seen is None else seen
    result = calls.handlers()[type(request)](request, events.append, lambda: False)
    return decode(result_type(type(request)), json.loads(json.dumps(encode(result))))


def test_open_a_model_on_the_hub_without_a_download(hub: Hub, model: Path) -> None:
    values = ask(OpenModel("some/model"))
    assert (values.label, values.origin, values.folder) == ("some/model", "hub", "")
    assert values.config == CONFIG
    assert {info.name: info for info in values.tensors} == read_folder(model)
    assert values.download_bytes == sum(len(content) for content in hub.files.values())


def test_open_a_model_in_the_cache_without_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ask(DownloadModel("some/model")).path
    point_at(f"http://127.0.0.1:{closed_port()}", tmp_path / "cache", monkeypatch)
    values = ask(OpenModel("some/model"))
    assert (values.folder, values.origin, values.download_bytes) == (str(folder), "hub", 0)


def test_open_a_gguf_file_with_progress_of_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    file = gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.build("llama"))
    seen: list[Event] = []
    ask(OpenModel(str(file)), seen)
    assert [event.fraction for event in seen if isinstance(event, Progress)][-1] == 1.0


def test_open_a_model_that_cannot_be_quantized(model: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "experts")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_local_experts": 8}))
    assert ask(OpenModel(str(folder))).tensors


def test_open_a_quantized_source_with_the_tensors_of_its_original(hub: Hub, tmp_path: Path) -> None:
    folder = save_quantized_model(tmp_path / "fp8", "fp8")
    here = ask(OpenModel(str(folder)))
    hub.files.update({path.name: path.read_bytes() for path in folder.iterdir()})
    there = ask(OpenModel("some/model"))
    source = read_source(folder)
    for values in (here, there):
        assert {info.name: info for info in values.tensors} == source.table
        assert values.note.startswith(source.note)
        assert values.file_bytes == source.stored_bytes > 0
        assert "quantization_config" not in values.config
        assert values.refusal == ""


def test_open_a_model_whose_format_cannot_be_read(tmp_path: Path) -> None:
    folder = save_quantized_model(tmp_path / "fp8", "fp8")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "hqq"}
    (folder / "config.json").write_text(json.dumps(config))
    values = ask(OpenModel(str(folder)))
    assert "quantized with 'hqq'" in values.refusal


def test_unknown_architecture_is_an_error_before_headers_are_read(hub: Hub) -> None:
    hub.files["config.json"] = json.dumps({"model_type": "of-tomorrow"}).encode()
    with pytest.raises(UnsupportedModel):
        ask(OpenModel("some/model"))
    assert "model.safetensors" not in hub.sent


def test_download_has_progress(hub: Hub) -> None:
    seen: list[Event] = []
    folder = ask(DownloadModel("some/model"), seen).path
    assert (folder / "model.safetensors").is_file()
    assert [event.fraction for event in seen if isinstance(event, Progress)][-1] == 1.0


def test_folder_needs_no_download(model: Path) -> None:
    assert ask(DownloadModel(str(model))) == ModelFolder(model)


def test_every_usable_device_is_measured() -> None:
    values = ask(MeasureMachine())
    usable = {device.id for device in values.devices if device.usable}
    assert values.throughput is not None
    assert set(values.throughput) == set(values.dtype) == set(values.backends) == usable
    assert values.chosen in usable
    assert values.throughput["cpu"] > 1e6


def test_device_that_fails_its_measurement_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(device: Device) -> machine.DtypeProbe:
        if device.kind != "cpu":
            raise calls.DeviceProblem("It failed.")
        return machine.DtypeProbe("float32", {"float32": 10.0})

    broken = Device("cuda:0", "cuda", "Card", 1, 1)
    monkeypatch.setattr(machine, "list_devices", lambda: (Device("cpu", "cpu", "CPU", 1, 1), broken))
    monkeypatch.setattr(machine, "probe_dtype", probe)
    values = ask(MeasureMachine())
    assert (values.chosen, values.throughput) == ("cpu", {"cpu": 1e10})
    assert [(device.usable, device.reason) for device in values.devices] == [(True, ""), (False, "It failed.")]


def test_search_with_defaults(hub: Hub) -> None:
    hub.listing = [{"id": "some/model"}]
    assert [found.id for found in ask(SearchHub("model")).models] == ["some/model"]


def test_card_is_markdown(hub: Hub) -> None:
    hub.files["README.md"] = b"# Title"
    assert ask(FetchCard("some/model")).text == "# Title"


def test_card_of_the_demo_has_a_license() -> None:
    assert ask(FetchCard("demo")).license == "Apache-2.0"


def finish(output: Path, state: str = "done", formats: tuple[str, ...] = ("auto_round",)) -> None:
    """Create a job that ended, with its outputs unless it failed."""
    spec = JobSpec("owner/big", str(output), formats=formats)
    job = store.create(spec)
    with store.EventLog(job / store.EVENTS) as log:
        log(Done(str(output), 1.0, {}) if state == "done" else Failed("error", "It failed.", "", "tune", False))
    for name in formats:
        spec.output_of(name).mkdir(parents=True, exist_ok=True)
        (spec.output_of(name) / "config.json").write_text("{}")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of outputs, in an empty home."""
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "outputs"


def folders() -> list[str]:
    return [found.folder.name for found in ask(ListOutputs()).outputs]


def test_outputs_are_listed_newest_first(jobs: Path) -> None:
    finish(jobs / "first")
    finish(jobs / "second")
    assert folders() == ["second", "first"]


def test_output_of_a_failed_run_is_not_listed(jobs: Path) -> None:
    finish(jobs / "out", "failed")
    assert folders() == []


def test_deleted_output_is_not_listed(jobs: Path) -> None:
    finish(jobs / "out")
    (jobs / "out" / "config.json").unlink()
    assert folders() == []


def test_output_of_two_runs_is_listed_once(jobs: Path) -> None:
    finish(jobs / "out")
    finish(jobs / "out")
    assert folders() == ["out"]


def test_every_format_of_a_run_is_listed(jobs: Path) -> None:
    finish(jobs / "out", formats=("auto_round", "auto_gptq"))
    assert folders() == ["auto_round", "auto_gptq"]


def preview(model: str, seen: list[Event] | None = None) -> Preview:
    return ask(PreviewText("builtin", samples=2, seqlen=64, seed=1, model=model), seen)


def test_preview_counts_tokens_of_a_local_model(model: Path) -> None:
    values = preview(str(model))
    assert (values.tokens, len(values.rows)) == (128, 2)


@pytest.mark.parametrize("name", ["", "some/model"])
def test_preview_without_a_model_downloads_nothing(hub: Hub, name: str) -> None:
    assert preview(name).tokens == 0
    assert hub.requests == []


def test_preview_reports_why_tokens_are_not_counted(tmp_path: Path) -> None:
    seen: list[Event] = []
    assert preview(str(tmp_path / "gone"), seen).tokens == 0
    assert [event.level for event in seen if isinstance(event, Log)] == ["warning"]


def test_sensitivity_is_measured_with_progress_and_then_cached(model: Path) -> None:
    spec = AnalysisSpec(str(model), tuple(LayerScheme(bits, 32) for bits in (4, 8)), samples=2, seqlen=32)
    seen: list[Event] = []
    table = ask(MeasureSensitivity(spec), seen)
    assert [scheme.bits for scheme in table.schemes] == [4, 8]
    assert all(few > many for few, many in table.loss_increase)
    assert [event.fraction for event in seen if isinstance(event, Progress)][-1] == 1
    again: list[Event] = []
    assert ask(MeasureSensitivity(spec), again) == table
    assert not [event for event in again if isinstance(event, Progress)]


def test_measurement_of_sensitivity_can_be_stopped(model: Path) -> None:
    request = MeasureSensitivity(AnalysisSpec(str(model), (LayerScheme(3, 32),), samples=2, seqlen=32))
    with pytest.raises(Cancelled):
        calls.measure_sensitivity(request, lambda _event: None, lambda: True)


def test_survey_lists_the_conversions(model: Path, jobs: Path) -> None:
    found = ask(SurveyConversions(str(model)))
    assert found.source.label == "model"
    assert {"f32", "gguf"} <= {option.format for option in found.options}


def test_conversion_returns_its_report(model: Path, jobs: Path) -> None:
    seen: list[Event] = []
    values = ask(ConvertModel(str(model), str(jobs / "out"), "f32"), seen)
    assert (values.output, values.report["exact"]) == (str(jobs / "out"), True)
    assert [event.name for event in seen if isinstance(event, Stage)] == ["prepare", "convert", "verify"]
    assert any(isinstance(event, Progress) for event in seen)
    assert not any(isinstance(event, Done) for event in seen)


def test_inexact_conversion_only_on_request(model: Path, jobs: Path) -> None:
    with pytest.raises(BadInput, match=r"significant bits|outside the range"):
        ask(ConvertModel(str(model), str(jobs / "out"), "f16"))
    assert ask(ConvertModel(str(model), str(jobs / "out"), "f16", inexact=True)).report


def test_gguf_output_is_listed(jobs: Path) -> None:
    finish(jobs / "out")
    (jobs / "out" / "config.json").rename(jobs / "out" / "model.gguf")
    assert folders() == ["out"]
