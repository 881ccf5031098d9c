"""Tests of the estimates on a small model, and that more work never costs less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.bitsmap import BitsMap, Rule
from core.estimation.costs import (
    _START_OPERATIONS,
    Costs,
    cache_bytes,
    end_to_end_share,
    estimate,
    run_flops,
    tokens_per_expert,
)
from core.estimation.preflight import read_tree
from core.estimation.run_bytes import scoring_bytes
from core.estimation.sizes import output_size
from core.model.tree import ModelTree, resolve_schemes
from core.recipes import Recipe, load
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.paper_model import llama, mixture
from tests.core.tiny_model import BLOCKS, SHAPES, WIDTH, save_model

RECIPE = Recipe(iters=10, samples=16, seqlen=32, batch_size=4, accumulate=2, start="range")
SPEC = JobSpec("m", "o", recipe=RECIPE)
WEIGHTS = sum(rows * columns for rows, columns in SHAPES.values())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModelTree:
    return read_tree(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def costs(tree: ModelTree, spec: JobSpec = SPEC, throughput: float | None = 1e9, on_device: bool = False) -> Costs:
    return estimate(tree, resolve_schemes(tree, spec.bits_map), spec, throughput, on_device=on_device)


def test_the_operations_of_a_run_equal_the_formula(tree: ModelTree) -> None:
    forward = 2 * WEIGHTS + 2 * 32 * WIDTH  # products with the weights, and causal attention over 32 tokens
    tuning = 3 * forward * (4 * 2 * 32) * 10
    activations = forward * 2 * 16 * 32
    judging = forward * 80 * 32
    assert run_flops(tree, RECIPE) == BLOCKS * (tuning + activations + judging)


def test_plain_rounding_needs_no_operations_and_a_search_only_forward_passes(tree: ModelTree) -> None:
    assert run_flops(tree, replace(RECIPE, iters=0)) == 0
    searched = run_flops(tree, replace(RECIPE, iters=0, start="search"))
    assert 0 < searched < run_flops(tree, replace(RECIPE, iters=1))


def test_a_start_adds_a_pass_over_the_text_the_gram_matrices_and_the_start_of_each_layer(tree: ModelTree) -> None:
    started = replace(RECIPE, start="gptq")
    forward = 2 * WEIGHTS + 2 * 32 * WIDTH
    layers = sum(columns * columns * rows for rows, columns in SHAPES.values())
    added = run_flops(tree, started) - run_flops(tree, RECIPE)
    assert added == pytest.approx(BLOCKS * (16 * 32 * (forward + 2 * WEIGHTS) + _START_OPERATIONS * layers))
    assert run_flops(tree, replace(started, iters=0)) > added


def test_steps_are_those_of_blocks_with_a_layer_that_is_tuned(tree: ModelTree) -> None:
    started = replace(SPEC, recipe=replace(RECIPE, start="gptq"))
    all_steps = costs(tree, started).flops
    eight = costs(tree, replace(started, bits_map=BitsMap(LayerScheme(8, 32)))).flops
    one = costs(tree, replace(started, bits_map=BitsMap(LayerScheme(8, 32), (Rule("*.0.*", bits=4),)))).flops
    forward = 2 * WEIGHTS + 2 * 32 * WIDTH
    steps = 3 * forward * (4 * 2 * 32) * 10 + forward * 80 * 32
    assert all_steps - eight == pytest.approx(BLOCKS * steps)
    assert one - eight == pytest.approx(steps)


def test_a_start_needs_the_gram_matrices_of_a_block_and_copies_of_one() -> None:
    wide = {"mlp.down_proj": (64, 8192), "mlp.up_proj": (8192, 64)}
    tree = llama(2, shapes=wide)
    fixed, plain = (
        costs(tree, replace(SPEC, recipe=replace(RECIPE, iters=0, start=start))).ram for start in ("gptq", "range")
    )
    assert fixed.low - plain.low > 2 * 4 * 8192**2
    assert fixed.high - plain.high > 4 * 8192**2 + 4 * 4 * 8192**2


def test_every_expert_has_a_gram_matrix() -> None:
    started = replace(SPEC, recipe=replace(RECIPE, iters=0, start="gptq"))
    few, many = costs(mixture(2, 8), started).ram, costs(mixture(2, 2048), started).ram
    plain = [costs(mixture(2, count), replace(SPEC, recipe=replace(RECIPE, iters=0))).ram.high for count in (8, 2048)]
    per_expert = 4 * (64**2 + 32**2)
    assert (many.high - few.high) - (plain[1] - plain[0]) >= 0.9 * 2040 * per_expert


def test_the_time_is_a_range_around_that_of_the_products(tree: ModelTree) -> None:
    seconds = costs(tree).seconds
    assert seconds is not None
    bare = run_flops(tree, RECIPE) / 1e9
    assert bare < seconds.low < seconds.high
    twice = costs(tree, throughput=2e9).seconds
    assert twice is not None
    assert twice.high < seconds.high


def test_without_a_speed_the_time_is_unknown(tree: ModelTree) -> None:
    assert costs(tree, throughput=None).seconds is None
    assert costs(tree, throughput=None).to_json()["seconds"] is None


def test_the_disk_holds_every_format(tree: ModelTree) -> None:
    formats = ("auto_round", "auto_gptq")
    plans = resolve_schemes(tree, BitsMap())
    tensors = sum(output_size(tree, plans, name).total for name in formats)
    disk = costs(tree, replace(SPEC, formats=formats)).disk
    assert tensors < disk.low < disk.high


def test_low_memory_moves_the_caches_from_memory_to_disk(tree: ModelTree) -> None:
    many = replace(SPEC, recipe=replace(RECIPE, samples=512))  # so many that the head counts less
    usual, low = costs(tree, many), costs(tree, replace(many, low_memory=True))
    caches = cache_bytes(tree, many.recipe)
    assert usual.ram.low - low.ram.low == caches.low
    assert low.disk.low - usual.disk.low == caches.low
    assert low.ram.high < usual.ram.high


def test_a_device_holds_the_block_instead_of_the_host(tree: ModelTree) -> None:
    host, device = costs(tree), costs(tree, on_device=True)
    assert (host.device.low, host.device.high) == (0, 0)
    assert device.device.low > 0
    assert device.ram.low == host.ram.low - device.device.low


@pytest.mark.parametrize("more", [{"iters": 20}, {"samples": 32}, {"seqlen": 64}, {"batch_size": 8}])
def test_more_work_never_costs_less(tree: ModelTree, more: dict[str, Any]) -> None:
    less, greater = costs(tree), costs(tree, replace(SPEC, recipe=replace(RECIPE, **more)))
    assert greater.flops > less.flops
    assert greater.ram.high >= less.ram.high


def test_every_range_is_ordered(tree: ModelTree) -> None:
    for spec in (SPEC, replace(SPEC, low_memory=True), replace(SPEC, recipe=replace(RECIPE, iters=0))):
        found = costs(tree, spec)
        assert all(value.low <= value.high for value in (found.disk, found.ram, found.device, found.seconds) if value)


def test_a_large_vocabulary_is_counted_where_its_head_is_scored_or_quantized(tree: ModelTree) -> None:
    info = tree.tensors[f"{tree.embedding}.weight"]
    rows = 1 << 20
    large = replace(
        tree, tensors={**tree.tensors, info.name: replace(info, shape=(rows, WIDTH), end=info.start + 2 * rows * WIDTH)}
    )
    plain = costs(large).ram
    assert plain.high - costs(tree).ram.high > 2 * rows * WIDTH
    head = BitsMap(layers=(Rule("lm_head", bits=8),))
    wide = replace(info, shape=(rows, 1024))
    large = replace(tree, tensors={**tree.tensors, info.name: wide})
    scored = [scoring_bytes(large, resolve_schemes(tree, bits_map)).high for bits_map in (BitsMap(), head)]
    assert scored[0] > 2 * rows * 1024
    assert scored[1] - scored[0] > 4 * rows * 1024


def test_load_widens_the_range_of_time_downwards(tree: ModelTree) -> None:
    plans = resolve_schemes(tree, SPEC.bits_map)
    quiet, busy = estimate(tree, plans, SPEC, 1e9), estimate(tree, plans, SPEC, 0.25e9, load=0.75)
    assert quiet.seconds is not None
    assert busy.seconds is not None
    assert busy.seconds.low == pytest.approx(quiet.seconds.low)
    assert busy.seconds.high > 3 * (quiet.seconds.high - 40)
    assert busy.to_json()["load"] == 0.75


def test_measuring_the_loss_takes_time_even_with_plain_rounding(tree: ModelTree) -> None:
    plain = replace(SPEC, recipe=replace(RECIPE, iters=0))
    slow, fast = costs(tree, plain, 1e6).seconds, costs(tree, plain, 1e9).seconds
    assert slow is not None
    assert fast is not None
    assert slow.low > 3 * 2 * 8 * 512 * BLOCKS * WEIGHTS / 1e6 > fast.high


def test_a_token_of_a_mixture_costs_only_the_products_of_its_experts() -> None:
    few, many = mixture(2, 8), mixture(2, 32)
    expert = 3 * 64 * 32
    assert list(few.active_weights) == [4 * 64 * 64 + 8 * 64 + 2 * expert] * 2
    router = 2 * 24 * 64 * (3 * 32 * 8 * 10 + 2 * 16 * 32 + 80 * 32)
    assert run_flops(many, RECIPE) - run_flops(few, RECIPE) == 2 * router
    assert few.experts == (8, 8)


def test_without_the_number_of_experts_per_token_all_of_them_count() -> None:
    tree = mixture(1, 8)
    unknown = replace(tree, config={key: value for key, value in tree.config.items() if "per_tok" not in key})
    assert unknown.active_weights == unknown.block_weights
    assert tokens_per_expert(unknown, RECIPE) is None


def test_the_tokens_of_an_expert_are_its_share_of_the_calibration_text() -> None:
    assert tokens_per_expert(mixture(1, 8), RECIPE) == 16 * 32 * 2 / 8
    assert tokens_per_expert(llama(1), RECIPE) is None
    assert costs(mixture(1, 8)).to_json()["tokens_per_expert"] == 128


def test_more_experts_cost_memory_and_the_time_of_their_rounding() -> None:
    few, many = costs(mixture(2, 8)), costs(mixture(2, 128))
    assert few.seconds is not None
    assert many.seconds is not None
    assert many.seconds.high > few.seconds.high
    assert many.ram.high > few.ram.high


def test_end_to_end_steps_cost_time_and_the_memory_of_the_kept_blocks(tree: ModelTree) -> None:
    blockwise = replace(SPEC, recipe=replace(RECIPE, start="gptq"))
    steps = replace(SPEC, recipe=replace(RECIPE, start="gptq", end_to_end=100))
    quantized = sum(tree.block_weights)
    without, found = costs(tree, blockwise), costs(tree, steps)
    assert found.flops > without.flops
    assert found.ram.low - without.ram.low == pytest.approx(1.1 * quantized)
    assert found.disk == without.disk
    low, before = (costs(tree, replace(spec, low_memory=True)).disk.low for spec in (steps, blockwise))
    assert low - before == pytest.approx(1.1 * quantized)
    share = end_to_end_share(tree, steps.recipe)
    assert share == pytest.approx((found.flops - without.flops) / found.flops)
    assert end_to_end_share(tree, blockwise.recipe) == 0


def test_the_estimate_of_a_run_that_was_measured_holds_its_time_and_is_not_wide() -> None:
    # SmolLM2-135M-Instruct, 2 bits, two cores with 400 GFLOP/s: 866 s, of which 190 s in 60 end-to-end steps
    with_stage = costs(llama(30), replace(SPEC, recipe=load("default")), throughput=4e11).seconds
    without = costs(llama(30), replace(SPEC, recipe=load("default", end_to_end=0)), throughput=4e11).seconds
    assert with_stage is not None
    assert without is not None
    assert 866 / 1.4 < with_stage.low < 866 < with_stage.high < 866 * 1.5
    assert with_stage.low - without.low < 220 < with_stage.high - without.high
