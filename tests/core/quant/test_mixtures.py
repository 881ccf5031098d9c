"""Runs of mixtures and of models whose blocks need outputs of earlier blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.bitsmap import Rule
from core.events import Done
from core.formats.opened import open_checkpoint
from core.inference.loader import load_model
from core.quant import grid_groups
from tests.core.quant.test_pipeline import report_of, run, spec_of
from tests.core.tiny_architectures import make_model

pytestmark = pytest.mark.usefixtures("float32")


def done_of(folder: Path, name: str, **changes: Any) -> Done:
    make_model(name, folder / "model")
    last = run(spec_of(folder / "model", folder, **changes), folder)[-1]
    assert isinstance(last, Done)
    return last


def experts_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [mixture for block in report["blocks"] for mixture in block.get("experts", [])]


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "zamba2", "gemma4_text", "gpt2"])
def test_a_run_verifies_and_its_result_is_close_to_the_source(tmp_path: Path, name: str) -> None:
    report = done_of(tmp_path, name, bits=8, iters=2, samples=4).report
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        source, output = (
            load_model(str(tmp_path / folder), "cpu", "float32").model(input_ids=ids, use_cache=False).logits
            for folder in ("model", "out")
        )
    assert float((source - output).norm() / source.norm()) < 0.1  # 1.3 for swapped experts
    assert report["perplexity"]["quantized"] == pytest.approx(report["perplexity"]["original"], rel=0.05)


def test_experts_with_few_tokens_are_searched_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_groups, "FEW_TOKENS", 90)
    mixtures = experts_of(done_of(tmp_path, "qwen3_moe", samples=8).report)
    assert mixtures
    for mixture in mixtures:
        # 8 samples of 32 tokens, each to two experts
        assert sum(mixture["tokens"]) == 2 * 8 * 32
        assert list(mixture["not_tuned"]) == [n for n, tokens in enumerate(mixture["tokens"]) if tokens < 90]
    assert any(mixture["not_tuned"] for mixture in mixtures)
    assert any(len(mixture["not_tuned"]) < len(mixture["tokens"]) for mixture in mixtures)


def test_experts_that_are_not_tuned_keep_rounding_with_searched_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_groups, "FEW_TOKENS", 1 << 40)
    done_of(tmp_path, "qwen3_moe", bits=3, output="many")
    run(spec_of(tmp_path / "model", tmp_path, bits=3, iters=0, start="search", output="searched"), tmp_path)
    tuned, searched = (open_checkpoint(tmp_path / folder) for folder in ("many", "searched"))
    name = "model.layers.0.mlp.experts.1.gate_proj"
    assert all(torch.equal(a, b) for a, b in zip(tuned.layer(name).parts(), searched.layer(name).parts(), strict=True))


@pytest.mark.parametrize("start", ["range", "gptq"])
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_experts_that_stay_in_16_bits_are_counted_too(tmp_path: Path, name: str, start: str) -> None:
    make_model(name, tmp_path / "model")
    kept = tuple(Rule(f"*.experts.{number}.*", 16) for number in (2, 5))  # in the middle, and the last one
    report = report_of(run(spec_of(tmp_path / "model", tmp_path, start=start, rules=kept), tmp_path))
    for mixture in experts_of(report):
        assert len(mixture["tokens"]) == 6
        assert sum(mixture["tokens"]) == 2 * 8 * 32


def test_tuning_experts_lowers_the_loss_of_the_block(tmp_path: Path) -> None:
    report = done_of(tmp_path, "qwen3_moe", bits=2, iters=20, samples=8).report
    assert all(block["loss_after"] < block["loss_before"] for block in report["blocks"])
    assert all(block["best_iteration"] > 0 for block in report["blocks"])


def test_integers_of_experts_are_learned(tmp_path: Path) -> None:
    report = done_of(tmp_path, "qwen3_moe", start="gptq", bits=2, iters=20, samples=8).report
    spec = spec_of(tmp_path / "model", tmp_path, start="gptq", bits=2, iters=20, samples=8, output="learned")
    run(replace(spec, recipe=replace(spec.recipe, learn_integers=True)), tmp_path)
    fixed, learned = (open_checkpoint(tmp_path / folder) for folder in ("out", "learned"))
    changed = [name for name in fixed.schemes if not torch.equal(fixed.layer(name).ints, learned.layer(name).ints)]
    few = sum(len(mixture["not_tuned"]) for mixture in experts_of(report))
    assert len(changed) == len(fixed.schemes) - 3 * few


def test_runs_of_mixtures_are_deterministic(tmp_path: Path) -> None:
    done_of(tmp_path, "qwen3_moe", output="one")
    run(spec_of(tmp_path / "model", tmp_path, output="two"), tmp_path)
    one, two = (open_checkpoint(tmp_path / folder) for folder in ("one", "two"))
    assert list(one.schemes) == list(two.schemes)
    for name in one.schemes:
        assert all(torch.equal(a, b) for a, b in zip(one.layer(name).parts(), two.layer(name).parts(), strict=True))


def test_a_shared_block_is_quantized_once_and_used_by_all(tmp_path: Path) -> None:
    report = done_of(tmp_path, "zamba2", bits=4).report
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )
