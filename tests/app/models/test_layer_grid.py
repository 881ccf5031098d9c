"""Where layers stand on the map, and what the columns are called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.models.layer_grid import APART, NOTHING, make_grid, short_names
from tests.core.paper_model import SHAPES, llama


def test_a_llama_has_a_row_a_block_and_its_columns_in_the_order_of_computing() -> None:
    grid = make_grid(llama(3))
    assert (grid.rows, grid.titles) == (3, ("q", "k", "v", "o", "gate", "up", "down"))


def test_unknown_kinds_stay_in_the_order_of_the_checkpoint() -> None:
    grid = make_grid(llama(2, shapes={"mlp.c_proj": (64, 64), "attn.c_attn": (192, 64), "attn.c_proj": (64, 64)}))
    assert grid.titles == ("mlp.c_proj", "c_attn", "attn.c_proj")


def test_every_layer_is_found_where_it_stands() -> None:
    tree = llama(4, tied=False)
    grid = make_grid(tree)
    assert [grid.layer_at(*place) for place in grid.places] == list(range(len(tree.linears)))


@pytest.mark.parametrize(("tied", "titles"), [(True, ["embed + lm_head"]), (False, ["embed", "lm_head"])])
def test_what_is_outside_the_blocks_stands_apart(tied: bool, titles: list[str]) -> None:
    grid = make_grid(llama(2, tied=tied))
    assert [one.title for one in grid.apart] == titles


def test_only_an_untied_head_is_a_layer() -> None:
    assert [one.layer for one in make_grid(llama(2, tied=False)).apart] == [NOTHING, 14]
    assert [one.layer for one in make_grid(llama(2)).apart] == [NOTHING]


def test_rectangles_columns_and_rows() -> None:
    tree = llama(3)
    grid = make_grid(tree)
    kinds = {tree.linears[layer].kind for layer in grid.column(0)}
    assert kinds == {"self_attn.q_proj"}
    assert {tree.linears[layer].block for layer in grid.row(1)} == {1}
    assert len(grid.within((2, 3), (1, 1))) == 6


def test_a_block_without_a_kind_has_a_hole() -> None:
    tree = llama(2, shapes={**SHAPES, "mlp.extra": (64, 64)})
    grid = make_grid(replace(tree, linears=tree.linears[:-1]))
    assert grid.layer_at(1, grid.titles.index("extra")) == NOTHING
    assert NOTHING not in grid.row(1)


def test_places_outside_the_map_hold_nothing() -> None:
    grid = make_grid(llama(2))
    assert {grid.layer_at(*place) for place in ((2, 0), (0, 7), (-2, 0), (APART, 5))} == {NOTHING}


@pytest.mark.parametrize(
    ("kinds", "titles"),
    [
        (("self_attn.q_proj", "mlp.down_proj"), ("q", "down")),
        (("attn.c_proj", "mlp.c_proj"), ("attn.c_proj", "mlp.c_proj")),
        (("experts.0.w1", "experts.1.w1", "gate"), ("0.w1", "1.w1", "gate")),
        (("fc1", "block.fc1"), ("fc1", "block.fc1")),
    ],
)
def test_titles_are_as_short_as_tells_them_apart(kinds: tuple[str, ...], titles: tuple[str, ...]) -> None:
    assert short_names(kinds) == titles
