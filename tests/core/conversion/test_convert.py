"""Conversions: identical weights if exact, a measured error otherwise, and no files left after a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.control import ShouldStop, never
from core.conversion import convert as module
from core.conversion.convert import convert
from core.errors import BadInput, BitwrightError, Cancelled, DiskFull, VerificationFailed
from core.events import Done, Event, FileWritten, Progress, Stage
from core.formats.opened import open_checkpoint
from core.formats.plain import PlainPlan
from core.formats.reader import QuantizedCheckpoint
from core.model.gguf_header import read_gguf_header
from core.schemes import LayerScheme
from tests.core.conversion.sources import DOWN, UP, all_weights, make, same_weights, save_original

FOUR, FOUR_ASYM = LayerScheme(4, 32), LayerScheme(4, 32, sym=False)
TWO_ASYM, EIGHT_ASYM = LayerScheme(2, 32, sym=False), LayerScheme(8, 32, sym=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(tmp_path_factory.mktemp("models") / "tiny")


def ignore(_event: Event) -> None:
    """Ignore events."""


def run(source: Path, target: Path, name: str, *, inexact: bool = False) -> dict[str, Any]:
    """Convert and return the report."""
    events: list[Event] = []
    convert(str(source), target, name, events.append, never, inexact=inexact)
    assert isinstance(events[-1], Done)
    return events[-1].report


EXACT = [
    ("auto_gptq", FOUR, "auto_round"),
    ("auto_gptq", FOUR_ASYM, "auto_round"),
    ("gptqmodel", FOUR_ASYM, "auto_round"),
    ("auto_awq", FOUR_ASYM, "auto_round"),
    ("auto_awq", FOUR, "auto_gptq"),
    ("auto_awq", FOUR_ASYM, "gptqmodel"),
    ("auto_round", LayerScheme(2, 32), "auto_gptq"),
    ("auto_round", LayerScheme(3, 32), "auto_gptq"),
    ("auto_round", LayerScheme(8, 32), "auto_gptq"),
    ("auto_round", TWO_ASYM, "auto_gptq"),
    ("auto_round", EIGHT_ASYM, "gptqmodel"),
    ("auto_round", FOUR_ASYM, "auto_awq"),
    ("auto_round", LayerScheme(4, -1), "auto_round:plain"),
    ("auto_round", LayerScheme(2, 32), "gguf"),
    ("auto_round", LayerScheme(3, -1), "gguf"),
    ("auto_gptq", FOUR_ASYM, "gguf"),
    ("auto_awq", FOUR, "gguf"),
    ("auto_gptq", LayerScheme(8, 32), "gguf"),
    ("gguf", FOUR, "auto_round"),
    ("gguf", LayerScheme(8, 32), "auto_gptq"),
    ("gguf", FOUR, "auto_awq"),
    ("gguf:q4_1", FOUR, "gguf"),
    ("auto_round", EIGHT_ASYM, "f32"),
    ("auto_round", LayerScheme(2, 32), "f32"),
    ("gguf:q4_1", FOUR, "f32"),
]


@pytest.mark.parametrize(("first", "scheme", "second"), EXACT)
def test_an_exact_conversion_keeps_every_weight(
    original: Path, tmp_path: Path, first: str, scheme: LayerScheme, second: str
) -> None:
    source = make(original, tmp_path / "source", first, scheme)
    report = run(source, tmp_path / "new" / "out", second)
    assert (report["exact"], report["error"]) == (True, None)
    assert same_weights(source, tmp_path / "new" / "out")


def test_integers_scales_and_zero_points_are_the_same(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR_ASYM)
    assert run(source, tmp_path / "out", "auto_round")["requantized_layers"] == 0
    before, after = QuantizedCheckpoint(source), QuantizedCheckpoint(tmp_path / "out")
    assert before.schemes == after.schemes
    for name in before.schemes:
        pairs = zip(before.layer(name).parts(), after.layer(name).parts(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_mixed_bits_keep_their_schemes(original: Path, tmp_path: Path) -> None:
    left = "model.layers.0.self_attn.q_proj"
    source = make(original, tmp_path / "source", "auto_round", FOUR, {DOWN: {"bits": 8}, left: {"bits": 16}})
    run(source, tmp_path / "out", "auto_gptq")
    after = QuantizedCheckpoint(tmp_path / "out")
    assert after.schemes[DOWN] == LayerScheme(8, 32)
    assert f"{left}.weight" in after.plain


def test_a_round_trip_restores_the_packed_tensors(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_round", FOUR)
    run(source, tmp_path / "gguf", "gguf")
    run(tmp_path / "gguf", tmp_path / "back", "auto_round")
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    packed = [name for name in before if "layers" in name and "norm" not in name]
    assert packed
    assert all(torch.equal(before[name], after[name]) for name in packed)


def test_verification_does_not_depend_on_the_piece_size(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(original, tmp_path / "source", "gguf", FOUR)
    monkeypatch.setattr("core.formats.gguf.values.CHUNK_ELEMENTS", 100)
    assert run(source, tmp_path / "out", "auto_round")["exact"]


def test_a_zero_point_of_zero_is_mirrored_for_gptq(tmp_path: Path) -> None:
    folder = save_original(tmp_path / "original")
    tensors = {name: value.abs() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    source = make(folder, tmp_path / "source", "auto_round", TWO_ASYM)
    layers = QuantizedCheckpoint(source)
    assert all(int(layers.layer(name).zeros.max()) == 0 for name in layers.schemes)
    report = run(source, tmp_path / "out", "auto_gptq")
    assert (report["exact"], report["requantized_layers"]) == (True, 14)
    assert "stored with mirrored levels" in report["notes"][0]
    assert same_weights(source, tmp_path / "out")


def test_groups_in_an_order_of_their_own_stay_gptq(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR, act_order=True)
    run(source, tmp_path / "out", "gptqmodel")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["desc_act"] is True
    assert QuantizedCheckpoint(tmp_path / "out").layer(UP).g_idx is not None
    assert same_weights(source, tmp_path / "out")


def test_groups_in_an_order_of_their_own_become_numbers(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR, act_order=True)
    run(source, tmp_path / "out", "f32")
    assert same_weights(source, tmp_path / "out")


def test_the_reported_error_equals_the_difference_of_the_weights(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_round", FOUR_ASYM)
    report = run(source, tmp_path / "out", "bf16", inexact=True)
    before, after = all_weights(source), all_weights(tmp_path / "out")
    apart = {name: (after[name] - before[name]).double() for name in before}
    squared = sum(float(value.square().sum()) for value in apart.values())
    size = sum(float(value.double().square().sum()) for value in before.values())
    assert not report["exact"]
    assert report["error"]["largest_difference"] == max(float(value.abs().max()) for value in apart.values())
    assert report["error"]["relative_rms"] == pytest.approx((squared / size) ** 0.5)
    worst = max(apart, key=lambda name: float(apart[name].norm() / before[name].double().norm()))
    assert f"{report['error']['worst_tensor']['name']}.weight" == worst


def test_an_inexact_conversion_without_changes_is_reported_as_exact(original: Path, tmp_path: Path) -> None:
    report = run(original, tmp_path / "out", "f16", inexact=True)
    assert report["exact"] == same_weights(original, tmp_path / "out")


@pytest.mark.parametrize(
    ("scheme", "name", "words"),
    [
        (FOUR, "bf16", "14 significant bits"),
        (EIGHT_ASYM, "gguf", "rounded to Q8_0"),
        (FOUR, "gguf:q8_0", "embedding is rounded"),
        (FOUR_ASYM, "gguf:q4_1", "rounded again"),
    ],
)
def test_an_inexact_conversion_needs_permission(
    original: Path, tmp_path: Path, scheme: LayerScheme, name: str, words: str
) -> None:
    source = make(original, tmp_path / "source", "auto_round", scheme)
    error = refused(source, tmp_path / "new" / "out", name, BadInput, tmp_path)
    assert words in error.message
    assert "--inexact" in error.hint
    report = run(source, tmp_path / "new" / "out", name, inexact=True)
    assert 0 < report["error"]["relative_rms"] < 0.1


def test_levels_that_fit_into_a_type_are_not_rounded_again(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_round", FOUR)
    report = run(source, tmp_path / "out", "gguf:q8_0", inexact=True)
    assert report["error"]["changed_tensors"] == 1
    assert report["error"]["worst_tensor"]["name"] == "model.embed_tokens.weight"


def test_an_unquantized_model_converts_exactly_to_floats_and_gguf(original: Path, tmp_path: Path) -> None:
    for name in ("f32", "bf16", "gguf"):
        assert run(original, tmp_path / name, name)["exact"]
        assert same_weights(original, tmp_path / name)


def test_an_unquantized_model_is_rounded_to_a_gguf_type_on_request(tmp_path: Path) -> None:
    wide = save_original(tmp_path / "original", wide=True)
    report = run(wide, tmp_path / "out", "gguf:q4_k_m", inexact=True)
    assert report["layers"] == 7
    assert {"Q4_K", "Q6_K"} & {scheme.label() for scheme in open_checkpoint(tmp_path / "out").schemes.values()}
    assert 0.01 < report["error"]["relative_rms"] < 0.1


@pytest.mark.parametrize("name", ["gguf", "gguf:q4_k_m"])
def test_the_blocks_of_the_embedding_are_copied(tmp_path: Path, name: str) -> None:
    wide = save_original(tmp_path / "original", wide=True)
    source = make(wide, tmp_path / "gguf", "gguf:q4_k_m")
    report = run(source, tmp_path / "out", name)
    assert report["exact"]
    assert report["verification"]["rounded"] == {}
    first, second = (next(place.glob("*.gguf")) for place in (tmp_path / "gguf", tmp_path / "out"))
    tables = [read_gguf_header(path).tensors for path in (first, second)]
    assert {key: item.kind for key, item in tables[0].items()} == {key: item.kind for key, item in tables[1].items()}
    stored = [path.read_bytes()[table["token_embd.weight"].start :][: table["token_embd.weight"].nbytes]
              for path, table in zip((first, second), tables, strict=True)]  # fmt: skip
    assert stored[0] == stored[1]


def test_a_rounded_embedding_is_not_counted_as_verified_equal(tmp_path: Path) -> None:
    wide = save_original(tmp_path / "original", wide=True)
    verified = run(wide, tmp_path / "out", "gguf:q4_k_m", inexact=True)["verification"]
    assert verified["rounded"] == {"model.embed_tokens.weight": "q6_k"}
    others = len(load_file(wide / "model.safetensors")) - verified["layers"] - 1
    assert verified["other_tensors"] == others


def test_a_head_that_integers_cannot_represent_becomes_floats(tmp_path: Path) -> None:
    original = save_original(tmp_path / "original", wide=True, head=True)
    source = make(original, tmp_path / "gguf", "gguf:q4_0")
    assert open_checkpoint(source).schemes["lm_head"].label() == "Q6_K"
    report = run(source, tmp_path / "out", "auto_round")
    assert report["dense_layers"] == ["lm_head"]
    assert same_weights(source, tmp_path / "out")


def test_side_files_are_copied_and_the_report_is_new(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    (source / "LICENSE").write_text("free")
    (source / "modeling.py").write_text("import os")
    (source / "bitwright.json").write_text('{"seed": 42}')
    run(source, tmp_path / "out", "auto_round")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "quantization_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "LICENSE", "README.md", "bitwright.json",
    }  # fmt: skip
    report = json.loads((tmp_path / "out" / "bitwright.json").read_text())
    assert (report["format"], report["source_report"]) == ("auto_round", {"seed": 42})


def test_a_floating_point_output_has_no_quantization_config(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    run(source, tmp_path / "out", "f32")
    assert not (tmp_path / "out" / "quantize_config.json").exists()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"


def test_events_report_stages_progress_and_files(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    events: list[Event] = []
    convert(str(source), tmp_path / "out", "auto_round", events.append, never)
    assert [event.name for event in events if isinstance(event, Stage)] == ["prepare", "convert", "verify"]
    shares = [event.fraction for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    files = {event.path: event.size for event in events if isinstance(event, FileWritten)}
    assert files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").stat().st_size


def refused(made: Path, target: Path, name: str, error: type[BitwrightError], place: Path) -> BitwrightError:
    """Return the error of a conversion that fails, after checking that no files are left."""
    before = visible(place)
    with pytest.raises(error) as caught:
        convert(str(made), target, name, ignore, never)
    assert visible(place) == before
    return caught.value


def visible(place: Path) -> list[Path]:
    """Return all files and folders except those in Bitwright's home folder."""
    return sorted(path for path in place.rglob("*") if "home" not in path.relative_to(place).parts)


