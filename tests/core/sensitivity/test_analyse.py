"""Complete measurements of a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import BadInput, Cancelled, CorruptFile
from core.events import Event, Progress
from core.schemes import LayerScheme
from core.sensitivity.analyse import analyse
from core.sensitivity.spec import MEASURES, AnalysisSpec
from core.sensitivity.table import SensitivityTable
from tests.core.tiny_model import BLOCKS, SHAPES, save_model

SCHEMES = tuple(LayerScheme(bits, 32) for bits in (2, 3, 4, 8))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def spec(tmp_path: Path) -> AnalysisSpec:
    return AnalysisSpec(str(save_model(tmp_path / "model")), SCHEMES, samples=3, seqlen=64)


def never() -> bool:
    return False


def run(spec: AnalysisSpec) -> tuple[SensitivityTable, list[Event]]:
    events: list[Event] = []
    return analyse(spec, events.append, never), events


@pytest.mark.parametrize("measure", [measure.name for measure in MEASURES])
def test_every_layer_has_a_positive_loss_increase(spec: AnalysisSpec, measure: str) -> None:
    table, _ = run(replace(spec, measure=measure))
    assert (table.measure, table.schemes) == (measure, SCHEMES)
    assert len(table.layers) == BLOCKS * len(SHAPES)
    assert all(value > 0 for row in table.loss_increase for value in row)


@pytest.mark.parametrize("measure", [measure.name for measure in MEASURES])
def test_fewer_bits_raise_the_loss(spec: AnalysisSpec, measure: str) -> None:
    table, _ = run(replace(spec, measure=measure))
    assert all(list(row) == sorted(row, reverse=True) for row in table.loss_increase)


def test_the_same_spec_gives_the_same_table(spec: AnalysisSpec, home: Path) -> None:
    first, _ = run(spec)
    for file in (home / "sensitivity").iterdir():
        file.unlink()
    assert run(spec)[0] == first


def test_progress_rises_to_one(spec: AnalysisSpec) -> None:
    shares = [event.fraction for event in run(spec)[1] if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert len(shares) == 2 * BLOCKS
    assert shares[-1] == 1


def test_a_second_measurement_comes_from_the_cache(spec: AnalysisSpec) -> None:
    first, _ = run(spec)
    again, events = run(spec)
    assert again == first
    assert not any(isinstance(event, Progress) for event in events)


def test_a_changed_model_file_is_measured_again(spec: AnalysisSpec) -> None:
    run(spec)
    weights = Path(spec.model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert any(isinstance(event, Progress) for event in run(spec)[1])


def test_a_damaged_cache_file_is_ignored(spec: AnalysisSpec, home: Path) -> None:
    first, _ = run(spec)
    for file in (home / "sensitivity").iterdir():
        file.write_text("{", encoding="utf-8")
    assert run(spec)[0] == first


def test_a_cancelled_measurement_saves_no_table(spec: AnalysisSpec, home: Path) -> None:
    with pytest.raises(Cancelled):
        analyse(spec, lambda event: None, lambda: True)
    assert not (home / "sensitivity").exists()


def test_a_group_size_that_does_not_divide_the_inputs_is_measured_as_it_would_be_stored(spec: AnalysisSpec) -> None:
    given, fitting = (run(replace(spec, schemes=(LayerScheme(4, group),)))[0] for group in (128, 64))
    name = "model.layers.0.self_attn.q_proj"  # 64 inputs
    assert given.of(name, LayerScheme(4, 128)) == fitting.of(name, LayerScheme(4, 64))


def test_a_sequence_length_above_the_context_is_refused(spec: AnalysisSpec) -> None:
    with pytest.raises(BadInput, match="at most 256"):
        run(replace(spec, seqlen=512))


def test_nan_weights_are_refused(spec: AnalysisSpec) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(spec.model) / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CorruptFile):
        run(spec)
