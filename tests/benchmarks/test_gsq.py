"""Tests of the re-implementation of GSQ with which the product is compared."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.schemes import LayerScheme
from tests.benchmarks.versus_auto_round import gsq, gumbel, readback
from tests.benchmarks.versus_auto_round.configurations import Paths, Settings, command, parse, tokens_per_block
from tests.core.tiny_model import save_model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("gsq") / "model")


def layer() -> tuple[Tensor, Tensor]:
    """Return a random weight [48, 64] and the Gram matrix of correlated inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return torch.randn(48, 64, generator=generator), inputs.T @ inputs / 512


def error(weight: Tensor, gram: Tensor, found: gsq.Found) -> float:
    difference = weight - gumbel.values_of(*found)
    return float(((difference @ gram) * difference).sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_training_reduces_the_error_of_gptq_and_gptq_that_of_rounding(bits: int) -> None:
    weight, gram = layer()
    parts = [gumbel.search_scale(part, bits) for part in weight.split(32, dim=1)]
    scale = torch.cat(parts, dim=1)
    half = 2 ** (bits - 1)
    nearest = (weight / gumbel.values_of(torch.ones_like(weight), scale)).round().clamp(-half, half - 1)
    start = gumbel.gptq(weight, gram, bits, 32)
    relaxed = gumbel.RelaxedWeight(*start, bits, gumbel.Noise(0, 1 << 16))
    gumbel.refine(weight, relaxed, gram, 200)
    levels, _ = found = relaxed.hard()
    assert error(weight, gram, found) < error(weight, gram, start) < error(weight, gram, (nearest, scale))
    assert levels.min() >= -half
    assert levels.max() < half
    assert not torch.equal(levels, start[0])


@pytest.mark.parametrize("bits", [2, 4])
def test_gradients_of_a_sample_are_those_of_the_softmax(bits: int) -> None:
    weight, gram = layer()
    relaxed = gumbel.RelaxedWeight(*gumbel.gptq(weight, gram, bits, 32), bits, gumbel.Noise(1, 1 << 16))
    table = gumbel.Noise(1, 1 << 16)
    table.normal(relaxed.logits.shape)  # as for the first logits
    drawn = relaxed.draw(0.5)
    relaxed.collect(weight)
    logits, scale = relaxed.logits.clone().requires_grad_(True), relaxed.scale.clone().requires_grad_(True)
    temperature, sharpness = (sum(ends) / 2 for ends in (gumbel.TEMPERATURES, gumbel.SHARPNESS))
    likely = torch.softmax((logits * sharpness + table.draw(logits.shape)) / temperature, dim=0)
    candidates = torch.tensor(relaxed.candidates).view(-1, 1, 1)
    expected = gumbel.values_of(relaxed.base + (candidates * likely).sum(dim=0), scale)
    (expected * weight).sum().backward()
    torch.testing.assert_close(drawn, expected.detach())
    assert logits.grad is not None
    torch.testing.assert_close(relaxed._gradients[0], logits.grad, rtol=1e-4, atol=1e-5 * float(logits.grad.max()))
    torch.testing.assert_close(relaxed._gradients[1], scale.grad)


def test_the_learning_rates_of_short_runs_add_up_to_those_of_the_authors() -> None:
    sums = [math.fsum(gumbel.rate_share(step, steps) for step in range(steps)) for steps in (50, gumbel.STEPS)]
    assert sums[0] == pytest.approx(sums[1], rel=0.01)
    assert gumbel.rate_share(0, gumbel.STEPS) == pytest.approx(1.0)


def test_a_trained_block_has_a_smaller_error_than_gptq(source: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = torch.randint(0, 288, (32, 32), generator=torch.Generator().manual_seed(0))
    states, arguments = gsq.block_arguments(model, tokens)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    block = model.model.layers[0]
    original = {name: value.clone() for name, value in block.state_dict().items()}
    wanted = gsq.outputs(gsq.whole, block, states, arguments[0])
    errors = []
    for iters in (0, 60):
        block.load_state_dict(original)
        gsq.quantize_block(block, states, arguments[0], gsq.Settings(2, 32, iters, 8, 1))
        errors.append(float((gsq.outputs(gsq.whole, block, states, arguments[0]) - wanted).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def quantized(source: Path, folder: Path, blocks: tuple[int, ...]) -> dict[str, gsq.Found]:
    """Quantize the model with GPTQ only, and write it into `folder`."""
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto").eval()
    tokens = torch.randint(0, 288, (4, 32), generator=torch.Generator().manual_seed(0))
    found = gsq.quantize(model, tokens, blocks, gsq.Settings(2, 32, 0, 4, 1))
    gsq.write(source, folder, found, 2)
    return found


def test_only_chosen_blocks_differ_from_the_original_in_the_output(source: Path, tmp_path: Path) -> None:
    found = quantized(source, tmp_path / "out", (1,))
    originals, floats = readback.read_floats(source), readback.read_floats(tmp_path / "out")
    changed = {name for name, value in floats.items() if not torch.equal(value, originals[name])}
    assert changed == {f"{name}.weight" for name in found}
    assert len(found) == 7
    assert all(name.startswith("model.layers.1.") for name in found)
    readback.load_plain(source, floats)


def test_the_end_to_end_stage_starts_from_the_stored_levels(source: Path, tmp_path: Path) -> None:
    found = quantized(source, tmp_path / "gptq", (0,))
    names = ["model.layers.0.mlp.up_proj", "model.layers.0.self_attn.k_proj"]
    groups = [
        SimpleNamespace(rows=[SimpleNamespace(item=SimpleNamespace(linear=SimpleNamespace(name=name)))])
        for name in names
    ]
    floats = readback.read_floats(tmp_path / "gptq")
    for name, start in zip(names, gsq.stored_start(tmp_path / "gptq", LayerScheme(2, 32))(groups), strict=True):
        assert torch.equal(start.values(), floats[f"{name}.weight"])
        assert torch.equal(start.centered(), found[name][0])


def test_settings_reach_the_command_line_and_end_to_end_steps_use_the_run_without_them(tmp_path: Path) -> None:
    settings = Settings(iters=7, samples=11, seqlen=13, batch_size=17, blocks=(0, 2))
    output = tmp_path / "demo-gsq-gsq_e2e60-w2g32-r1"
    paths = Paths(tmp_path, tmp_path / "texts.jsonl", output, tmp_path / "peer", tmp_path / "recipes")
    configuration = parse("gsq:gsq_e2e60:w2g32")
    options = dict(pairwise(command(configuration, settings, paths, 1)))
    found = [options[f"--{key}"] for key in ("iters", "samples", "seqlen", "batch-size", "bits", "group-size", "seed")]
    assert found == ["7", "11", "13", "17", "2", "32", "43"]
    assert (options["--blocks"], options["--end-to-end"]) == ("0,2", "60")
    assert options["--levels"] == str(tmp_path / "demo-gsq-gsq-w2g32-r1")
    assert tokens_per_block(configuration, settings, output) == 7 * 13 * 17
    assert tokens_per_block(parse("gsq:gptq:w2g32"), settings, output) == 0
