"""Tensors take precedence over a config that contradicts them, and tensors outside the model are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.model.headers import TensorInfo
from core.model.tree import build_tree, read_tensors
from tests.core.model.test_tree import LLAMA, llama_table, table


@pytest.mark.parametrize("flag", [True, False, None])
def test_a_head_in_the_checkpoint_is_the_head_whatever_the_config_says(flag: bool | None) -> None:
    """transformers 5 does not tie two tensors that differ (huggingface/transformers#42612)."""
    entry = {} if flag is None else {"tie_word_embeddings": flag}
    tree = build_tree(LLAMA | entry, table(llama_table()))
    assert (tree.tied, tree.lm_head, tree.linears[-1].name) == (False, "lm_head", "lm_head")
    assert tree.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("flag", [True, False, None])
def test_without_a_head_in_the_checkpoint_the_model_is_tied(flag: bool | None) -> None:
    entry = {} if flag is None else {"tie_word_embeddings": flag}
    shapes = llama_table()
    del shapes["lm_head.weight"]
    tree = build_tree(LLAMA | entry, table(shapes))
    assert (tree.tied, tree.lm_head) == (True, None)
    assert tree.config["tie_word_embeddings"] is True


def test_a_nested_config_is_corrected_in_both_places() -> None:
    config = {"tie_word_embeddings": True, "text_config": LLAMA | {"tie_word_embeddings": True}}
    tree = build_tree(config, table(llama_table()))
    assert tree.config["tie_word_embeddings"] is tree.config["text_config"]["tie_word_embeddings"] is False
    assert config["tie_word_embeddings"] is True, "the argument is not modified"


def test_the_head_of_an_mtp_module_is_not_the_output_head() -> None:
    shapes = llama_table() | {"mtp.embed_tokens.weight": (160, 64), "mtp.lm_head.weight": (160, 64)}
    del shapes["lm_head.weight"]
    assert build_tree(LLAMA, table(shapes)).tied


@pytest.mark.parametrize("shape", [None, (0,)], ids=["missing", "empty"])
def test_a_head_is_not_taken_for_a_missing_embedding(shape: tuple[int, ...] | None) -> None:
    """ZeRO-3 leaves tensors of shape [0] (huggingface/transformers#20082)."""
    shapes = llama_table()
    del shapes["model.embed_tokens.weight"]
    tree = build_tree(LLAMA, table(shapes | ({} if shape is None else {"model.embed_tokens.weight": shape})))
    assert (tree.embedding, tree.lm_head) == ("", "lm_head")
    assert "no token embedding" in tree.refusal


def folder_with(folder: Path, config: dict[str, Any], **more: torch.Tensor) -> dict[str, TensorInfo]:
    tensors = {name: torch.zeros(shape) for name, shape in llama_table().items()} | more
    save_file(tensors, folder / "model.safetensors")
    return read_tensors(folder, config)


@pytest.mark.parametrize(("flag", "differs", "kept"), [(True, False, False), (True, True, True), (False, False, True)])
def test_a_head_equal_to_the_tied_embedding_is_dropped(tmp_path: Path, flag: bool, differs: bool, kept: bool) -> None:
    head = torch.zeros(160, 64)
    head[159, 63] = float(differs)
    found = folder_with(tmp_path, LLAMA | {"tie_word_embeddings": flag}, **{"lm_head.weight": head})
    assert ("lm_head.weight" in found) is kept


def test_adapter_matrices_are_not_layers() -> None:
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    tree = build_tree(LLAMA, table(llama_table() | {name: (8, 64)}))
    assert tree.left_out == (name,)
    assert name not in tree.tensors
    assert not any("lora" in linear.name for linear in tree.linears)
    assert tree.refusal == ""


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.embed_tokens.modules_to_save.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.weight",
    ],
)
def test_an_adapter_that_is_not_merged_is_refused(name: str) -> None:
    assert "merge" in build_tree(LLAMA, table(llama_table() | {name: (64, 64)})).refusal


STALE = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_a_quantization_config_of_unquantized_weights_is_removed() -> None:
    """A merge in 16 bits leaves it behind (unslothai/unsloth#1601)."""
    tree = build_tree(LLAMA | {"quantization_config": STALE}, table(llama_table()))
    assert tree.refusal == ""
    assert "quantization_config" not in tree.config


@pytest.mark.parametrize("name", ["model.layers.0.x.weight.absmax", "model.layers.0.x.qweight"])
def test_a_quantization_config_of_packed_weights_is_kept(name: str) -> None:
    tensors = table(llama_table()) | table({name: (8, 8)}, "U8")
    assert "quantized already" in build_tree(LLAMA | {"quantization_config": STALE}, tensors).refusal


def test_references_to_python_files_are_removed() -> None:
    config = LLAMA | {"auto_map": {"AutoConfig": "configuration_x.X"}}
    assert "auto_map" not in build_tree(config, table(llama_table())).config
