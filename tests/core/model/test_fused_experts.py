"""Experts and other layers of tiny mixtures and hybrids, compared with the modules and parameters of transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.pytorch_utils import Conv1D

from core.model.fused_experts import expert_linears, layout_of
from core.model.headers import TensorInfo, read_folder
from core.model.tree import ModelTree, build_tree
from core.model.weights import TensorStore, read_bias, read_linear
from tests.core.tiny_architectures import make_model

MIXTURES: Final = (
    "aria_text", "dbrx", "gpt_oss", "granitemoe", "hy_v4", "inkling2_text", "inkling_text", "jetmoe", "kimi_linear",
    "llama4_text", "mixtral", "nemotron_h moe", "qwen3_5_moe_text", "qwen3_moe",
)  # fmt: skip
"""One model of each layout of experts."""
HYBRIDS: Final = (
    "deepseek_v32",
    "doge moe",
    "falcon_h1",
    "gemma3n_text",
    "gpt2",
    "jamba",
    "lfm2",
    "qwen3_next",
    "zamba2",
)
"""Models with other tensors in their blocks that are no linear layers, or that stay in 16 bits."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"": tmp_path_factory.mktemp("models")}


def folder_of(folders: dict[str, Path], name: str) -> Path:
    if name not in folders:
        folder = folders[name] = folders[""] / name.replace(" ", "_")
        make_model(name, folder)
    return folders[name]


def tree_of(folder: Path) -> ModelTree:
    return build_tree(json.loads((folder / "config.json").read_text()), read_folder(folder))


def loaded(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def expert_matrices(module: Any, path: str) -> Iterator[tuple[int, str, Tensor, Tensor | None]]:
    """Expert, projection, weight [out, in] and bias of every expert, as the forward of the module reads them."""
    values = {name: value.detach() for name, value in module.named_parameters(recurse=False)}
    transposed = getattr(module, "is_transposed", type(module).__name__ == "Llama4TextExperts")
    interleaved = not getattr(module, "is_concatenated", True)
    for name, value in values.items():
        if value.dim() != 3 or name not in ("gate_up_proj", "gate_proj", "up_proj", "down_proj"):
            continue
        for expert, matrix in enumerate(value.mT if transposed else value):
            bias = values[f"{name}_bias"][expert] if f"{name}_bias" in values else None
            if name != "gate_up_proj":
                yield expert, name, matrix, bias
                continue
            half = len(matrix) // 2
            for place, projection in enumerate(("gate_proj", "up_proj")):
                rows = slice(place, None, 2) if interleaved else slice(place * half, (place + 1) * half)
                yield expert, projection, matrix[rows], None if bias is None else bias[rows]
    if type(module).__name__ == "DbrxExpertGLU":
        for name, projection in (("w1", "gate_proj"), ("v1", "up_proj"), ("w2", "down_proj")):
            for expert, matrix in enumerate(
                values[name].view(module.moe_num_experts, module.ffn_hidden_size, module.hidden_size)
            ):
                yield expert, projection, matrix.T if name == "w2" else matrix, None
    if type(module).__name__ == "JetMoeParallelExperts":
        last = path.rpartition(".")[2]
        for expert, matrix in enumerate(values["weight"]):
            if ".experts." in path:
                yield expert, last, matrix, None
            elif last == "output_linear":
                yield expert, "down_proj", matrix, None
            else:
                yield expert, "gate_proj", matrix[: len(matrix) // 2], None
                yield expert, "up_proj", matrix[len(matrix) // 2 :], None


@pytest.mark.parametrize("name", MIXTURES)
def test_the_experts_of_the_tree_are_those_that_the_model_computes_with(folders: dict[str, Path], name: str) -> None:
    folder = folder_of(folders, name)
    tree, store = tree_of(folder), TensorStore(folder)
    assert tree.refusal == ""
    experts = [
        linear
        for linear in tree.linears
        if "experts." in linear.kind
        and linear.kind.split(".")[-2].isdigit()
        and (not linear.kept or "shared_experts." in linear.kind)
    ]
    wanted: dict[tuple[int, int, str, tuple[int, ...]], list[tuple[Tensor, Tensor | None]]] = {}
    stack = max(
        (module for module in loaded(folder).modules() if isinstance(module, nn.ModuleList)),
        key=lambda module: sum(value.numel() for value in module.parameters()),
    )
    for block, layer in enumerate(stack):
        for path, module in layer.named_modules():
            for expert, projection, matrix, bias in expert_matrices(module, path):
                wanted.setdefault((block, expert, projection, tuple(matrix.shape)), []).append((matrix, bias))
    assert len(experts) == sum(map(len, wanted.values())) > 0
    for linear in experts:
        *_, number, projection = linear.kind.split(".")
        weight, bias = read_linear(store, tree, linear), read_bias(store, tree, linear)
        assert weight.is_contiguous()
        assert weight.shape == (linear.out_features, linear.in_features)
        assert weight.nbytes == tree.stored_bytes(linear)
        candidates = wanted[linear.block, int(number), projection, tuple(weight.shape)]
        found = [pair for pair in candidates if torch.equal(pair[0], weight)]
        assert len(found) == 1, linear.name
        wanted_bias = found[0][1]
        assert (bias is None) == (wanted_bias is None) == (not linear.has_bias)
        assert bias is None or wanted_bias is None or torch.equal(bias, wanted_bias)


@pytest.mark.parametrize("name", MIXTURES + HYBRIDS)
def test_the_layers_are_the_linear_modules_and_experts_of_the_model(folders: dict[str, Path], name: str) -> None:
    """Every weight of a linear module or expert in the blocks is listed, once; others are not, or stay in 16 bits."""
    folder = folder_of(folders, name)
    tree = tree_of(folder)
    parts: dict[str, int] = {}
    for linear in tree.linears:
        tensor = tree.weight_of(linear)
        parts[tensor] = parts.get(tensor, 0) + linear.in_features * linear.out_features
    assert all(size == tree.tensors[tensor].numel for tensor, size in parts.items())
    assert sum(tree.block_weights) == sum(size for tensor, size in parts.items() if tensor.startswith(tree.prefix))
    kept = {tree.weight_of(linear) for linear in tree.linears if linear.kept}
    model = loaded(folder)
    owner: dict[str, nn.Module] = {
        f"{path}.{slot}": module
        for path, module in model.named_modules()
        for slot, _ in module.named_parameters("", False)
    }
    steps, base = get_model_conversion_mapping(model), f"{model.base_model_prefix}."
    for tensor, info in tree.tensors.items():
        renamed = tensor
        for step in steps:
            renamed = step.rename_source_key(renamed)[0]
        keys = (renamed, base + renamed, renamed.removeprefix(base))
        module = next((owner[key] for key in keys if key in owner), None)  # None: a buffer
        if not tensor.startswith(f"{tree.prefix}."):
            continue
        matrix = isinstance(module, nn.Linear | Conv1D) and tensor.endswith(".weight")
        expert = "Expert" in type(module).__name__ and len(info.shape) > 1 and not tensor.endswith("bias")
        assert (tensor in parts) == (matrix or expert) or tensor in kept, tensor


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("qwen3_next", {"linear_attn.in_proj_ba", "mlp.gate", "mlp.shared_expert_gate"}),
        ("qwen3_5_moe_text", {"linear_attn.in_proj_a", "linear_attn.in_proj_b", "mlp.gate", "mlp.shared_expert_gate"}),
        ("kimi_linear", {"self_attn.b_proj", "self_attn.f_a_proj", "self_attn.f_b_proj", "block_sparse_moe.gate"}),
        ("jetmoe", {"mlp.router.layer", "self_attention.experts.router.layer"}),
        ("jamba", {"mamba.x_proj", "mamba.dt_proj"}),
        (
            "inkling_text",
            {"mlp.gate", *(f"mlp.shared_experts.0.{name}_proj" for name in ("gate", "up", "down"))},
        ),
        ("gpt2", set()),
    ],
)
def test_routers_and_gates_stay_in_16_bits(folders: dict[str, Path], name: str, kinds: set[str]) -> None:
    tree = tree_of(folder_of(folders, name))
    assert {linear.kind for linear in tree.linears if linear.kept} == kinds


def info_of(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, "BF16", shape, "model.safetensors", 0, 0)


def test_the_model_type_decides_between_two_possible_storage_orders() -> None:
    square = [info_of("model.layers.0.mlp.experts.down_proj", 4, 64, 64)]
    assert layout_of("gpt_oss", {"hidden_size": 64}, square)[0].transposed
    assert not layout_of("qwen3_moe", {"hidden_size": 64}, square)[0].transposed


def test_the_shape_of_one_projection_decides_for_all() -> None:
    tensors = [
        info_of("model.layers.0.mlp.experts.gate_up_proj", 4, 64, 128),
        info_of("model.layers.0.mlp.experts.down_proj", 4, 64, 64),
    ]
    assert layout_of("a new type", {"hidden_size": 64}, tensors)[0].transposed


def test_shapes_that_contradict_each_other_are_refused() -> None:
    tensors = [
        info_of("model.layers.0.mlp.experts.gate_up_proj", 4, 64, 256),
        info_of("model.layers.0.mlp.experts.down_proj", 4, 64, 128),
    ]
    assert "contradict" in layout_of("qwen3_moe", {"hidden_size": 64}, tensors)[1]


@pytest.mark.parametrize("shape", [(1 << 30, 2, 1), (0, 64, 64), (4, 0, 64)])
def test_a_tensor_with_an_impossible_number_of_experts_has_no_layers(shape: tuple[int, ...]) -> None:
    info = info_of("model.layers.0.mlp.experts.gate_up_proj", *shape)
    layout, _ = layout_of("qwen3_moe", {"hidden_size": 64}, [info])
    assert expert_linears([info], "model.layers.0.", layout, {}) == {}
