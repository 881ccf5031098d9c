"""Rules as lines: what is read, what is refused, and that what is written is read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.layers.budget.pattern_lines import parse, written
from core.bitsmap import Rule
from core.errors import BadInput


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", ()),
        ("*.down_proj = 8", (Rule("*.down_proj", 8),)),
        ("\n a=2\n\nb = 4 g32 asym\n", (Rule("a", 2), Rule("b", 4, 32, False))),
        ("x = 8 row sym", (Rule("x", 8, -1, True),)),
        (r"/a=.*/ = 16", (Rule(r"/a=.*/", 16),)),
    ],
)
def test_lines_are_rules(text: str, rules: tuple[Rule, ...]) -> None:
    assert parse(text) == rules


@pytest.mark.parametrize("text", ["*.down_proj", "= 8", "a =", "a = five", "a = 5", "a = g32", "/(/ = 4", "a = 4 g33"])
def test_a_line_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(text)


@given(
    st.lists(
        st.builds(
            Rule,
            st.text("abc.*_0123456789", min_size=1).map(str.strip).filter(bool),
            st.sampled_from([2, 3, 4, 8, 16]),
            st.sampled_from([None, 32, 128, -1]),
            st.sampled_from([None, True, False]),
        )
    )
)
def test_what_is_written_is_read_again(rules: list[Rule]) -> None:
    assert parse(written(rules)) == tuple(rules)
