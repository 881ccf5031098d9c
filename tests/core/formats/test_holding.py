"""Problems of formats with a plan, and remarks on its size."""

from __future__ import annotations

import pytest

from core.bitsmap import BitsMap, Rule
from core.formats.grids import plan_layers
from core.formats.holding import notes, problems
from core.formats.names import FORMATS
from core.schemes import LayerScheme
from tests.core.paper_model import llama, mixture, seeing

TREE = llama(4)


def problems_of(bits_map: BitsMap, name: str) -> list[str]:
    return problems(TREE, plan_layers(TREE, bits_map, ("auto_round",)), name)


@pytest.mark.parametrize("name", [name for name in FORMATS if ":q" not in name])
def test_all_formats_store_four_symmetric_bits(name: str) -> None:
    assert problems_of(BitsMap(LayerScheme(4, 64)), name) == []


def test_no_block_type_stores_eight_asymmetric_bits() -> None:
    found = problems_of(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", bits=8, sym=False),)), "gguf")
    assert len(found) == 1
    assert "layers.0.self_attn.v_proj and 3 more layers" in found[0]
    assert "W8 g64 asym" in found[0]


def test_awq_stores_four_bits_of_one_scheme() -> None:
    assert problems_of(BitsMap(LayerScheme(3, 64)), "auto_awq")
    assert problems_of(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", group_size=32),)), "auto_awq")
    assert problems_of(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", bits=16),)), "auto_awq") == []


def test_only_gguf_stores_gguf_block_types() -> None:
    plans = plan_layers(TREE, BitsMap(), ("gguf:q4_k_m",))
    assert problems(TREE, plans, "gguf:q4_k_m") == []
    assert problems(TREE, plans, "auto_round")


@pytest.mark.parametrize(
    ("scheme", "cost"),
    [(LayerScheme(2, 64), "4.5"), (LayerScheme(3, 64, sym=False), "4.5"), (LayerScheme(4, 64, sym=False), "5.5")],
)
def test_a_note_has_the_bits_per_weight_of_larger_gguf_types(scheme: LayerScheme, cost: str) -> None:
    found = notes(TREE, plan_layers(TREE, BitsMap(scheme), ("gguf",)), "gguf")
    assert len(found) == 1
    assert f"take {cost} bits per weight" in found[0]


def test_there_are_no_notes_for_equivalent_types() -> None:
    plans = plan_layers(TREE, BitsMap(LayerScheme(4, 32)), ("gguf",))
    assert notes(TREE, plans, "gguf") == []
    assert notes(TREE, plans, "auto_round") == []


def test_the_architecture_of_a_mixture_is_named_for_gguf() -> None:
    tree = mixture(2, 4)
    for name in ("gguf", "gguf:q4_k_m"):
        (found,) = problems(tree, plan_layers(tree, BitsMap(LayerScheme(4, 32)), (name,)), name)
        assert "this model is 'qwen3_moe'" in found


def test_gguf_files_have_no_towers() -> None:
    tree = seeing(2)
    found = problems(tree, plan_layers(tree, BitsMap(LayerScheme(4, 64), towers=8), ("gguf",)), "gguf")
    first = "model.vision_tower.encoder.layers.0.mlp.fc1"
    assert found == [f"GGUF files leave towers out, so the bits of {first} and 1 more cannot be stored."]
    assert problems(tree, plan_layers(tree, BitsMap(LayerScheme(4, 64)), ("gguf",)), "gguf") == []
