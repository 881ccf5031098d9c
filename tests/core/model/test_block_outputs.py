"""What a block hands on is taken apart and put together again, in every form that models use."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch

from core.model.block_outputs import hand_on, outputs, snapshot

HIDDEN, FURTHER = torch.ones(2, 3), torch.zeros(4)


@pytest.mark.parametrize(
    "returned",
    [HIDDEN, (HIDDEN,), (HIDDEN, None), (HIDDEN, FURTHER, None), [HIDDEN, (FURTHER, {"a": FURTHER})]],
)
def test_returned_values_are_rebuilt_from_their_tensors(returned: Any) -> None:
    leaves, layout = outputs(returned, (), {}, {})
    assert leaves[0] is HIDDEN
    rebuilt = hand_on(layout, leaves, (), {})
    again, _ = outputs(rebuilt, (), {}, {})
    assert type(rebuilt) is type(returned)
    assert [id(leaf) for leaf in again] == [id(leaf) for leaf in leaves]


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_entries_that_a_block_stores_in_a_dictionary_are_outputs(kind: Any) -> None:
    shared = kind({"old": FURTHER})
    before = snapshot((), {"shared": shared})
    shared["new"] = (FURTHER, HIDDEN)
    leaves, layout = outputs(HIDDEN, (), {"shared": shared}, before)
    assert [id(leaf) for leaf in leaves] == [id(HIDDEN), id(FURTHER), id(HIDDEN)]
    empty = kind()
    hand_on(layout, leaves, (), {"shared": empty})
    assert list(empty.keys()) == ["new"]
    assert empty["new"][1] is HIDDEN


def test_replaced_entries_count_and_unchanged_ones_do_not() -> None:
    shared = {"a": FURTHER, "b": FURTHER}
    before = snapshot((shared,), {})
    shared["b"] = HIDDEN
    leaves, _ = outputs(HIDDEN, (shared,), {}, before)
    assert len(leaves) == 2
