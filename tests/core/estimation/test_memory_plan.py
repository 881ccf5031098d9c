"""The choices of a run for a memory limit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.allocation.request import parse_size
from core.bitsmap import BitsMap
from core.errors import BadInput
from core.estimation.memory_plan import MemoryNeeds, check_limit, memory_needs, plan_memory, rounded_up
from core.model.tree import resolve_schemes
from core.recipes import Recipe, load
from core.spec import JobSpec
from tests.core.paper_model import llama, mixture

SIZES = st.integers(0, 1000)
NEEDS = st.builds(
    MemoryNeeds,
    process=SIZES,
    states=SIZES,
    kept=SIZES,
    fixed=SIZES,
    start=SIZES,
    grams=st.lists(st.integers(1, 300), max_size=6).map(tuple),
    tuning=SIZES,
    gradients=SIZES,
    sample=SIZES,
    stage=SIZES,
    inputs=SIZES,
    blocks=SIZES,
    batch=st.integers(1, 12),
    accumulate=st.integers(1, 3),
    steps=st.booleans(),
    frugal=st.booleans(),
)
LIMITS = st.integers(0, 8000)
DEVICES = st.none() | LIMITS


@given(NEEDS, LIMITS, DEVICES)
def test_the_planned_bytes_never_exceed_the_limit(needs: MemoryNeeds, limit: int, device: int | None) -> None:
    try:
        plan = check_limit(needs, limit, device)
    except BadInput:
        return
    assert plan.host <= limit


@given(NEEDS, LIMITS, LIMITS, DEVICES)
def test_more_memory_never_gives_a_slower_plan(needs: MemoryNeeds, one: int, other: int, device: int | None) -> None:
    low, high = sorted((one, other))
    before, after = (plan_memory(needs, limit, device) for limit in (low, high))
    if before.host <= low and (device is None or before.device <= device):
        assert after.slowness <= before.slowness
        assert after.gram_bytes >= before.gram_bytes or after.slowness < before.slowness


@given(NEEDS, LIMITS, LIMITS)
def test_more_memory_of_a_device_never_gives_a_slower_plan(needs: MemoryNeeds, one: int, other: int) -> None:
    low, high = sorted((one, other))
    before, after = (plan_memory(needs, 10**6, device) for device in (low, high))
    if before.device <= low:
        assert after.slowness <= before.slowness


@given(NEEDS, LIMITS)
def test_a_refusal_names_a_limit_that_is_sufficient(needs: MemoryNeeds, limit: int) -> None:
    try:
        check_limit(needs, limit)
    except BadInput as error:
        found = re.search(r"--memory (\S+),", error.hint)
        assert found is not None
        assert check_limit(needs, parse_size(found[1])).host > limit


@given(NEEDS, LIMITS)
def test_a_micro_batch_divides_the_batch(needs: MemoryNeeds, limit: int) -> None:
    plan = plan_memory(needs, limit)
    assert needs.batch % plan.micro_batch == 0
    assert plan.gram_bytes >= max(needs.grams, default=0)
    assert (plan.micro_batch, plan.spill) == (1, True) or not needs.frugal


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1001, "1.01 kB"), (5_201_000_000, "5.21 GB")]
)
def test_sizes_are_rounded_up(nbytes: int, text: str) -> None:
    assert rounded_up(nbytes) == text


def spec_of(recipe: Recipe, **changes: object) -> JobSpec:
    return replace(JobSpec("model", "output", recipe), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default", "best", "gptq", "autoround", "rtn"])
def test_needs_do_not_grow_with_the_number_of_blocks_except_for_the_stage(name: str) -> None:
    recipe = replace(load(name), end_to_end=0)
    found = []
    for blocks in (2, 20):
        tree = llama(blocks)
        plans = resolve_schemes(tree, BitsMap())
        found.append(memory_needs(tree, plans, spec_of(recipe), 2))
    assert found[0] == found[1]


def test_with_files_the_plan_does_not_depend_on_the_number_of_blocks_and_samples() -> None:
    recipe, found, files = replace(load("default"), end_to_end=10), set(), []
    for blocks, samples in ((2, 64), (20, 1024)):
        tree = llama(blocks)
        needs = memory_needs(tree, resolve_schemes(tree, BitsMap()), spec_of(replace(recipe, samples=samples)), 2)
        plan = plan_memory(needs, 0)
        found.add(replace(plan, passes=0, files=0))
        files.append(plan.files)
        assert plan_memory(needs, 10**15).files == 0
    assert len(found) == 1
    assert files[1] > files[0] > 0


def test_a_mixture_needs_more_than_its_experts_have_inputs() -> None:
    small, large = (mixture(2, experts, hidden=512, intermediate=256) for experts in (8, 64))
    needs = [
        memory_needs(tree, resolve_schemes(tree, BitsMap()), spec_of(load("default")), 2) for tree in (small, large)
    ]
    assert sum(needs[1].grams) > 4 * sum(needs[0].grams)  # one matrix for each expert,
    least = [plan_memory(one, 0) for one in needs]
    assert least[1].gram_bytes == max(needs[1].grams)  # of which one has to be in memory
    assert least[1].passes > least[0].passes
