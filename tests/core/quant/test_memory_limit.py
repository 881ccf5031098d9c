"""Runs with a memory limit: the choices that keep it do not change the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import BadInput
from core.estimation.memory_plan import memory_needs, plan_memory
from core.estimation.preflight import check_room, read_tree
from core.formats.grids import plan_layers
from core.quant import prepare
from core.spec import JobSpec
from tests.core.quant.test_pipeline import digests, report_of, run, spec_of
from tests.core.tiny_model import save_model

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


def least(spec: JobSpec) -> int:
    """Return the smallest limit that is not refused."""
    tree = read_tree(Path(spec.model))
    return plan_memory(memory_needs(tree, plan_layers(tree, spec.bits_map, spec.formats), spec, 4), 1).host


@pytest.mark.parametrize("start", ["gptq", "range"])
def test_a_limit_does_not_change_the_result(model: Path, tmp_path: Path, start: str) -> None:
    spec = spec_of(model, tmp_path, start=start, recipe="default" if start == "gptq" else "autoround")
    limit = least(spec)
    settings = []
    for name, memory in (("free", None), ("least", limit), ("much", 10 * limit)):
        job = replace(spec, memory=memory, output=str(tmp_path / name))
        settings.append(report_of(run(job, tmp_path))["settings"])
    assert [found["spill"] for found in settings] == [False, True, False]
    assert settings[1]["planned_memory"] <= limit
    assert digests(tmp_path / "free") == digests(tmp_path / "least") == digests(tmp_path / "much")


def test_micro_batches_take_the_same_steps(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for micro in (4, 2, 1):
        monkeypatch.setattr(
            prepare, "plan_memory", lambda *sizes, micro=micro: replace(plan_memory(*sizes), micro_batch=micro)
        )
        report = report_of(run(spec_of(model, tmp_path, start="gptq", output=str(micro)), tmp_path))
        assert report["settings"]["accumulate"] == 4 // micro
        losses.append([block["loss_after"] for block in report["blocks"]])
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=0.02)


def test_an_impossible_limit_is_refused_before_the_run_and_names_the_least(model: Path, tmp_path: Path) -> None:
    spec = replace(spec_of(model, tmp_path, start="gptq"), memory=100_000_000)
    with pytest.raises(BadInput, match="of memory, but the limit is 100 MB"):
        check_room(spec, read_tree(model))
    with pytest.raises(BadInput, match="needs at least"):
        run(spec, tmp_path)
