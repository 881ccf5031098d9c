"""Planning: bad requests are refused before the measurement, budgets hold, and the saved map is the one that runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from core import api, bitsmap
from core.api import planning
from core.bitsmap import BitsMap, Rule
from core.cli import main
from core.control import ShouldStop
from core.errors import BadCalibration, BadInput, BitwrightError, Cancelled, ModelNotFound, OutputProblem
from core.estimation.preflight import read_tree
from core.events import Emit, Progress, Result, from_line
from core.formats.map_exchange import from_checkpoint
from core.model.fused import FusedModules
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity import analyse as sensitivity
from core.sensitivity.spec import AnalysisSpec
from core.sensitivity.table import SensitivityTable

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def tree(tiny: Path) -> ModelTree:
    return read_tree(tiny)


def loss_increase_of(tree: ModelTree, spec: AnalysisSpec) -> SensitivityTable:
    """More for deeper layers, and four times as much for each bit less."""
    rows = [
        tuple((place + 1) * 4.0**-scheme.bits for scheme in spec.schemes) for place in range(len(tree.block_linears))
    ]
    return SensitivityTable(spec.measure, tree.block_linears, spec.schemes, tuple(rows))


@pytest.fixture
def measured(tree: ModelTree, monkeypatch: pytest.MonkeyPatch) -> list[AnalysisSpec]:
    """Record the requested measurements and return made-up tables."""
    asked: list[AnalysisSpec] = []

    def analyse(spec: AnalysisSpec, emit: Emit, should_stop: ShouldStop) -> SensitivityTable:
        asked.append(spec)
        emit(Progress(0.5, -1, -1))
        return loss_increase_of(tree, spec)

    monkeypatch.setattr(sensitivity, "analyse", analyse)
    return asked


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, BadInput, "one budget"),
        ({"bpw": 4, "size": 1000}, BadInput, "one budget"),
        ({"bpw": -1}, BadInput, "budget"),
        ({"size": "much"}, BadInput, "much"),
        ({"bpw": 4, "choices": (5,)}, BadInput, "5"),
        ({"bpw": 4, "choices": (16,)}, BadInput, "16 bits"),
        ({"bpw": 4, "pins": ["*.down_proj"]}, BadInput, "PATTERN=BITS"),
        ({"bpw": 4, "pins": ["*.down_proj=many"]}, BadInput, "PATTERN=BITS"),
        ({"bpw": 4, "pins": ["*.nothing=8"]}, BadInput, r"\*\.nothing"),
        ({"bpw": 4, "min_bits": ["*.nothing=4"]}, BadInput, r"\*\.nothing"),
        ({"bpw": 4, "engine": "abacus"}, BadInput, "abacus"),
        ({"bpw": 4, "format": "ggml"}, BadInput, "ggml"),
        ({"bpw": 4, "measure": "feeling"}, BadInput, "feeling"),
        ({"bpw": 4, "calibration": "./none.txt"}, BadCalibration, "none.txt"),
        ({"bpw": 4, "output": "no/folder/map.json"}, OutputProblem, "does not exist"),
        ({"bpw": 4, "output": "."}, OutputProblem, "a folder"),
        ({"bpw": 1.5}, BadInput, "At least"),
        ({"size": "10kB"}, BadInput, "At least"),
    ],
)
def test_what_cannot_be_planned_is_not_measured(
    tiny: Path,
    place: Path,
    measured: list[AnalysisSpec],
    options: dict[str, Any],
    error: type[BitwrightError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        api.plan(tiny, **{"group_size": 32, **options})
    assert measured == []


def test_a_model_that_is_not_there(place: Path) -> None:
    with pytest.raises(ModelNotFound):
        api.plan("./nothing", bpw=4)


def test_a_file_that_is_there_is_not_replaced(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    (place / "map.json").write_text("by hand", encoding="utf-8")
    with pytest.raises(OutputProblem, match="already exists"):
        api.plan(tiny, bpw=4, group_size=32, output="map.json")
    assert (place / "map.json").read_text(encoding="utf-8") == "by hand"
    assert measured == []


def test_a_stop_while_measuring_leaves_no_map(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    with pytest.raises(Cancelled):
        api.plan(tiny, bpw=4, group_size=32, output="map.json", should_stop=lambda: bool(measured))
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("budget", [{"bpw": 4.5}, {"size": 90_000}])
def test_the_budget_holds(tiny: Path, place: Path, measured: list[AnalysisSpec], budget: dict[str, Any]) -> None:
    found = api.plan(tiny, group_size=32, **budget)
    assert found.allocation.bits <= budget.get("bpw", 16)
    assert found.allocation.size.total <= budget.get("size", 10**9)
    assert found.allocation.loss_increase >= found.allocation.bound
    assert sum(share.layers for share in found.shares()) == 14
    assert sum(share.loss_increase for share in found.shares()) == pytest.approx(found.allocation.loss_increase)


def test_pins_and_minimum_hold(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    found = api.plan(
        tiny, bpw=5, group_size=32, choices=(2, 4), pins=["*.0.*.o_proj=16", "lm_head=8"], min_bits=["*.v_proj=4"]
    )
    bits = {plan.linear.name: plan.scheme.bits for plan in found.plans}
    assert bits["model.layers.0.self_attn.o_proj"] == 16
    assert bits["lm_head"] == 8
    assert bits["model.layers.1.self_attn.v_proj"] == 4


def test_bits_that_only_a_pin_brings_in_are_measured_too(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    api.plan(tiny, bpw=5, group_size=32, choices=(2, 4), pins=["*.o_proj=8"])
    assert [scheme.bits for scheme in measured[0].schemes] == [2, 4, 8]


def test_ties_can_be_loosened(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    fused = api.plan(tiny, bpw=4.4, group_size=32)
    loose = api.plan(tiny, bpw=4.4, group_size=32, fused=FusedModules(False, False, False))
    by_name = {plan.linear.name: plan.scheme for plan in fused.plans}
    assert by_name["model.layers.1.self_attn.q_proj"] == by_name["model.layers.1.self_attn.k_proj"]
    assert loose.allocation.loss_increase <= fused.allocation.loss_increase


def test_the_same_plan_for_programs(tiny: Path, place: Path, measured: list[AnalysisSpec]) -> None:
    found = api.plan(tiny, bpw=5, group_size=32, engine="vllm-cuda", choices=(4, 8))
    value = json.loads(json.dumps(found.to_json()))
    assert bitsmap.from_json(value["bits_map"]) == found.allocation.bits_map
    assert value["engine"] == "vllm-cuda"
    assert sum(scheme["layers"] for scheme in value["schemes"]) == 14


def test_a_pattern_may_hold_an_equals_sign() -> None:
    assert planning.parse_rule("/a=b/=8") == Rule("/a=b/", bits=8)


@pytest.mark.parametrize("engine", ["", "bitwright", "vllm-cuda"])
def test_the_table_for_people(
    tiny: Path, place: Path, measured: list[AnalysisSpec], capsys: Capture, engine: str
) -> None:
    arguments = ["plan", str(tiny), "--bpw", "5", "--choices", "4, 8", "--group-size", "32", "-o", "map.json"]
    assert main([*arguments, *(["--engine", engine] if engine else [])]) == 0
    out = capsys.readouterr().out
    assert "W4 g32 sym" in out
    assert "bits per weight" in out
    assert f"bitwright quantize {shlex.quote(str(tiny))} --output DIR --bits-map map.json" in out
    assert ("runs on:" in out) == bool(engine)


def test_a_plan_for_programs_ends_with_its_result(
    tiny: Path, place: Path, measured: list[AnalysisSpec], capsys: Capture
) -> None:
    arguments = ["plan", str(tiny), "--size", "90kB", "--group-size", "32", "--output", "map.json", "--json"]
    assert main(arguments) == 0
    *before, last = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(last, Result)
    assert last.values["bits_map"] == json.loads((place / "map.json").read_text())
    assert any(isinstance(event, Progress) for event in before)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], "one budget"),
        (["--bpw", "4", "--choices", "two"], "not a list of bits"),
        (["--bpw", "4", "--pin", "*.up_proj"], "PATTERN=BITS"),
        (["--bpw", "4", "--engine", "abacus"], "abacus"),
        (["--bpw", "5", "--engine", "llama-cpp"], "llama.cpp"),
        (["--bpw", "0.5"], "At least"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    tiny: Path, place: Path, capsys: Capture, extra: list[str], words: str
) -> None:
    assert main(["plan", str(tiny), "-o", "map.json", "--group-size", "32", *extra]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert len(err[err.index("error: ") :].splitlines()) <= 2
    assert list(place.iterdir()) == []


def test_from_the_plan_to_the_checkpoint_it_is_one_map(tiny: Path, place: Path, tree: ModelTree) -> None:
    """Measured, chosen, saved, run from the terminal, and read back from what was written."""
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    text = ["--calibration", "text.txt", "--samples", "2", "--seqlen", "32", "--device", "cpu"]
    wanted = ["--bpw", "4.5", "--group-size", "32", "--pin", "lm_head=8", "-o", "map.json"]
    assert main(["plan", str(tiny), *wanted, *text]) == 0
    run = ["quantize", str(tiny), "--output", "out", "--bits-map", "map.json", "--recipe", "quick", "--iters", "1"]
    assert main([*run, *text]) == 0
    planned = bitsmap.load(place / "map.json")
    assert from_checkpoint(place / "out") == planned
    (place / "out" / "bitwright.json").unlink()
    found = from_checkpoint(place / "out")
    assert schemes(tree, found) == schemes(tree, planned)


def schemes(tree: ModelTree, chosen: BitsMap) -> list[LayerScheme]:
    return [plan.scheme for plan in resolve_schemes(tree, chosen)]