@pytest.mark.parametrize(
    ("first", "scheme", "second", "words"),
    [
        ("auto_round", LayerScheme(3, 32), "auto_awq", "4 bits only"),
        ("gguf:q4_1", FOUR, "auto_round", "is in Q4_1"),
        ("gguf:q5_0", FOUR, "auto_gptq", "is in Q5_0"),
    ],
)
def test_an_impossible_conversion_is_rejected(
    original: Path, tmp_path: Path, first: str, scheme: LayerScheme, second: str, words: str
) -> None:
    source = make(original, tmp_path / "source", first, scheme)
    assert words in refused(source, tmp_path / "new" / "out", second, BadInput, tmp_path).message


@pytest.mark.parametrize("name", ["auto_round", "auto_awq", "gguf"])
def test_groups_in_an_order_of_their_own_are_refused_elsewhere(original: Path, tmp_path: Path, name: str) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR, act_order=True)
    assert "desc_act" in refused(source, tmp_path / "out", name, BadInput, tmp_path).message


def test_an_unquantized_model_cannot_be_converted_to_integers(original: Path, tmp_path: Path) -> None:
    assert "not quantized" in refused(original, tmp_path / "out", "auto_gptq", BadInput, tmp_path).message


def test_an_unknown_format_is_rejected(original: Path, tmp_path: Path) -> None:
    assert "Unknown output format" in refused(original, tmp_path / "out", "ggml", BadInput, tmp_path).message


