"""Whole runs on a random model of two blocks, in this process."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import recipes
from core.bitsmap import BitsMap, Rule
from core.control import Control
from core.errors import (
    BadInput,
    BitwrightError,
    Cancelled,
    CorruptFile,
    DeviceProblem,
    ResultKept,
    VerificationFailed,
)
from core.events import BlockDone, BlockStarted, Done, Event, Log, Loss, Stage, Started
from core.files import read_json
from core.formats import reader
from core.formats.reader import QuantizedCheckpoint
from core.inference.divergence import compare_logits
from core.inference.evaluate import make_windows
from core.inference.loader import load_model
from core.quant import pipeline
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.tiny_model import save_model

TEXT = "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it. " * 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


def spec_of(model: Path, folder: Path, **changes: Any) -> JobSpec:
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    small: dict[str, Any] = {"iters": 8, "samples": 8, "seqlen": 32, "batch_size": 4, "lr": 0.05}
    small.update({key: changes.pop(key) for key in list(changes) if key in small or key == "start"})
    started = small.get("start") == "gptq"  # only scales are tuned, at a rate of their own
    small["lr"] = None if started else small["lr"]
    recipe = recipes.load(changes.pop("recipe", "quick" if started else "autoround-best"), **small)
    default = LayerScheme(changes.pop("bits", 4), changes.pop("group_size", 32), changes.pop("sym", True))
    bits_map = BitsMap(default, rules=changes.pop("rules", ()))
    output = folder / changes.pop("output", "out")
    return JobSpec(str(model), str(output), recipe, bits_map, str(text), **changes)


def run(spec: JobSpec, folder: Path, control: Control | None = None) -> list[Event]:
    job = folder / "job"
    job.mkdir(exist_ok=True)
    events: list[Event] = []
    pipeline.run(spec, job, events.append, control or Control())
    return events


def report_of(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[-1], Done)
    return events[-1].report


def test_a_run_tells_its_story_in_order(model: Path, tmp_path: Path) -> None:
    events = run(spec_of(model, tmp_path), tmp_path)
    stages = [event.name for event in events if isinstance(event, Stage)]
    assert stages == ["prepare", "calibrate", "tune", "write", "verify"]
    assert [event.iteration for event in events if isinstance(event, Loss)] == [*range(1, 9)] * 2
    done = [event for event in events if isinstance(event, BlockDone)]
    assert [event.block for event in done] == [0, 1]
    assert all(event.loss_after < event.loss_before for event in done)
    started = next(event for event in events if isinstance(event, Started))
    assert (started.blocks, started.linears) == (2, 14)
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_width_is_written_verified_and_as_planned(model: Path, tmp_path: Path, bits: int, sym: bool) -> None:
    report = report_of(run(spec_of(model, tmp_path, bits=bits, sym=sym, iters=2), tmp_path))
    assert report["verification"]["auto_round"]["layers"] == 14
    checkpoint = QuantizedCheckpoint(tmp_path / "out")
    assert set(checkpoint.schemes.values()) == {LayerScheme(bits, 32, sym)}
    # The files compute what the run computed before it wrote them.
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )


def test_tuning_beats_rounding_on_text_that_was_not_seen(model: Path, tmp_path: Path) -> None:
    apart = {}
    original = load_model(str(model), "cpu", "float32")
    unseen = make_windows(original.tokenizer, "Call me Ishmael. Some years ago, never mind how long. " * 20, 64)
    for name, iters in (("rtn", 0), ("tuned", 60)):
        run(spec_of(model, tmp_path, bits=2, iters=iters, lr=0.02, samples=16, output=name), tmp_path)
        quantized = load_model(str(tmp_path / name), "cpu", "float32")
        apart[name] = compare_logits(original.model, quantized.model, unseen.tokens).kl_mean
    assert apart["tuned"] < 0.8 * apart["rtn"]


def test_everything_else_comes_along_byte_for_byte(model: Path, tmp_path: Path) -> None:
    run(spec_of(model, tmp_path, iters=1), tmp_path)
    source, written = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in source.items():
        if "proj" not in name:
            assert written[name].dtype == tensor.dtype
            assert torch.equal(written[name], tensor)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "auto-round"
    assert config["dtype"] == "bfloat16"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_the_same_job_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(spec_of(model, tmp_path, output=name), tmp_path)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_another_seed_gives_other_bytes(model: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run(spec_of(model, tmp_path, output=str(seed), seed=seed), tmp_path)
    assert digests(tmp_path / "1") != digests(tmp_path / "2")


def test_low_memory_keeps_caches_on_disk_and_removes_them(model: Path, tmp_path: Path) -> None:
    report = report_of(run(spec_of(model, tmp_path, low_memory=True), tmp_path))
    settings = report["settings"]
    assert (settings["spill"], settings["micro_batch"], settings["accumulate"]) == (True, 1, 4)
    assert list((tmp_path / "job").iterdir()) == []


def test_two_formats_share_one_run(model: Path, tmp_path: Path) -> None:
    run(spec_of(model, tmp_path, formats=("auto_round", "auto_gptq"), sym=False, iters=2), tmp_path)
    first, second = (QuantizedCheckpoint(tmp_path / "out" / name) for name in ("auto_round", "auto_gptq"))
    for name in first.schemes:
        assert torch.equal(first.layer(name).dequantize(), second.layer(name).dequantize())


def test_a_map_of_many_widths(model: Path, tmp_path: Path) -> None:
    rules = (Rule("*.down_proj", bits=8), Rule("*.0.self_attn.*", bits=16), Rule("*.gate_proj", bits=2, group_size=-1))
    report = report_of(run(spec_of(model, tmp_path, rules=rules, iters=2), tmp_path))
    schemes = QuantizedCheckpoint(tmp_path / "out").schemes
    assert schemes["model.layers.1.mlp.down_proj"].bits == 8
    assert "model.layers.0.self_attn.q_proj" not in schemes
    assert schemes["model.layers.0.mlp.gate_proj"] == LayerScheme(2, -1)
    assert report["layers_by_bits"] == {"16": 4, "2": 2, "4": 6, "8": 2}


def test_a_group_that_does_not_fit_falls_back_and_says_so(model: Path, tmp_path: Path) -> None:
    events = run(spec_of(model, tmp_path, group_size=128, iters=1), tmp_path)
    assert QuantizedCheckpoint(tmp_path / "out").schemes["model.layers.0.mlp.down_proj"].group_size == 32
    warnings = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert any("down_proj" in message and "96" in message for message in warnings)


def test_opt_rtn_searches_and_needs_no_steps(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, tmp_path, recipe="opt-rtn", bits=2, iters=0)
    assert spec.recipe.start == "search"
    plain = report_of(run(spec_of(model, tmp_path, bits=2, iters=0, output="plain"), tmp_path))
    found = report_of(run(spec, tmp_path))
    assert found["blocks"][0]["loss_after"] < plain["blocks"][0]["loss_after"]


def test_a_search_can_be_the_start_of_tuning(model: Path, tmp_path: Path) -> None:
    report = report_of(run(spec_of(model, tmp_path, bits=2, start="search"), tmp_path))
    assert all(block["loss_after"] < block["loss_before"] for block in report["blocks"])


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"text.txt", "job"}


@pytest.mark.parametrize("stage", ["prepare", "calibrate", "tune", "write", "verify"])
def test_a_stop_in_any_stage_leaves_nothing(model: Path, tmp_path: Path, stage: str) -> None:
    events: list[Event] = []
    control = Control(should_stop=lambda: bool(events) and isinstance(events[-1], Stage) and events[-1].name == stage)
    (tmp_path / "job").mkdir()
    with pytest.raises(Cancelled):
        pipeline.run(spec_of(model, tmp_path), tmp_path / "job", events.append, control)
    assert entries(tmp_path) == set()


def test_a_layer_that_reads_back_wrong_is_never_called_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reader.QuantizedCheckpoint.layer

    def flipped(self: QuantizedCheckpoint, name: str) -> Any:
        layer = honest(self, name)
        if name.endswith("1.mlp.up_proj"):
            layer.ints[0, 0] ^= 1
        return layer

    monkeypatch.setattr(reader.QuantizedCheckpoint, "layer", flipped)
    with pytest.raises(VerificationFailed, match=r"1\.mlp\.up_proj"):
        run(spec_of(model, tmp_path, iters=1), tmp_path)
    assert entries(tmp_path) == set()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def replace_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.1.mlp.up_proj.weight", (3, 3)),
        ("model.layers.1.input_layernorm.weight", (5,)),
        ("model.norm.weight", (5,)),
        ("model.embed_tokens.weight", (280, 1)),
        ("mtp.norm.weight", (0,)),
    ],
)
def test_values_that_are_not_finite_are_refused_before_the_first_block(
    tmp_path: Path, name: str, place: tuple[int, ...]
) -> None:
    folder = save_model(tmp_path / "broken")
    tensors = tensors_of(folder)
    tensors.setdefault(name, torch.ones(4))[place] = torch.nan
    replace_tensors(folder, tensors)
    (tmp_path / "job").mkdir()
    events: list[Event] = []
    with pytest.raises(CorruptFile, match=f"{re.escape(name)} contains 1 value that is not finite"):
        pipeline.run(spec_of(folder, tmp_path), tmp_path / "job", events.append, Control())
    assert entries(tmp_path) == {"broken"}
    assert not any(isinstance(event, BlockStarted) for event in events)


@pytest.mark.parametrize("name", ["layers.1.mlp.up_proj", "norm", "embed_tokens"])
@pytest.mark.parametrize("output", ["auto_round", "gguf"])
def test_a_model_that_is_replaced_during_a_run_ends_it(tmp_path: Path, name: str, output: str) -> None:
    folder, name = save_model(tmp_path / "model"), f"model.{name}.weight"
    tensors = tensors_of(folder)
    (tmp_path / "job").mkdir()

    def emit(event: Event) -> None:
        if isinstance(event, BlockStarted) and event.block == 0:
            replace_tensors(folder, {**tensors, name: tensors[name] * 2})

    with pytest.raises(CorruptFile, match=f"changed while they were in use: {re.escape(name)} differs"):
        pipeline.run(spec_of(folder, tmp_path, formats=(output,), iters=1), tmp_path / "job", emit, Control())
    assert entries(tmp_path) == {"model"}


def test_the_report_has_the_fingerprint_of_the_weights(model: Path, tmp_path: Path) -> None:
    first = report_of(run(spec_of(model, tmp_path, iters=0), tmp_path))
    again = report_of(run(spec_of(model, tmp_path, iters=0, output="again"), tmp_path))
    other = save_model(tmp_path / "other")
    tensors = tensors_of(other)
    replace_tensors(other, {**tensors, "model.norm.weight": tensors["model.norm.weight"] * 2})
    third = report_of(run(spec_of(other, tmp_path, iters=0, output="third"), tmp_path))
    assert len(first["source_sha256"]) == 64
    assert first["source_sha256"] == again["source_sha256"] != third["source_sha256"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_block_whose_loss_is_not_finite_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    honest, blocks = pipeline.quantize_block, []

    def quantize(job: Any, block: int, plans: Any, calibration: Any, others: Any) -> Any:
        blocks.append(block)
        if block == 1:
            calibration[0].original.hidden.data[:] = value
        return honest(job, block, plans, calibration, others)

    monkeypatch.setattr(pipeline, "quantize_block", quantize)
    events = run(spec_of(model, tmp_path), tmp_path)
    warnings = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert [line for line in warnings if line.startswith("Block 1: the loss") and "not finite" in line]
    assert not [line for line in warnings if line.startswith("Block 0")]
    assert [block["diverged"] for block in report_of(events)["blocks"]] == [False, True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch compiles with what it calls deprecated
def test_a_compiler_that_fails_is_told_in_one_sentence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")  # a program that is there and compiles nothing
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "no earlier result"))
    with pytest.raises(DeviceProblem, match="failed to compile"):
        run(spec_of(model, tmp_path, compile=True), tmp_path)


def test_an_empty_folder_may_be_the_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run(spec_of(model, tmp_path, iters=1), tmp_path)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_the_user_put_there_meanwhile_is_not_replaced(model: Path, tmp_path: Path) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, Stage) and event.name == "verify":
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "precious.txt").write_text("mine")

    (tmp_path / "job").mkdir()
    with pytest.raises(ResultKept, match="out-finished"):
        pipeline.run(spec_of(model, tmp_path, iters=1), tmp_path / "job", emit, Control())
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    assert entries(tmp_path) == {"out", "out-finished"}
    assert (tmp_path / "out-finished" / "bitwright.json").is_file()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"seqlen": 300}, BadInput),
        ({"bits": 16}, BadInput),
        ({"rules": (Rule("*.no_such_layer", bits=8),)}, BadInput),
    ],
)
def test_requests_that_cannot_work_end_before_tuning(
    model: Path, tmp_path: Path, changes: dict[str, Any], error: type[BitwrightError]
) -> None:
    with pytest.raises(error):
        run(spec_of(model, tmp_path, **changes), tmp_path)
    assert entries(tmp_path) == set()


def test_a_quantized_model_can_be_quantized_again_and_the_report_says_what_it_was(model: Path, tmp_path: Path) -> None:
    run(spec_of(model, tmp_path, iters=1), tmp_path)
    run(spec_of(tmp_path / "out", tmp_path, iters=1, output="again"), tmp_path)
    report = read_json(tmp_path / "again" / "bitwright.json")
    assert report["source_note"].startswith("The weights are quantized in the source as AutoRound (W4 g")
    assert report["source_bytes"] < read_json(tmp_path / "out" / "bitwright.json")["source_bytes"]


@pytest.mark.parametrize("steps", [0, 2])
def test_learned_integers_differ_from_those_of_the_start(model: Path, tmp_path: Path, steps: int) -> None:
    spec = spec_of(model, tmp_path, bits=3, iters=60, start="gptq", samples=8, seqlen=64, batch_size=2)
    ints = []
    for learned in (False, True):
        recipe = replace(spec.recipe, learn_integers=learned, end_to_end=steps)
        events = run(replace(spec, recipe=recipe, output=str(tmp_path / str(learned))), tmp_path)
        assert all(event.loss_after < event.loss_before for event in events if isinstance(event, BlockDone))
        checkpoint = QuantizedCheckpoint(tmp_path / str(learned))
        ints.append({name: checkpoint.layer(name).ints for name in checkpoint.schemes})
    assert all(not torch.equal(ints[0][name], ints[1][name]) for name in ints[0])
