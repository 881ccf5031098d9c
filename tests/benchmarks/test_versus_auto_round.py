"""Tests of the parts of the comparison with auto-round that run neither program."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from core.calibration.text import bundled
from core.recipes import RESOURCES
from tests.benchmarks.versus_auto_round import configurations, material, readback, results
from tests.benchmarks.versus_auto_round.configurations import (
    Configuration,
    Paths,
    Settings,
    command,
    in_alternation,
    parse,
)
from tests.benchmarks.versus_auto_round.results import Results


def run_row(side: str, repeat: int, seconds: float, **values: Any) -> dict[str, Any]:
    return {
        "name": f"{side}-{repeat}", "model": "demo", "side": side, "recipe": "light", "scheme": "w4g64", "settings": "",
        "blocks": [], "repeat": repeat, "tokens_per_block": 1000, "seconds": seconds, "cpu_seconds": seconds,
        "peak_bytes": 1, "output_bytes": 1, "perplexity": 30.0, "kl_mean": 0.1, "kl_standard_error": 0.01,
        "kl_p99": 1.0, "top1": 0.9, "window_kl": [0.1, 0.1], **values,
    }  # fmt: skip


def paths_in(folder: Path) -> Paths:
    return Paths(folder, folder / "texts.jsonl", folder / "out-lr0.5", folder / "peer", folder / "recipes")


def test_a_configuration_is_read_from_its_text_and_written_again() -> None:
    found = parse("peer:alg_ext:w2g128")
    assert found == Configuration("peer", "alg_ext", 2, 128)
    assert str(found) == "peer:alg_ext:w2g128"


@pytest.mark.parametrize(
    "text", ["light:w4g64", "both:light:w4g64", "ours:light:w4", "peer:quick:w4g64", "ours::w4g64", "gsq:light:w4g64"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"of the form|not a recipe"):
        parse(text)


def test_runs_alternate_between_the_sides_in_both_orders() -> None:
    ours, peer = parse("ours:light:w4g64"), parse("peer:light:w4g64")
    assert in_alternation([ours, peer], 2) == [(0, ours), (0, peer), (1, peer), (1, ours)]


def test_the_name_of_a_run_depends_on_everything_that_changes_its_result() -> None:
    names = {
        configurations.run_name("demo", parse(text), settings, repeat)
        for text in ("ours:light:w4g64", "ours:light:w2g64")
        for settings in (Settings(), Settings(iters=2), Settings(samples=2), Settings(blocks=(0, 2)))
        for repeat in (0, 1)
    }
    assert len(names) == 16


def test_the_same_settings_reach_both_command_lines(tmp_path: Path) -> None:
    settings = Settings(iters=7, samples=11, seqlen=13, batch_size=17, lr=0.5)
    lines = [
        command(parse(text), settings, paths_in(tmp_path), 1)
        for text in ("ours:light:w2g32", "peer:best_alg_ext:w2g32")
    ]
    for line, samples, batch, group in zip(
        lines,
        ("--samples", "--nsamples"),
        ("--batch-size", "--batch_size"),
        ("--group-size", "--group_size"),
        strict=True,
    ):
        options = dict(pairwise(line))
        found = [options[key] for key in ("--iters", samples, "--seqlen", batch, "--lr", "--bits", group, "--seed")]
        assert found == ["7", "11", "13", "17", "0.5", "2", "32", "43"]
    assert "--enable_alg_ext" in lines[1]


def test_a_recipe_file_in_the_work_folder_is_used_by_its_name(tmp_path: Path) -> None:
    assert "mine" in command(parse("ours:mine:w4g64"), Settings(), paths_in(tmp_path), 0)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.json").write_text("{}")
    assert str(tmp_path / "recipes" / "mine.json") in command(
        parse("ours:mine:w4g64"), Settings(), paths_in(tmp_path), 0
    )


def test_blocks_that_are_not_chosen_stay_in_16_bits_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3}')
    ours, peer = (
        command(parse(text), Settings(blocks=(0, 2)), paths_in(tmp_path), 0)
        for text in ("ours:light:w2g64", "peer:light:w2g64")
    )
    assert peer[peer.index("--ignore_layers") + 1] == "model.layers.1."
    bits_map = json.loads(Path(ours[ours.index("--bits-map") + 1]).read_text())
    assert bits_map["default"]["bits"] == 2
    assert bits_map["rules"] == [{"match": "*.layers.1.*", "bits": 16}]


def test_the_tokens_of_the_peer_are_those_of_its_recipe_where_nothing_overrides_them(tmp_path: Path) -> None:
    assert configurations.tokens_per_block(parse("peer:default:w4g64"), Settings(), tmp_path) == 200 * 8 * 2048
    assert configurations.tokens_per_block(parse("peer:default:w4g64"), Settings(iters=5), tmp_path) == 5 * 8 * 2048


def test_finished_runs_are_found_again_and_others_are_not(tmp_path: Path) -> None:
    stored = Results(tmp_path / "results.jsonl")
    stored.add(run_row("ours", 0, 10.0))
    stored.add({"name": "ours-0", "text": "report", "max_windows": 0, "kl_mean": 0.5})
    again = Results(tmp_path / "results.jsonl")
    assert again.run("ours-0")
    assert again.run("ours-1") is None
    assert again.evaluation("ours-0", "report", 0)
    assert again.evaluation("ours-0", "choose", 0) is None
    assert again.evaluation("ours-0", "report", 4) is None


def test_a_line_that_was_cut_off_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"name": "a", "seconds": 1}\n{"name": "b", "sec')
    Results(path).add({"name": "c", "seconds": 2})
    assert [row["name"] for row in Results(path).rows()] == ["a", "c"]


def test_runs_are_joined_with_their_evaluation_on_the_text() -> None:
    rows = [{"name": "a", "seconds": 1}, {"name": "b", "seconds": 2}]
    evaluations = [{"name": "a", "text": "report", "kl_mean": 3}, {"name": "b", "text": "choose", "kl_mean": 4}]
    found = results.joined([*rows, *evaluations], "report")
    assert [(row["name"], row["seconds"], row["kl_mean"]) for row in found] == [("a", 1, 3)]


def test_ratios_are_those_of_runs_of_the_same_repetition_with_their_spread() -> None:
    rows = [run_row("ours", 0, 10.0), run_row("peer", 0, 20.0), run_row("ours", 1, 40.0), run_row("peer", 1, 20.0)]
    (found,) = results.ratios(rows)
    assert found["pairs"] == 2
    assert found["seconds"] == (pytest.approx(1.0), 0.5, 2.0)


def test_runs_of_different_schemes_or_blocks_are_not_compared() -> None:
    rows = [run_row("ours", 0, 1.0), run_row("peer", 0, 1.0, scheme="w2g64"), run_row("peer", 0, 1.0, blocks=[0])]
    assert results.ratios(rows) == []


def test_the_error_of_the_difference_is_that_of_paired_windows() -> None:
    """Windows of very different difficulty, and a nearly constant difference."""
    ours, peer = [0.11, 1.12, 5.13], [0.21, 1.22, 5.24]
    (found,) = results.ratios([run_row("ours", 0, 1.0, window_kl=ours), run_row("peer", 0, 1.0, window_kl=peer)])
    assert found["kl_difference"] == pytest.approx(-0.31 / 3)
    assert found["kl_difference_standard_error"] == pytest.approx(0.01 / 3, rel=1e-6)
    assert any("standard errors" in line for line in results.ratio_lines([found]))


def test_equal_outputs_have_a_difference_of_zero() -> None:
    lines = results.ratio_lines(results.ratios([run_row("ours", 0, 1.0), run_row("peer", 0, 1.0)]))
    assert lines[-1] == "  KL difference +0.00000 +- 0.00000 nats (no spread over windows)"


def test_the_curve_names_the_fastest_run_that_reaches_a_peer() -> None:
    rows = [
        run_row("ours", 0, 9.0, kl_mean=0.05, recipe="best"),
        run_row("ours", 0, 3.0, kl_mean=0.09),
        run_row("ours", 0, 1.0, kl_mean=0.3, recipe="rtn"),
        run_row("peer", 0, 12.0),
    ]
    assert "  KL of peer:light r0: reached by ours:light in 0.25 of its time." in results.curve_lines(rows)
    assert results.fastest_reaching(rows, 0.01) is None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integers_are_read_from_the_stream_of_bits(bits: int) -> None:
    values = torch.randint(0, 2**bits, (64, 3), generator=torch.Generator().manual_seed(bits))
    columns = []
    for column in values.t().tolist():
        stream = sum(value << (bits * place) for place, value in enumerate(column))
        words32 = [(stream >> (32 * word)) & 0xFFFFFFFF for word in range(2 * bits)]
        columns.append([word - (1 << 32) if word >> 31 else word for word in words32])
    words = torch.tensor(columns, dtype=torch.int32).t().contiguous()
    assert torch.equal(readback.unpacked(words, bits), values.int())


def test_a_weight_is_scale_times_distance_from_the_zero_point() -> None:
    """Four bits, 8 inputs in groups of 4, 8 outputs; all integers 5 and stored zero points 6."""
    five, six = int("5" * 8, 16), int("6" * 8, 16)
    parts = {
        "qweight": torch.full((1, 8), five, dtype=torch.int32),
        "qzeros": torch.full((2, 1), six, dtype=torch.int32),
        "scales": torch.tensor([[0.5] * 8, [2.0] * 8], dtype=torch.float16),
    }
    expected = torch.tensor([-1.0] * 4 + [-4.0] * 4).expand(8, 8)
    assert torch.equal(readback.dequantized(parts, 1), expected)
    order = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.int32)
    assert torch.equal(readback.dequantized({**parts, "g_idx": order}, 1), expected.flip(1))


def test_the_two_evaluation_texts_are_the_halves_of_every_document(tmp_path: Path) -> None:
    choose, report = (
        [json.loads(line)["text"] for line in material.evaluation_text(tmp_path, which).read_text().splitlines()]
        for which in material.TEXTS
    )
    originals = [document.text for document in bundled(RESOURCES / "evaluation")]
    assert [first + second for first, second in zip(choose, report, strict=True)] == originals
    shares = [len(first) / len(text) for first, text in zip(choose, originals, strict=True)]
    assert min(shares) > 0.3
    assert max(shares) < 0.7
