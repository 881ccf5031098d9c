"""Quantized heads read by auto-round: untied heads, and heads that were tied to the embedding in the source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.formats.reader import QuantizedCheckpoint
from core.inference.loader import load_model
from core.schemes import LayerScheme
from tests.core.formats.test_peer import assert_same_plain_tensors, assert_same_weights, load_by_peer, save
from tests.core.formats.tiny import Output, bits_map, write_output

pytest.importorskip("auto_round")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TOKENS = torch.arange(60).reshape(3, 20)
HEAD: Mapping[str, Mapping[str, Any]] = {"lm_head": {"bits": 8}}


def llama(folder: Path, tied: bool) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied,
    )  # fmt: skip
    save(transformers.LlamaForCausalLM(config), folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    return folder


def expected_answers(source: Path, output: Output) -> torch.Tensor:
    """Return the logits of the source with the dequantized weights of the output, including an untied head."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        for name, layer in output.layers.items():
            model.get_submodule(name).weight = torch.nn.Parameter(layer.dequantize())
        return model(TOKENS).logits


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("others", [4, 16], ids=["with blocks", "head alone"])
def test_a_head_in_8_bits(tmp_path: Path, name: str, tied: bool, others: int) -> None:
    source = llama(tmp_path / "source", tied)
    output = write_output(source, tmp_path / "out", name, bits_map(LayerScheme(others, 32), HEAD))
    assert json.loads((output.folder / "config.json").read_text())["tie_word_embeddings"] is False
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model)
    assert_same_plain_tensors(source, output, model)
    embedding = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(model.get_input_embeddings().weight, embedding.half())
    with torch.no_grad():
        assert apart(model(TOKENS).logits, expected_answers(source, output)) < 1e-2


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_our_own_loader_reads_the_same(tmp_path: Path, tied: bool) -> None:
    source = llama(tmp_path / "source", tied)
    output = write_output(source, tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32), HEAD))
    (output.folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (output.folder / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    loaded = load_model(str(output.folder), "cpu", "float32")
    assert loaded.schemes == {"W4 g32 sym": 14, "W8 g32 sym": 1}
    with torch.no_grad():
        assert apart(loaded.model(TOKENS).logits, expected_answers(source, output)) < 1e-5


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_a_tied_head_beside_names_without_a_prefix(tmp_path: Path, name: str, prefixed: bool) -> None:
    """GPT-2, which stores weights as [in, out] and has a tied head, with and without the prefix `transformer.`."""
    config = transformers.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    source = save(transformers.GPT2LMHeadModel(config), tmp_path / "source", "" if prefixed else "transformer.")

    def module_name(linear: str) -> str:
        return f"transformer.{linear}" if linear.startswith("h.") else linear

    chosen = bits_map(LayerScheme(4, 32), HEAD)
    output = write_output(source, tmp_path / "out", name, chosen, module_name=module_name)
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model, module_name)
    assert list(QuantizedCheckpoint(output.folder).schemes) == list(output.layers)
