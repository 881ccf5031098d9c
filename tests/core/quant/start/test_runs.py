"""Whole runs with the start: with and without steps, with experts, in several formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.events import BlockDone
from core.formats.opened import open_checkpoint
from core.inference.devices import DtypeProbe
from core.quant import blocks, prepare
from core.quant.start.groups import start_groups
from tests.core.quant.test_pipeline import digests, report_of, run, spec_of
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))


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
        *rest, observe, scheme_of, min_zero, _ = arguments

        def counted() -> None:
            seen.append(1)
            observe()

        return whole(*rest, counted, scheme_of, min_zero, 1)

    monkeypatch.setattr(blocks, "start_groups", start)
    run(spec_of(tmp_path / "model", tmp_path, start="gptq", output="two"), tmp_path)
    assert len(seen) > 2 * 2  # more than one for each of two blocks
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize("name", ["qwen3_moe", "granitemoe", "zamba2"])
def test_experts_and_shared_blocks_have_a_start(tmp_path: Path, name: str) -> None:
    make_model(name, tmp_path / "model")
    report = report_of(run(spec_of(tmp_path / "model", tmp_path, bits=3, start="gptq", samples=16), tmp_path))
    assert all(block["loss_after"] < block["loss_before"] for block in report["blocks"])
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )
