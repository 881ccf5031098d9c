"""The Python calls: eager about bad input, lazy about work, and clean when left early."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import core
from core import api
from core.bitsmap import BitsMap, Rule
from core.control import Control
from core.errors import BadCalibration, BadInput, BitwrightError, Cancelled, ModelNotFound, OutputProblem
from core.events import BlockDone, BlockStarted, Done, Emit, Event, Failed, Result, Stage, Token
from core.jobs import child, store
from core.jobs.process import ROOT
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.tiny_model import save_model

QUICK = {"recipe": "quick", "iters": 2, "samples": 2, "seqlen": 32, "group_size": 32}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def place(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_package_offers_every_call_and_nothing_else() -> None:
    assert all(callable(getattr(core, name)) for name in core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = core.quantise  # type: ignore[attr-defined]


def test_importing_the_calls_imports_no_torch() -> None:
    script = "import sys; from core import quantize, estimate, chat; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_bad_input_is_raised_by_the_call_itself(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="5 bits"):
        api.quantize(tiny, "out", bits=5)
    with pytest.raises(ModelNotFound):
        api.quantize("./nothing", "out")
    with pytest.raises(OutputProblem, match="not empty"):
        api.quantize(tiny, place.parent)
    assert list(place.iterdir()) == []
    assert store.list_jobs() == []


def test_nothing_happens_before_the_first_event_is_asked_for(tiny: Path, place: Path) -> None:
    api.quantize(tiny, "out", **QUICK)  # type: ignore[arg-type]
    assert list(place.iterdir()) == []
    assert store.list_jobs() == []


Run = Callable[[JobSpec, Path, Emit, Control], None]


def run_instead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an inline run do `run`: what is tested here is what happens around it."""
    inline = child.run_inline
    monkeypatch.setattr(child, "run_inline", lambda *order: inline(*order, run=lambda: run))


def failing(before: bool) -> Run:
    def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
        emit(Stage("prepare"))
        folder = store.staging_of(Path(spec.output), job)
        folder.mkdir(parents=True)
        if not before:
            emit(BlockStarted(0, 1, "model.layers.0", ()))
        raise BadInput("It cannot work.", "Try another.")

    return run


@pytest.mark.parametrize(("before", "jobs"), [(True, []), (False, ["failed"])])
def test_a_failed_run_leaves_no_output_and_a_record_only_if_it_tuned(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, before: bool, jobs: list[str]
) -> None:
    run_instead(failing(before), monkeypatch)
    seen: list[Event] = []
    with pytest.raises(BadInput, match="It cannot work"):
        seen.extend(api.quantize(tiny, "new/deep/out", inline=True))
    assert list(place.iterdir()) == []
    assert [job.state for job in store.list_jobs()] == jobs


def test_the_failure_is_the_last_event(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(failing(True), monkeypatch)
    events = api.quantize(tiny, "out", inline=True)
    assert isinstance(next(events), Stage)
    last = next(events)
    assert isinstance(last, Failed)
    assert last.before_tuning
    with pytest.raises(BadInput):
        next(events)


def test_a_folder_that_was_not_ours_stays(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "mine").mkdir()
    run_instead(failing(True), monkeypatch)
    with pytest.raises(BadInput):
        list(api.quantize(tiny, "mine/new/out", inline=True))
    assert [path.name for path in place.rglob("*")] == ["mine"]


def test_a_stop_is_raised_as_cancelled(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
        emit(Stage("tune"))
        raise Cancelled("The run was cancelled.") if control.should_stop() else BadInput("not asked to stop")

    run_instead(run, monkeypatch)
    spec = JobSpec(str(tiny), str(place / "out"))
    with pytest.raises(Cancelled):
        list(api.run_job(spec, inline=True, should_stop=lambda: True))
    assert [job.state for job in store.list_jobs()] == ["cancelled"]


def test_inspecting_gives_the_tree_the_map_and_the_size(tiny: Path, place: Path) -> None:
    found = api.inspect(tiny, bits=3, group_size=32)
    assert (found.origin, found.tree.blocks, len(found.plans)) == ("folder", 2, 14)
    assert found.size is not None
    assert found.size.effective_bits == 3 + 19 / 32
    assert json.loads(json.dumps(found.to_json()))["effective_bits"] == found.size.effective_bits


def test_inspecting_says_what_only_a_run_checks(place: Path) -> None:
    model = save_model(place / "model")
    assert api.inspect(model, group_size=32).unchecked == ""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "mpt"}), encoding="utf-8")
    assert "at the start of a run" in api.inspect(model, group_size=32).unchecked


def test_inspecting_shows_a_tied_head_that_the_map_names(tiny: Path, place: Path) -> None:
    chosen = BitsMap(LayerScheme(4, 32), layers=(Rule("lm_head", bits=8),))
    last = api.inspect(tiny, bits_map=chosen).to_json()["linears"][-1]
    assert (last["name"], last["scheme"]["bits"]) == ("lm_head", 8)
    assert "a copy of its own" in last["why"]


def test_estimating_with_a_given_speed(tiny: Path, place: Path) -> None:
    found = api.estimate(tiny, throughput=1e9, device="cpu", **QUICK)
    assert found.seconds is not None
    assert found.device.high == 0
    assert list(place.iterdir()) == []


def test_estimating_measures_the_speed_of_this_machine(tiny: Path, place: Path) -> None:
    assert api.estimate(tiny, device="cpu", **QUICK).seconds is not None


def test_converting_checks_before_it_starts(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="no output format"):
        api.convert(tiny, "out", "ggml")
    with pytest.raises(OutputProblem):
        api.convert(tiny, place.parent, "auto_gptq")
    with pytest.raises(ModelNotFound):
        api.convert("./nothing", "out", "auto_gptq")
    with pytest.raises(BadInput, match="not quantized"):
        list(api.convert(tiny, "out", "auto_gptq"))
    assert list(place.iterdir()) == []


def test_what_a_model_can_become(tiny: Path, place: Path) -> None:
    found = api.conversions(tiny)
    verdicts = {row["format"]: row["verdict"] for row in found["rows"]}
    assert (verdicts["auto_round"], verdicts["f16"], verdicts["f32"]) == ("no", "inexact", "exact")
    assert json.loads(json.dumps(found)) == found


def test_a_model_becomes_wider_numbers(tiny: Path, place: Path) -> None:
    done = list(api.convert(tiny, "out", "f32"))[-1]
    assert isinstance(done, Done)
    assert done.report["exact"] is True
    assert (place / "out" / "tokenizer.json").is_file()


def test_a_prompt_is_answered_in_tokens_and_a_result(tiny: Path, place: Path) -> None:
    events = list(api.chat(tiny, "hello", max_tokens=8, device="cpu"))
    result = events[-1]
    assert isinstance(result, Result)
    pieces = [event.text for event in events if isinstance(event, Token)]
    assert result.values["text"] == "".join(pieces)
    assert 1 <= result.values["tokens"] <= 8


def test_a_conversation_keeps_its_messages(tiny: Path, place: Path) -> None:
    from core.inference.generation.chat import Sampling

    talk = api.open_chat(tiny, "cpu")
    messages = api.conversation("hello", system="Be brief.")
    assert [message["role"] for message in messages] == ["system", "user"]
    seen: list[Event] = []
    said = api.answer(talk, messages, Sampling(max_tokens=4), seen.append)
    again = api.answer(talk, messages, Sampling(max_tokens=4), lambda _event: None)
    assert said == again == "".join(event.text for event in seen if isinstance(event, Token))


def test_a_value_out_of_range_is_found_before_the_model_is_loaded(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="max tokens"):
        next(api.chat(tiny, "hello", max_tokens=0))


def test_a_model_is_evaluated_against_itself(tiny: Path, place: Path) -> None:
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    events = list(api.evaluate(tiny, text="text.txt", seqlen=64, max_windows=4, against=tiny, device="cpu"))
    result = events[-1]
    assert isinstance(result, Result)
    assert result.values["perplexity"]["value"] == result.values["against"]["value"] > 1
    assert result.values["comparison"]["top1"] == 1.0
    assert result.values["comparison"]["kl_mean"] == pytest.approx(0, abs=1e-6)


def test_a_text_that_is_not_there_is_found_before_the_model_is_loaded(tiny: Path, place: Path) -> None:
    with pytest.raises(BadCalibration, match=r"none\.txt"):
        api.evaluate(tiny, text="none.txt")


def test_the_cpu_is_a_device() -> None:
    assert api.devices()[0].id == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("inline", [False, True], ids=["child", "inline"])
def test_a_model_is_quantized_and_its_events_are_read(tiny: Path, place: Path, inline: bool) -> None:
    events = list(api.quantize(tiny, "new/out", inline=inline, **QUICK))  # type: ignore[arg-type]
    done = events[-1]
    assert isinstance(done, Done)
    assert len([event for event in events if isinstance(event, BlockDone)]) == 2
    assert done.output == str(place / "new" / "out")
    assert (place / "new" / "out" / "model.safetensors").is_file()
    assert [job.state for job in store.list_jobs()] == ["done"]


@pytest.mark.slow
def test_leaving_a_run_early_stops_it_and_leaves_nothing(tiny: Path, place: Path) -> None:
    for event in api.quantize(tiny, "new/out", **{**QUICK, "iters": 50_000}):  # type: ignore[arg-type]
        if isinstance(event, BlockStarted):
            break
    del event
    assert [job.state for job in store.list_jobs()] == ["cancelled"]
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_quantized_model_is_converted(tiny: Path, place: Path) -> None:
    list(api.quantize(tiny, "first", **{**QUICK, "recipe": "rtn", "iters": None}))  # type: ignore[arg-type]
    done = list(api.convert("first", "second", "auto_gptq"))[-1]
    assert isinstance(done, Done)
    assert (place / "second" / "tokenizer.json").is_file()


def test_errors_of_the_calls_are_bitwright_errors(place: Path) -> None:
    with pytest.raises(BitwrightError):
        api.inspect("./nothing")
