"""Written integers, scales and zero points are read back unchanged, and so are all other tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from core.formats.names import AUTO_ROUND, GPTQ
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.core.formats.tiny import (
    LLAMA_CONFIG,
    LLAMA_KINDS,
    Output,
    bits_map,
    llama_tensors,
    save_source,
    write_output,
)

NAMES = [f"model.layers.{block}.{kind}" for block in range(2) for kind in LLAMA_KINDS]
FORMATS = tuple(name for name in (*AUTO_ROUND, *GPTQ) if "awq" not in name)
"""Formats that store any map; AWQ's layout has its own tests."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_source(tmp_path_factory.mktemp("source"), llama_tensors(), LLAMA_CONFIG)


def assert_comes_back(output: Output, module_name: Callable[[str], str] | None = None) -> None:
    checkpoint = QuantizedCheckpoint(output.folder, module_name)
    assert checkpoint.schemes == {name: layer.scheme for name, layer in output.layers.items()}
    for name, layer in output.layers.items():
        back = checkpoint.layer(name)
        for part in ("ints", "scales", "zeros"):
            assert torch.equal(getattr(back, part), getattr(layer, part)), f"{name} {part}"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [-1, 32])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_uniform_map_is_read_back(
    source: Path, tmp_path: Path, bits: int, group_size: int, sym: bool, name: str
) -> None:
    chosen = bits_map(LayerScheme(bits, group_size, sym), {"lm_head": {"bits": bits}})
    assert_comes_back(write_output(source, tmp_path / "out", name, chosen))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.dictionaries(
        st.sampled_from([*NAMES, "lm_head"]),
        st.fixed_dictionaries(
            {},
            optional={
                "bits": st.sampled_from([2, 3, 4, 8, 16]),
                "group_size": st.sampled_from([-1, 32, 64, 128]),
                "sym": st.booleans(),
            },
        ),
    ),
    default=st.builds(LayerScheme, st.sampled_from([2, 3, 4, 8]), st.sampled_from([-1, 32, 64]), st.booleans()),
    name=st.sampled_from(FORMATS),
    shard=st.sampled_from([10_000, 10**9]),
)
def test_any_map_is_read_back(
    source: Path, tmp_path_factory: pytest.TempPathFactory, layers: dict, default: LayerScheme, name: str, shard: int
) -> None:
    layers |= {"model.layers.0.self_attn.v_proj": {"bits": 4}}  # something is quantized
    output = write_output(
        source, tmp_path_factory.mktemp("any"), name, bits_map(default, layers), max_shard_bytes=shard
    )
    assert_comes_back(output)


@pytest.mark.parametrize("name", FORMATS)
def test_other_tensors_keep_their_bytes(source: Path, tmp_path: Path, name: str) -> None:
    chosen = bits_map(LayerScheme(4, 32, True), {NAMES[3]: {"bits": 16}})
    output = write_output(source, tmp_path / "out", name, chosen)
    before = load_file(source / "model.safetensors")
    after = load_file(output.folder / "model.safetensors")
    assert QuantizedCheckpoint(output.folder).plain == [tensor for tensor in after if tensor in before]
    assert all(
        torch.equal(after[tensor].view(torch.int16), before[tensor].view(torch.int16)) for tensor in output.plan.copied
    )


@pytest.mark.parametrize("name", FORMATS)
def test_names_without_the_prefix_of_the_model_are_read_back(tmp_path: Path, name: str) -> None:
    tensors = {tensor.removeprefix("model."): value for tensor, value in llama_tensors().items()}
    source = save_source(tmp_path / "source", tensors, LLAMA_CONFIG)

    def module_name(linear: str) -> str:
        return f"model.{linear}" if linear.startswith("layers.") else linear

    chosen = bits_map(
        LayerScheme(4, 32, True), {"layers.0.mlp.up_proj": {"bits": 8}, "layers.1.mlp.up_proj": {"bits": 16}}
    )
    output = write_output(source, tmp_path / "out", name, chosen, module_name=module_name)
    assert_comes_back(output)
    assert_comes_back(output, module_name)
