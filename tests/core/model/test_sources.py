"""Parameters are made of the same tensors, in the same way, as transformers makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.files import read_json
from core.model.slices import RowNumbers, assemble
from core.model.sources import ParameterSource, by_parameter, find_sources
from core.model.tree import build_tree, read_tensors
from tests.core.tiny_architectures import make_model

NAMES = [
    "llama",
    "gpt_neox",
    "qwen3_moe",
    "mixtral",
    "gpt_oss",
    "granitemoe",
    "kimi_linear",
    "nemotron_h moe",
    "zamba2",
]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any, dict[str, torch.Tensor]]:
    make_model(request.param, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    return tmp_path, loaded, load_file(tmp_path / "model.safetensors")


def test_all_parameters_are_those_of_from_pretrained(model: tuple[Path, Any, dict[str, torch.Tensor]]) -> None:
    _, loaded, tensors = model
    sources, unused = find_sources(loaded, tensors)
    assert unused == []
    made = {name: value for source in sources for name, value in source.build(tensors.__getitem__, loaded).items()}
    for name, expected in loaded.named_parameters():
        assert torch.equal(made[name].float(), expected), name


def test_shapes_are_found_without_values(model: tuple[Path, Any, dict[str, torch.Tensor]]) -> None:
    _, loaded, tensors = model
    sources, _ = find_sources(loaded, tensors)
    owners, shapes = by_parameter(sources, loaded, {name: tuple(value.shape) for name, value in tensors.items()})
    for name, parameter in loaded.named_parameters():
        assert shapes[name] == tuple(parameter.shape)
        assert owners[name].names


def test_tensors_that_cannot_be_joined_are_named(tmp_path: Path) -> None:
    make_model("qwen3_moe", tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    shapes = {name: tuple(value.shape) for name, value in load_file(tmp_path / "model.safetensors").items()}
    shapes["model.layers.1.mlp.experts.2.up_proj.weight"] = (32, 64)
    sources, _ = find_sources(loaded, shapes)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.experts\.gate_up_proj cannot be made of"):
        by_parameter(sources, loaded, shapes)


def test_row_numbers_find_every_expert(tmp_path: Path) -> None:
    make_model("mixtral", tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    sources, _ = find_sources(loaded, tensors)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    parameters = dict(loaded.named_parameters())
    joined = [source for source in sources if source.converter is not None]
    assert joined
    for source in joined:
        numbers = RowNumbers(source, shapes, False, loaded)
        for name in source.names:
            weight = assemble(numbers.slices(name, None, None), parameters, shapes[name][0])
            assert torch.equal(weight, tensors[name].float()), name


def test_one_tensor_of_several_parameters_has_a_slice_in_each() -> None:
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=8
        )
    )
    from transformers.core_model_loading import Chunk, WeightConverter

    projections = [f"{name}_proj.weight" for name in "qkv"]
    converter = WeightConverter("qkv.weight", projections, [Chunk(dim=0)])
    source = ParameterSource(
        "model.layers.0.self_attn.q_proj.weight", {"qkv.weight": ["model.layers.0.self_attn.qkv.weight"]}, converter
    )
    (name,) = source.names
    numbers = RowNumbers(source, {name: (24, 8)}, False, model)
    found = numbers.slices(name, None, None)
    assert [part.of for part in found] == [slice(0, 8, 1), slice(8, 16, 1), slice(16, 24, 1)]
    weight = torch.arange(24 * 8.0).view(24, 8)
    parts = {part.parameter: weight[part.of] for part in found}
    assert torch.equal(assemble(found, parts, 24), weight)


@pytest.mark.parametrize("stored", [(2, 6, 4), (2, 4, 6)], ids=["as the parameter", "transposed"])
def test_row_numbers_follow_a_converter_that_looks_at_shapes(stored: tuple[int, ...]) -> None:
    from transformers.core_model_loading import Transpose, WeightConverter

    model = torch.nn.Module()
    model.gate_up_proj = torch.nn.Parameter(torch.zeros(2, 6, 4))
    model.config = None  # type: ignore[assignment]
    converter = WeightConverter("experts", "gate_up_proj", [Transpose(1, 2, check_dims=True)])
    source = ParameterSource("gate_up_proj", {"experts": ["experts"]}, converter)

    numbers = RowNumbers(source, {"experts": stored}, stored != (2, 6, 4), model)

    (found,) = numbers.slices("experts", 1, (0, 3, 1))
    assert (found.expert, found.rows, found.transposed) == (1, slice(0, 3, 1), False)


def test_trees_list_the_layers_that_sources_fill(model: tuple[Path, Any, dict[str, torch.Tensor]]) -> None:
    folder, loaded, tensors = model
    config = read_json(folder / "config.json")
    tree = build_tree(config, read_tensors(folder, config))
    sources, _ = find_sources(loaded, tensors)
    filled = {name for source in sources for name in source.names}
    assert {tree.weight_of(linear) for linear in tree.linears} <= filled
