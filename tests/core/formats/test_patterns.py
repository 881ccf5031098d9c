"""Untrusted patterns: the names that they match, and limits on size and time."""

from __future__ import annotations

import contextlib
import re
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnsupportedModel
from core.formats.patterns import MAX_LENGTH, Pattern, TimeBudget, is_simple

NAMES = ["model.layers.0.mlp.up_proj", "model.layers.10.mlp.up_proj", "model.layers.1.self_attn.k_proj", "lm_head"]

CATASTROPHIC = [
    r"(?:[a-z0-9._]{1,90}){1,9}!",
    r"(?:a{1,30}){1,30}b",
    r"(?=(a+)+b)",
    r"(a|aa|a?a?)*(a|a?a)*(?=\1b)",
    r"(x+x+)+y",
    r"(a*)*\1b",
    r".*.*.*.*.*.*.*.*!",
    r"(?:(?:a?){30}){30}b",
]


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        r".*up_proj.*", r"model\.layers\.\d+\.mlp", r"layers\.(0|1)\.", r"^lm_head$", r"(?!model)", r"(?i)LM_HEAD",
        r"", r"k_proj$", r"[[a]", r"a--b", r"^model\.layers\.0\.mlp\.up_proj$", r"layers\.\d{2}\.", r"^(?:lm)_head\Z",
    ],
)  # fmt: skip
def test_a_pattern_matches_like_re(text: str, anchored: bool) -> None:
    pattern = Pattern(text, TimeBudget(), anchored=anchored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about nested brackets, whose meaning may change in the future
        find = re.compile(text).match if anchored else re.compile(text).search
    assert [pattern.search(name) for name in NAMES] == [find(name) is not None for name in NAMES]


@pytest.mark.parametrize("text", ["*", "(", "a{2", "(?R)", r"\p{L}", "(" * 3000 + ")" * 3000, "(?P<a>x)(?&a)"])
def test_an_invalid_pattern_matches_nothing(text: str) -> None:
    if len(text) > MAX_LENGTH:
        with pytest.raises(UnsupportedModel):
            Pattern(text, TimeBudget(), anchored=False)
        return
    assert not Pattern(text, TimeBudget(), anchored=False).search("x" * 20)


def test_a_deeply_nested_pattern_matches_nothing() -> None:
    assert not Pattern("(" * 990 + ")" * 990, TimeBudget(), anchored=False).search("x")


@pytest.mark.parametrize("text", ["(?:(?:x{1000}){1000}){1000}", "x{9999999999999999}", "(?:x{1,40}){40}", "x" * 2001])
def test_a_pattern_that_is_too_large_is_rejected_before_compilation(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnsupportedModel, match="too large"):
        Pattern(text, TimeBudget(), anchored=False)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("text", CATASTROPHIC)
def test_a_slow_pattern_is_stopped_at_the_time_limit(text: str) -> None:
    budget = TimeBudget(0.2)
    pattern = Pattern(text, budget, anchored=False)
    started = time.monotonic()
    with contextlib.suppress(UnsupportedModel):
        assert not any(pattern.search(name) for name in ["a" * 60, "x" * 200, *NAMES])
    assert time.monotonic() - started < 5


def test_the_patterns_of_a_config_share_a_time_budget() -> None:
    budget = TimeBudget(0)
    for text in ("a", "b"):
        with pytest.raises(UnsupportedModel, match="too long"):
            Pattern(text, budget, anchored=True).search("a")


def test_a_name_above_the_length_limit_is_not_matched() -> None:
    assert not Pattern("a", TimeBudget(), anchored=False).search("a" * (MAX_LENGTH + 1))


@pytest.mark.parametrize(
    ("text", "anchored", "name"),
    [
        (r"^model\.layers\.0\.mlp$", False, "model.layers.0.mlp"),
        (r"model\.layers\.0$", True, "model.layers.0"),
        (r"model\.layers\.0$", False, None),
        (r"^lm_head", True, None),
        (r"^model.layers$", True, None),
        (r"\Aa\-b\Z", False, "a-b"),
        (r"^\d$", True, None),
    ],
)
def test_literal_is_the_only_name_that_a_pattern_matches(text: str, anchored: bool, name: str | None) -> None:
    assert Pattern(text, TimeBudget(), anchored=anchored).literal == name


@given(name=st.text(st.characters(codec="ascii", exclude_characters="\n"), min_size=1, max_size=30))
def test_an_escaped_name_matches_only_itself(name: str) -> None:
    pattern = Pattern(f"^{re.escape(name)}$", TimeBudget(), anchored=True)
    assert pattern.search(name)
    assert not pattern.search(f"{name}x")
    assert pattern.literal in (None, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r".*k_proj.*", True),
        (r"model\.layers\.(0|1)\..*", True),
        (r"(a+)+", False),
        (r"(ab){2,}", False),
        (r".*.*.*.*.*", False),
        ("a" * 2001, False),
    ],
)
def test_is_simple_rejects_repeated_groups_and_many_repetitions(text: str, expected: bool) -> None:
    assert is_simple(text) is expected
