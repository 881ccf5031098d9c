"""Whole runs with the start: with and without steps, with experts, in several formats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from core.bitsmap import Rule
from core.control import never
from core.events import BlockDone, BlockStarted, LayerStarted, Loss
from core.formats.opened import open_checkpoint
from core.model.slices import ParameterSlice
from core.model.tree import LayerPlan
from core.quant import blocks
from core.quant.grid import new_grid
from core.quant.grid_groups import RowGroup
from core.quant.parameter_grid import GridRows
from core.quant.start.groups import LayerErrors, start_groups
from core.schemes import LayerScheme
from tests.core.quant.start.problem import layer
from tests.core.quant.test_pipeline import digests, report_of, run, spec_of
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


def losses(model: Path, folder: Path, **changes: Any) -> list[tuple[float, float]]:
    events = run(spec_of(model, folder, samples=16, seqlen=64, **changes), folder)
    return [(event.loss_before, event.loss_after) for event in events if isinstance(event, BlockDone)]


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_start_alone_is_better_than_plain_rounding(model: Path, tmp_path: Path, bits: int, sym: bool) -> None:
    found = losses(model, tmp_path, bits=bits, sym=sym, start="gptq", iters=0)
    assert all(after < before for before, after in found)


def test_steps_of_the_scales_are_better_than_the_start_alone(model: Path, tmp_path: Path) -> None:
    alone = losses(model, tmp_path, bits=2, start="gptq", iters=0, output="alone")
    stepped = losses(model, tmp_path, bits=2, start="gptq", iters=40, output="stepped", lr=None)
    assert alone[0][0] == pytest.approx(stepped[0][0])  # both name the loss of plain rounding
    assert stepped[0][1] < 0.95 * alone[0][1]


def test_blocks_with_only_8_bits_keep_the_start(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, tmp_path, start="gptq", iters=3, bits=8, rules=(Rule("*.0.*", bits=4),))
    events = run(spec, tmp_path)
    assert [(event.block, event.iteration) for event in events if isinstance(event, Loss)] == [(0, 1), (0, 2), (0, 3)]


def test_runs_with_a_start_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(spec_of(model, tmp_path, start="gptq", output=name), tmp_path)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_all_formats_hold_the_same_weights(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, tmp_path, start="gptq", sym=False, formats=("auto_round", "auto_gptq", "auto_awq"))
    report_of(run(spec, tmp_path))
    names = ("auto_round", "auto_gptq", "auto_awq")
    first, *others = (open_checkpoint(tmp_path / "out" / name) for name in names)
    for name in first.schemes:
        for other in others:
            assert torch.equal(first.layer(name).dequantize(), other.layer(name).dequantize())


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen2"])
def test_gram_matrices_that_do_not_fit_are_summed_in_several_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_model(name, tmp_path / "model")
    run(spec_of(tmp_path / "model", tmp_path, start="gptq", output="one"), tmp_path)
    seen: list[int] = []
    whole: Any = start_groups

    def start(*arguments: Any) -> Any:
        *rest, observe, scheme_of, min_zero, _, should_stop, on_layer = arguments

        def counted() -> None:
            seen.append(1)
            observe()

        return whole(*rest, counted, scheme_of, min_zero, 1, should_stop, on_layer)

    monkeypatch.setattr(blocks, "start_groups", start)
    run(spec_of(tmp_path / "model", tmp_path, start="gptq", output="two"), tmp_path)
    assert len(seen) > 2 * 2  # more than one for each of two blocks
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_start_of_each_layer_is_an_event_with_errors_that_fall(model: Path, tmp_path: Path) -> None:
    events = run(spec_of(model, tmp_path, bits=3, start="gptq", iters=0, samples=16), tmp_path)
    names = {event.block: event.linears for event in events if isinstance(event, BlockStarted)}
    found = [event for event in events if isinstance(event, LayerStarted)]
    for block, linears in names.items():
        assert sorted(event.layer for event in found if event.block == block) == sorted(linears)
    assert all(0 < event.error_after < event.error_before < 1 for event in found)


@pytest.mark.parametrize("rows", [(0, 16), (16, 48)])
def test_errors_of_layers_are_relative_to_the_squares_of_their_outputs(rows: tuple[int, int]) -> None:
    """Two layers in one parameter, as in a fused projection."""
    weight, gram = layer(48)
    scheme = LayerScheme(3, 32)
    found: list[LayerErrors] = []
    parts = [(0, 16), (16, 48)]
    items = [SimpleNamespace(linear=SimpleNamespace(kind=str(part), in_features=128)) for part in parts]
    places = [ParameterSlice("w", None, slice(*part), slice(0, part[1] - part[0]), transposed=False) for part in parts]
    numbered = [
        GridRows(cast(LayerPlan, item), place, *part) for item, place, part in zip(items, places, parts, strict=True)
    ]
    parameter = torch.nn.Parameter(weight.clone(), requires_grad=False)
    inputs = torch.linalg.cholesky(gram + 1e-6 * torch.eye(128)).T

    def observe() -> None:
        torch.nn.functional.linear(inputs, parameter)

    group = RowGroup("w", tuple(numbered))
    levels, *_ = start_groups(
        [group], {"w": weight}, {"w": parameter}, observe, lambda _: scheme, 0, 1 << 30, never, found.append
    )
    outputs = inputs @ weight[slice(*rows)].T
    plain = torch.empty_like(weight)
    new_grid(weight, scheme).quantize_into(plain)
    expected = [
        float((inputs @ (weight - values)[slice(*rows)].T).square().sum() / outputs.square().sum())
        for values in (plain, levels.values())
    ]
    one = next(errors for errors in found if errors.layer == str(rows))
    assert [one.before, one.after] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["qwen3_moe", "granitemoe", "zamba2"])
def test_experts_and_shared_blocks_have_a_start(tmp_path: Path, name: str) -> None:
    make_model(name, tmp_path / "model")
    report = report_of(run(spec_of(tmp_path / "model", tmp_path, bits=3, start="gptq", samples=16), tmp_path))
    assert all(block["loss_after"] < block["loss_before"] for block in report["blocks"])
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )
