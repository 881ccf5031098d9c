"""Where layers stand on the map, and what the columns are called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.pages.layers.layer_grid import NOTHING, OUTER_ROW, LayerGrid, make_grid, short_names
from tests.app.pages.layers.experts import mixture
from tests.core.paper_model import SHAPES, llama, seeing


def test_a_llama_has_a_row_a_block_and_its_columns_in_the_order_of_computing() -> None:
    grid = make_grid(llama(3))
    assert (grid.rows, grid.titles) == (3, ("q", "k", "v", "o", "gate", "up", "down"))


def test_unknown_kinds_stay_in_the_order_of_the_checkpoint() -> None:
    grid = make_grid(llama(2, shapes={"mlp.c_proj": (64, 64), "attn.c_attn": (192, 64), "attn.c_proj": (64, 64)}))
    assert grid.titles == ("mlp.c_proj", "c_attn", "attn.c_proj")


def test_known_kinds_are_in_the_order_of_computation_beside_unknown_ones() -> None:
    names = ("mamba.in_proj", "mamba.out_proj", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj")
    grid = make_grid(llama(2, shapes=dict.fromkeys(names, (64, 64))))
    assert grid.titles == ("in_proj", "out_proj", "q", "k", "o")


def test_compressed_queries_and_keys_are_in_the_order_of_computation() -> None:
    names = ("kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj")
    grid = make_grid(llama(2, shapes={f"self_attn.{name}": (64, 64) for name in names}))
    assert grid.titles == ("q_a", "q_b", "kv_a_proj_with_mqa", "kv_b", "o")


def test_known_modules_are_in_the_order_of_computation_beside_unknown_ones() -> None:
    names = ("mlp.down_proj", "mlp.up_proj", "per_layer_projection", "self_attn.k_proj", "self_attn.q_proj")
    grid = make_grid(llama(2, shapes=dict.fromkeys(names, (64, 64))))
    assert grid.titles == ("q", "k", "per_layer_projection", "up", "down")


def test_known_kinds_are_in_the_order_of_computation_beside_unknown_ones_of_the_same_module() -> None:
    kinds = ("in_proj", "out_proj", "k_proj", "o_proj", "q_proj", "v_proj", "down_proj", "up_proj")
    grid = make_grid(llama(2, shapes={f"mixer.{kind}": (64, 64) for kind in kinds}))
    assert grid.titles == ("in_proj", "out_proj", "q", "k", "v", "o", "up", "down")


def test_every_layer_is_found_where_it_stands() -> None:
    tree = llama(4, tied=False)
    grid = make_grid(tree)
    assert [grid.layer_at(*place) for place in grid.places] == list(range(len(tree.linears)))


@pytest.mark.parametrize(("tied", "titles"), [(True, ["embed", "lm_head (tied)"]), (False, ["embed", "lm_head"])])
def test_what_is_outside_the_blocks_stands_apart(tied: bool, titles: list[str]) -> None:
    grid = make_grid(llama(2, tied=tied))
    assert [one.title for one in grid.outer] == titles


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_a_layer_and_the_embedding_is_none(tied: bool) -> None:
    grid = make_grid(llama(2, tied=tied))
    assert [one.layer for one in grid.outer] == [NOTHING, 14]
    assert grid.places[14] == (OUTER_ROW, 1)


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
    assert {grid.layer_at(*place) for place in ((2, 0), (0, 7), (-2, 0), (OUTER_ROW, 5))} == {NOTHING}


@pytest.mark.parametrize(
    ("kinds", "titles"),
    [
        (("self_attn.q_proj", "mlp.down_proj"), ("q", "down")),
        (("attn.c_proj", "mlp.c_proj"), ("attn.c_proj", "mlp.c_proj")),
        (("experts.0.w1", "experts.1.w1", "gate"), ("0.w1", "1.w1", "gate")),
        (("fc1", "block.fc1"), ("fc1", "block.fc1")),
        (("mlp.gate", "mlp.gate_proj", "mlp.up_proj"), ("gate", "gate_proj", "up")),
    ],
)
def test_titles_are_as_short_as_tells_them_apart(kinds: tuple[str, ...], titles: tuple[str, ...]) -> None:
    assert short_names(kinds) == titles


# --- Experts ------------------------------------------------------------------------------------------------

GATE = "mlp.experts.*.gate_proj"
MIXTURE = mixture(3, 12)


@pytest.fixture
def folded() -> LayerGrid:
    return make_grid(MIXTURE)


def test_experts_are_one_column_a_module(folded: LayerGrid) -> None:
    assert folded.titles == ("q", "k", "v", "o", "mlp.gate", "gate", "up", "down")
    assert [(band.title, band.experts, band.folded) for band in folded.bands] == [
        ("gate", 12, True),
        ("up", 12, True),
        ("down", 12, True),
    ]


def test_a_dense_model_has_no_bands() -> None:
    assert make_grid(llama(2)).bands == ()


def test_a_folded_cell_stands_for_all_experts_of_its_block(folded: LayerGrid) -> None:
    kinds = [MIXTURE.linears[layer].kind for layer in folded.layers_at(1, 5)]
    assert kinds == [f"mlp.experts.{number}.gate_proj" for number in range(12)]
    assert {MIXTURE.linears[layer].block for layer in folded.layers_at(1, 5)} == {1}
    assert folded.layer_at(1, 5) == folded.layers_at(1, 5)[0]


def test_unfolded_experts_have_a_column_each_in_their_order(folded: LayerGrid) -> None:
    grid = folded.unfold(GATE)
    assert grid.titles[4:18] == ("mlp.gate", *map(str, range(12)), "up")
    assert grid.bands[0].columns == range(5, 17)
    assert [MIXTURE.linears[layer].kind for layer in grid.column(7)] == ["mlp.experts.2.gate_proj"] * 3


def test_folding_again_gives_the_same_grid(folded: LayerGrid) -> None:
    opened = folded.turned(GATE)
    assert not opened.bands[0].folded
    assert opened.turned(GATE) == folded
    assert opened.fold(GATE) == folded


@pytest.mark.parametrize("stems", [(), (GATE,), (GATE, "mlp.experts.*.up_proj")])
def test_every_layer_has_its_place_however_it_is_folded(folded: LayerGrid, stems: tuple[str, ...]) -> None:
    grid = folded
    for stem in stems:
        grid = grid.unfold(stem)
    assert all(layer in grid.layers_at(*place) for layer, place in enumerate(grid.places))
    assert sorted(layer for row in range(grid.rows) for layer in grid.row(row)) == list(range(len(MIXTURE.linears)))


def test_rectangles_hold_all_layers_of_folded_cells(folded: LayerGrid) -> None:
    assert len(folded.within((0, 4), (1, 5))) == 2 * (1 + 12)
    assert len(folded.column(6)) == 3 * 12


def test_one_expert_is_no_reason_to_fold() -> None:
    assert make_grid(mixture(2, 1)).bands == ()


def test_a_block_without_experts_has_a_hole(folded: LayerGrid) -> None:
    dense = [linear for linear in MIXTURE.linears if linear.block > 0 or ".experts." not in linear.kind]
    grid = make_grid(replace(MIXTURE, linears=tuple(dense)))
    assert grid.layers_at(0, 5) == ()
    assert len(grid.layers_at(1, 5)) == 12


def test_modules_that_share_their_names_stay_together() -> None:
    shapes = {
        **{f"mlp.experts.{n}.{kind}_proj": (64, 64) for n in range(2) for kind in ("down", "gate", "up")},
        **{f"mlp.shared_expert.{kind}_proj": (64, 64) for kind in ("down", "gate", "up")},
        "self_attn.q_proj": (64, 64),
    }
    kinds = make_grid(llama(1, shapes=shapes)).kinds
    assert [kind.rpartition(".")[0] for kind in kinds] == ["self_attn"] + 3 * ["mlp.experts.*"] + 3 * [
        "mlp.shared_expert"
    ]


def test_parts_that_are_not_quantized_are_named_with_their_sizes() -> None:
    titles = [part.title for part in make_grid(seeing(2)).copied]
    assert titles[0] == "vision tower  model.vision_tower"
    assert len(titles) == 2


def test_a_text_model_has_no_such_parts() -> None:
    assert make_grid(llama(2)).copied == ()
