"""Facts about a model from its headers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.pages.model.facts import facts, origin_text, stored_as
from core.model.headers import TensorInfo
from core.model.tree import ModelTree
from core.wording import count, human
from tests.app.pages.layers.experts import mixture
from tests.core.paper_model import seeing
from tests.core.tiny_model import BLOCKS, SHAPES, WIDTH

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel


def values(opened: OpenedModel, license: str = "") -> dict[str, str]:
    return {fact.key: fact.value for fact in facts(opened, license)}


def test_what_the_headers_say(opened: OpenedModel) -> None:
    found = values(opened, "mit")
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["blocks"] == f"{BLOCKS}, {BLOCKS * len(SHAPES)} linear layers"
    assert found["hidden"] == str(WIDTH)
    assert found["vocabulary"] == "288"
    assert found["context"] == "256"
    assert found["dtype"] == "bfloat16"
    assert found["tied"] == "tied to embedding"
    assert found["license"] == "mit"


def test_the_exact_figures_are_kept(opened: OpenedModel) -> None:
    exact = {fact.key: fact.exact for fact in facts(opened, "")}
    total = sum(tensor.nbytes for tensor in opened.tree.tensors.values())
    assert exact["parameters"] == f"{opened.tree.parameters:,}"
    assert exact["size"] == f"{total:,} bytes"


def test_quantized_weights_have_the_size_of_their_files_and_that_in_16_bits(opened: OpenedModel) -> None:
    found = {fact.key: fact for fact in facts(replace(opened, file_bytes=1_000), "")}
    assert found["size"].value == f"{human(1_000)}, {human(opened.tree.nbytes)} in 16 bits"
    assert found["size"].exact == f"1,000 bytes in the files, {opened.tree.nbytes:,} bytes in 16 bits"


def test_a_mixture_tells_the_experts_and_the_parameters_of_a_token(opened: OpenedModel) -> None:
    tree = mixture(2, 8)
    tree = replace(tree, config={**tree.config, "num_experts_per_tok": 2})
    found = {fact.key: fact for fact in facts(replace(opened, tree=tree), "")}
    unused = 2 * 6 * 3 * 64 * 64
    assert found["experts"].value == "8, 2 for a token"
    assert found["experts"].exact == "Routed experts, in 2 of 2 blocks"
    assert found["parameters"].value.endswith(f", {count(tree.parameters - unused)} for a token")
    assert f"{tree.parameters - unused:,}" in found["parameters"].exact


def test_experts_of_a_token_that_no_config_states_are_not_guessed(opened: OpenedModel) -> None:
    tree = mixture(2, 8)
    found = values(replace(opened, tree=tree))
    assert found["experts"] == "8"
    assert found["parameters"] == count(tree.parameters)


def test_a_model_without_experts_has_no_line_about_them(opened: OpenedModel) -> None:
    assert "experts" not in values(opened)


def test_the_license_names_what_states_it(opened: OpenedModel) -> None:
    exact = {fact.key: fact.exact for fact in facts(opened, "mit", "the model card")}
    assert exact["license"] == "Stated by the model card"


def test_a_config_that_says_nothing_is_said_so(opened: OpenedModel) -> None:
    bare = replace(opened, tree=replace(opened.tree, config={"max_position_embeddings": "many"}, architecture=""))
    found = values(bare)
    assert found["context"] == "not stated"
    assert found["license"] == "not stated"
    assert found["architecture"] == "llama"
    assert found["hidden"] == str(WIDTH)  # the embedding knows


def test_a_nested_config_is_read(opened: OpenedModel) -> None:
    config = {"text_config": {"max_position_embeddings": 4096}}
    assert values(replace(opened, tree=replace(opened.tree, config=config)))["context"] == "4,096"


def test_a_rare_number_format_is_not_worth_a_word(opened: OpenedModel) -> None:
    def tree(norm_bytes: int) -> ModelTree:
        tensors = {
            "a.weight": TensorInfo("a.weight", "BF16", (500, 1000), "f", 0, 1_000_000),
            "n.weight": TensorInfo("n.weight", "F32", (norm_bytes // 4,), "f", 1_000_000, 1_000_000 + norm_bytes),
        }
        return replace(opened.tree, tensors=tensors)

    assert stored_as(tree(400)) == "bfloat16"
    assert stored_as(tree(40_000)) == "bfloat16, float32"


@pytest.mark.parametrize(
    ("origin", "download", "words"),
    [
        ("demo", 0, "Included with Bitwright, no download needed"),
        ("gguf", 0, "Imported from x/y"),
        ("folder", 0, "/here"),
        ("hub", 5, "From the Hugging Face Hub, not downloaded yet"),
        ("hub", 0, "From the Hugging Face Hub, downloaded to the cache"),
    ],
)
def test_where_it_comes_from(opened: OpenedModel, origin: str, download: int, words: str) -> None:
    folder = "" if download else "/here"
    assert origin_text(replace(opened, name="x/y", origin=origin, folder=folder, download_bytes=download)) == words


def test_a_multimodal_model_tells_what_it_reads_and_what_is_copied(opened: OpenedModel) -> None:
    found = {fact.key: fact for fact in facts(replace(opened, tree=seeing(2)), "")}
    assert found["reads"].value == "text, pictures"
    assert (found["tower_vision"].name, found["tower_vision"].value) == ("Vision tower", "9.59 MB, copied")
    assert found["tower_vision"].exact.startswith("model.vision_tower: 9,592,832 bytes, bfloat16")
    assert found["tower_projector"].value == "1.18 MB, copied"


def test_a_text_model_says_nothing_of_pictures(opened: OpenedModel) -> None:
    assert "reads" not in values(opened)
