"""Running a model block by block gives the output of the whole model, for every family and beyond sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from core.files import read_json
from core.model.block_runner import products_in
from core.model.headers import read_folder
from core.model.skeleton import build_skeleton
from core.model.tree import build_tree
from core.model.weights import TensorStore
from tests.core.model.block_by_block import run_blocks
from tests.core.tiny_architectures import make_model

TOKENS = 24
_WIDTHS: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_KINDS = ["sliding_attention", "full_attention"] * 2
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_WIDTHS}),
    "llama-tied": ("LlamaConfig", {**_WIDTHS, "tie_word_embeddings": True}),
    "llama-bias": ("LlamaConfig", {**_WIDTHS, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2Config", {**_WIDTHS}),
    "qwen2-sliding": (
        "Qwen2Config",
        {**_WIDTHS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {**_WIDTHS, "head_dim": 16}),
    "mistral": ("MistralConfig", {**_WIDTHS, "sliding_window": 8, "head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        {**_WIDTHS, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "layer_types": _KINDS},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {**_WIDTHS, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "layer_types": _KINDS},
    ),
    "phi3": ("Phi3Config", {**_WIDTHS, "sliding_window": 8}),
    "opt": (
        "OPTConfig",
        {
            **{key: value for key, value in _WIDTHS.items() if key != "num_key_value_heads"},
            "ffn_dim": 96,
            "word_embed_proj_dim": 32,
            "do_layer_norm_before": True,
        },
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}),
}


def saved(folder: Path, family: str) -> Any:
    """Save a random model of a family to `folder` and return it."""
    name, arguments = FAMILIES[family]
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**arguments)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return model


def blocks_equal_model(folder: Path, tokens: torch.Tensor, states: Sequence[Any], expected: torch.Tensor) -> bool:
    """Return whether running the blocks one by one, with calls captured for one row, gives the expected logits.

    The hidden states before each block are compared with `states` unless it is empty.
    """
    tree = build_tree(read_json(folder / "config.json"), read_folder(folder))
    assert tree.refusal == ""
    skeleton = build_skeleton(tree, TensorStore(folder))
    outputs = []
    for block, (hidden, output) in enumerate(run_blocks(skeleton, tokens)):
        outputs.append(output)
        if block < tree.blocks:
            assert not states or torch.allclose(hidden, states[block], atol=1e-4), f"input of block {block}"
            assert all(parameter.is_meta for parameter in skeleton.blocks[block].parameters())
    return torch.allclose(outputs[-1], expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_running_block_by_block_gives_the_states_and_logits_of_the_model(tmp_path: Path, family: str) -> None:
    model = saved(tmp_path, family)
    tokens = torch.randint(3, 96, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=tokens, use_cache=False, output_hidden_states=True)

    assert blocks_equal_model(tmp_path, tokens, expected.hidden_states, expected.logits)


@pytest.mark.parametrize(
    "name",
    [
        "falcon", "falcon new", "falcon alibi", "falcon_h1", "bloom", "mpt", "gpt_neox_japanese", "gptj",
        "bamba", "rwkv", "xlstm",
        "openai-gpt",
        "xglm",
        "gpt_neox", "nemotron_h",
        "gemma3n_text", "gemma4_text", "zamba2", "zaya", "glm_moe_dsa", "inkling2_text",
    ],
)  # fmt: skip
def test_every_form_of_block_return_value_and_batched_argument_is_handled(tmp_path: Path, name: str) -> None:
    """Tuples of one to three values and lists; attention masks and biases whose first dimension is the batch;
    checkpoints whose tensors transformers renames."""
    make_model(name, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(3, 96, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=tokens, use_cache=False).logits
    assert blocks_equal_model(tmp_path, tokens, [], expected)


def test_a_checkpoint_without_the_base_prefix_is_mapped_to_the_module_names(tmp_path: Path) -> None:
    model = saved(tmp_path / "whole", "gpt2")
    model.transformer.save_pretrained(tmp_path / "base")
    tree = build_tree(read_json(tmp_path / "base" / "config.json"), read_folder(tmp_path / "base"))
    skeleton = build_skeleton(tree, TensorStore(tmp_path / "base"))
    assert tree.prefix == "h"
    assert skeleton.module_name("h.0.attn.c_attn") == "transformer.h.0.attn.c_attn"
    filled: Any = skeleton.fill("transformer.h.2", torch.float32, torch.device("cpu"))
    assert torch.equal(filled.attn.c_attn.weight, model.transformer.h[2].attn.c_attn.weight)


def test_building_a_skeleton_reads_no_weights(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    tree = build_tree(read_json(tmp_path / "config.json"), read_folder(tmp_path))
    skeleton = build_skeleton(tree, TensorStore(tmp_path))
    assert all(parameter.is_meta for parameter in skeleton.model.parameters())
    assert not any(buffer.is_meta for buffer in skeleton.model.buffers())


def test_products_in_16_bits_are_added_to_sums_in_float32() -> None:
    """DBRX adds the outputs of its experts with `index_add_`, which autocast does not convert."""
    sums, weight, x = torch.zeros(4, 3), torch.randn(3, 5), torch.randn(2, 5)
    with products_in(torch.bfloat16, torch.device("cpu")):
        product = torch.nn.functional.linear(x, weight)
        sums.index_add_(0, torch.tensor([1, 3]), product)
    assert product.dtype == torch.bfloat16
    assert torch.equal(sums[[1, 3]], product.float())
