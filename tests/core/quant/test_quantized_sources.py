"""A run on a quantized source gives the output of a run on the same weights in 16 bits, and reports the source."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.estimation import preflight
from core.events import Event, Log
from core.files import read_json
from core.formats.dequantized.source import read_source
from core.inference.loader import load_model, load_runner
from core.schemes import LayerScheme
from core.sensitivity.analyse import analyse
from core.sensitivity.spec import AnalysisSpec
from tests.core.formats.dequantized.stored import save_quantized_model, save_unpacked_twin
from tests.core.quant.test_pipeline import report_of, run, spec_of

NAMES = {"fp8": "FP8 (blocks of 32x32)", "nvfp4": "NVFP4", "int4": "INT4 (groups of 32)"}


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path, kind: str) -> Path:
    return save_quantized_model(tmp_path / "source", kind)


@pytest.fixture
def twin(tmp_path: Path, source: Path) -> Path:
    return save_unpacked_twin(tmp_path / "twin", source)


def test_the_output_is_that_of_the_same_weights_in_16_bits(source: Path, twin: Path, kind: str, tmp_path: Path) -> None:
    report = report_of(run(spec_of(source, tmp_path, iters=1, output="one"), tmp_path))
    other = report_of(run(spec_of(twin, tmp_path, iters=1, output="two"), tmp_path))
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert {name: tensor.dtype for name, tensor in found.items()} == {k: v.dtype for k, v in expected.items()}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert report["source_note"] == read_source(source).note
    assert NAMES[kind] in report["source_note"]
    assert report["source_sha256"] == other["source_sha256"]
    assert report["source_bytes"] == sum(tensor.nbytes for tensor in load_file(source / "model.safetensors").values())
    configs = [read_json(tmp_path / name / "config.json") for name in ("one", "two")]
    assert configs[0] == configs[1]
    assert configs[0]["quantization_config"]["quant_method"] == "auto-round"


def test_its_tree_is_that_of_the_original(source: Path, twin: Path) -> None:
    found, expected = preflight.read_tree(source), preflight.read_tree(twin)
    assert found.refusal == ""
    assert (found.linears, found.config, found.nbytes) == (expected.linears, expected.config, expected.nbytes)


@pytest.mark.parametrize("kind", ["fp8"], indirect=True)
def test_its_sensitivity_is_that_of_the_same_weights(
    source: Path, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    tables = [
        analyse(AnalysisSpec(str(folder), (LayerScheme(4, 32),), samples=2, seqlen=32), lambda _: None, lambda: False)
        for folder in (source, twin)
    ]
    assert tables[0] == tables[1]


def test_it_is_evaluated_and_chatted_with_unpacked(source: Path, twin: Path) -> None:
    events: list[Event] = []
    ids = torch.arange(5, 45).view(1, -1)
    one, two = (load_model(str(folder), "cpu", "float32", emit=events.append) for folder in (source, twin))
    with torch.no_grad():
        assert torch.equal(one.model(ids).logits, two.model(ids).logits)
    assert [event.message for event in events if isinstance(event, Log)] == [read_source(source).note]
    runners = [load_runner(str(folder), "cpu", context=64) for folder in (source, twin)]
    try:
        logits = [runner.runner.logits(list(range(5, 25))) for runner in runners]
        assert torch.equal(logits[0], logits[1])
        assert runners[0].weight_bytes < runners[1].weight_bytes
    finally:
        for runner in runners:
            runner.runner.close()
