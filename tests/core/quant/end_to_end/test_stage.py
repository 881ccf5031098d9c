"""Whole runs with end-to-end steps, on random models of a few blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.bitsmap import BitsMap, Rule
from core.control import Control
from core.errors import Cancelled
from core.events import EndToEnd, Event, Log, Progress, Stage
from core.formats.opened import open_checkpoint
from core.inference.loader import load_model
from core.quant import pipeline, prepare
from core.quant.end_to_end import student
from core.quant.end_to_end.adam import Adam
from core.quant.end_to_end.kept_blocks import KeptBlock
from core.quant.end_to_end.stage import learn
from core.quant.level_grid import LevelGrid
from core.spec import JobSpec
from tests.core.quant.test_pipeline import digests, entries, report_of, run, spec_of
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model

NORMS = {f"model.layers.{block}.{name}_layernorm.weight" for block in (0, 1) for name in ("input", "post_attention")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


def end_to_end(model: Path, folder: Path, steps: int = 3, **changes: Any) -> JobSpec:
    """A job at 2 bits without tuning of blocks."""
    small = {"bits": 2, "iters": 0, "start": "gptq", "samples": 4, "seqlen": 64, "batch_size": 4, **changes}
    spec = spec_of(model, folder, **small)
    return replace(spec, recipe=replace(spec.recipe, end_to_end=steps))


def test_the_divergence_falls_and_the_report_says_what_was_changed(model: Path, tmp_path: Path) -> None:
    events = run(end_to_end(model, tmp_path, steps=12, samples=8), tmp_path)
    report = report_of(events)
    found = report["end_to_end"]
    assert found["kept"]
    assert found["kl_after"] < 0.9 * found["kl_before"]
    assert found["heldout_kl_after"] < found["heldout_kl_before"]
    assert set(found["norms"]) == {*NORMS, "model.norm.weight"}
    assert [event.step for event in events if isinstance(event, EndToEnd)] == list(range(1, 13))
    stages = [event.name for event in events if isinstance(event, Stage)]
    assert stages == ["prepare", "calibrate", "tune", "end to end", "write", "verify"]
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    # of 19 tensors, 14 are quantized and 5 are norms
    assert report["verification"]["auto_round"]["other_tensors"] == 1
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )


def test_the_norms_on_disk_are_those_that_were_learned(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Any] = []

    def capture(*args: Any) -> Any:
        learned.append(learn(*args))
        return learned[-1]

    monkeypatch.setattr(pipeline, "learn", capture)
    run(end_to_end(model, tmp_path), tmp_path)
    source, written = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "out"))
    loaded = load_model(str(tmp_path / "out"), "cpu", "float32").model.state_dict()
    for name, value in learned[0].tensors.items():
        assert not torch.equal(value, source[name])
        assert value.dtype == source[name].dtype
        assert torch.equal(written[name], value)
        assert torch.equal(loaded[name], value.float())
    assert torch.equal(written["model.embed_tokens.weight"], source["model.embed_tokens.weight"])


def test_the_same_job_gives_the_same_bytes_in_memory_and_with_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        run(end_to_end(model, tmp_path, output=name), tmp_path)
    whole = prepare.plan_memory
    monkeypatch.setattr(
        prepare, "plan_memory", lambda *sizes: replace(whole(*sizes), spill=True, resident=False, gram_bytes=1)
    )
    run(end_to_end(model, tmp_path, output="three"), tmp_path)
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    assert list((tmp_path / "job").iterdir()) == []


@pytest.mark.parametrize("steps", [1, 2])
def test_a_stop_ends_the_stage_at_the_next_block_and_leaves_nothing(model: Path, tmp_path: Path, steps: int) -> None:
    events: list[Event] = []
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        stop = any(isinstance(event, EndToEnd) and event.step == steps for event in events)
        asked += stop
        return stop

    (tmp_path / "job").mkdir()
    with pytest.raises(Cancelled):
        pipeline.run(end_to_end(model, tmp_path), tmp_path / "job", events.append, Control(should_stop))
    assert asked == 1
    assert entries(tmp_path) == set()


def test_a_run_pauses_between_two_steps(model: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    asked = 0

    def should_pause() -> bool:
        nonlocal asked
        asked += any(isinstance(event, EndToEnd) for event in events)
        return 0 < asked < 3

    (tmp_path / "job").mkdir()
    spec = end_to_end(model, tmp_path, steps=3)
    pipeline.run(spec, tmp_path / "job", events.append, Control(should_pause=should_pause))
    assert asked == 4  # twice true, then once after each of the first two steps
    report_of(events)


def test_steps_that_do_not_help_are_undone(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replace(end_to_end(model, tmp_path, output="start"), recipe=end_to_end(model, tmp_path, 0).recipe), tmp_path)
    original = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, value, gradient, rate: original(self, value, gradient, -30 * rate))
    events = run(end_to_end(model, tmp_path), tmp_path)
    found = report_of(events)["end_to_end"]
    assert not found["kept"]
    assert found["norms"] == []
    assert found["heldout_kl_after"] == found["heldout_kl_before"]
    assert digests(tmp_path / "out") == digests(tmp_path / "start")
    assert any(isinstance(event, Log) and "did not reduce" in event.message for event in events)


@pytest.mark.parametrize(
    ("formats", "changes"),
    [
        (("auto_gptq", "auto_awq"), {"bits": 4, "sym": False}),
        (("auto_round:auto_awq", "auto_round:auto_gptq"), {"bits": 4, "sym": True}),
        (("gguf",), {"bits": 2, "sym": True}),
    ],
)
def test_every_format_has_the_learned_scales_and_norms(
    model: Path, tmp_path: Path, formats: tuple[str, ...], changes: dict[str, Any]
) -> None:
    report = report_of(run(end_to_end(model, tmp_path, formats=formats, output="many", **changes), tmp_path))
    plain = run(end_to_end(model, tmp_path, **changes), tmp_path)
    assert report["end_to_end"]["kl_after"] == report_of(plain)["end_to_end"]["kl_after"]
    expected = open_checkpoint(tmp_path / "out")
    for name in formats:
        folder = tmp_path / "many" / name.replace(":", "-") if len(formats) > 1 else tmp_path / "many"
        written = open_checkpoint(folder)
        for layer in expected.schemes:
            assert torch.equal(written.layer(layer).dequantize(), expected.layer(layer).dequantize())
        for norm in report["end_to_end"]["norms"]:
            assert torch.equal(written.store.get(norm).float(), expected.store.get(norm).float())


def test_a_quantized_head_is_used_by_the_student(model: Path, tmp_path: Path) -> None:
    spec = end_to_end(model, tmp_path)
    bits_map = BitsMap(spec.bits_map.default, layers=(Rule("lm_head", bits=2),))
    report = report_of(run(replace(spec, bits_map=bits_map), tmp_path))
    assert report["end_to_end"]["kept"]
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )


def test_blocks_in_16_bits_pass_the_gradients_to_the_blocks_before_them(model: Path, tmp_path: Path) -> None:
    spec = end_to_end(model, tmp_path, steps=12, samples=8)
    spec = replace(spec, bits_map=BitsMap(spec.bits_map.default, (Rule("*.layers.1.*", bits=16),)))
    found = report_of(run(spec, tmp_path))["end_to_end"]
    assert found["kl_after"] < found["kl_before"]
    assert set(found["norms"]) == {"model.norm.weight", *(name for name in NORMS if ".layers.0." in name)}
    originals = load_file(model / "model.safetensors")
    written = load_file(next(Path(spec.output).glob("*.safetensors")))
    kept = [name for name in originals if ".layers.1." in name]
    assert kept
    assert all(torch.equal(written[name], originals[name]) for name in kept)


@pytest.mark.parametrize(("name", "reason"), [("gemma4_text", "passes more"), ("zamba2", "passes more")])
def test_a_model_that_passes_more_than_hidden_states_is_quantized_without_the_stage(
    tmp_path: Path, name: str, reason: str
) -> None:
    make_model(name, tmp_path / "model")
    events = run(end_to_end(tmp_path / "model", tmp_path, seqlen=32, samples=4), tmp_path)
    assert any(isinstance(event, Log) and "skipped" in event.message and reason in event.message for event in events)
    assert "end_to_end" not in report_of(events)


def captured_step(spec: JobSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[KeptBlock], Any, Any]:
    """Run a job; return its blocks, the gradients by the address of what is learned, and the calibration tokens."""
    found: list[Any] = []
    gradients: dict[int, Tensor] = {}

    def record(self: Adam, value: Tensor, gradient: Tensor, rate: float) -> None:
        gradients[value.data_ptr()] = gradient.clone()

    def capture(job: Any, kept: list[KeptBlock], head: Any, formats: Any, calibration: Any, *rest: Any) -> Any:
        found.extend((kept, calibration.tokens))
        return learn(job, kept, head, formats, calibration, *rest)

    monkeypatch.setattr(Adam, "step", record)
    monkeypatch.setattr(pipeline, "learn", capture)
    run(spec, folder)
    return found[0], gradients, found[1]


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "gpt2"])
@pytest.mark.usefixtures("float32")
def test_the_gradients_are_those_of_the_whole_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(name, tmp_path / "model")
    spec = end_to_end(tmp_path / "model", tmp_path, steps=1, seqlen=32, samples=4, batch_size=2)
    learned: list[Any] = []
    make = student.LearnedNorm

    def made(*args: Any) -> Any:
        learned.append(make(*args))
        return learned[-1]

    monkeypatch.setattr("core.quant.end_to_end.norms.LearnedNorm", made)
    kept, gradients, tokens = captured_step(spec, tmp_path, monkeypatch)
    original, whole = (AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32) for _ in range(2))
    for block in kept:
        for parameter, grids in block.grids.items():
            for grid in grids:
                grid.write(whole.get_parameter(parameter).data)
    with torch.no_grad():
        expected = original(input_ids=tokens, use_cache=False).logits.log_softmax(-1)
    scores = whole(input_ids=tokens, use_cache=False).logits.log_softmax(-1)
    (expected.exp() * (expected - scores)).sum().backward()

    def close(ours: Tensor, theirs: Tensor | None) -> bool:
        assert theirs is not None
        return float((ours - theirs).norm()) <= 1e-4 * float(theirs.norm())

    compared = 0
    for block in kept:
        for parameter, grids in block.grids.items():
            for grid in grids:
                if isinstance(grid.content, LevelGrid):
                    gradient = whole.get_parameter(parameter).grad
                    assert gradient is not None
                    slope = grid.places.read(gradient) * grid.content.start.centered()
                    scale = grid.content.start.scale
                    by_factor = slope.view(*scale.shape, -1).sum(-1) * scale
                    assert close(gradients[grid.content.factor.data_ptr()], by_factor)
                    compared += 1
    assert compared
    assert len(learned) > len(kept)
    for norm in learned:
        assert close(gradients[norm.value.data_ptr()], whole.get_parameter(norm.parameter).grad)


def test_experts_learn_their_scales(tmp_path: Path) -> None:
    make_model("qwen3_moe", tmp_path / "model")
    report = report_of(run(end_to_end(tmp_path / "model", tmp_path, steps=4, seqlen=32), tmp_path))
    assert report["end_to_end"]["kl_after"] < report["end_to_end"]["kl_before"]