def test_values_out_of_range_are_rejected(tmp_path: Path) -> None:
    original = save_original(tmp_path / "original")
    tensors = load_file(original / "model.safetensors")
    tensors["model.norm.weight"] *= 1e5
    save_file(tensors, original / "model.safetensors")
    before = visible(tmp_path)
    with pytest.raises(BadInput, match=r"model\.norm\.weight has values up to"):
        convert(str(original), tmp_path / "out", "f16", ignore, never, inexact=True)
    assert visible(tmp_path) == before


def test_too_little_disk_space_is_reported_before_anything_is_written(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    monkeypatch.setattr("core.estimation.preflight.free_bytes", lambda _path: 1000)
    refused(source, tmp_path / "new" / "out", "auto_round", DiskFull, tmp_path)


def stop_after(count: int) -> ShouldStop:
    """Return a stop callback that is true from call number `count` on."""
    calls = iter(range(1 << 30))
    return lambda: next(calls) >= count


@pytest.mark.parametrize("count", [0, 3, 18, 30])
def test_a_stopped_conversion_leaves_no_files(original: Path, tmp_path: Path, count: int) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    before = visible(tmp_path)
    with pytest.raises(Cancelled):
        convert(str(source), tmp_path / "new" / "out", "auto_round", ignore, stop_after(count))
    assert visible(tmp_path) == before


def test_an_output_that_differs_when_read_back_is_removed(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    digests = iter(range(1000))
    monkeypatch.setattr(module, "digest", lambda _layer: str(next(digests)))
    error = refused(source, tmp_path / "out", "auto_round", VerificationFailed, tmp_path)
    assert "differs from the written data" in error.message


def test_an_unexpected_change_of_a_weight_fails(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(original, tmp_path / "source", "auto_gptq", FOUR)
    stored = PlainPlan.stored

    def worse(plan: PlainPlan, layer: Any) -> Any:
        found = stored(plan, layer)
        found.weight[0, 0] += 1
        return found

    monkeypatch.setattr(PlainPlan, "stored", worse)
    assert "would change by up to" in refused(source, tmp_path / "out", "f32", VerificationFailed, tmp_path).message
