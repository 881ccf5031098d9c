"""Blocks run by themselves are held against the whole model: good models pass, others are told with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.llama import modeling_llama

from core.errors import Cancelled, CorruptFile, UnsupportedModel
from core.files import read_json
from core.model.fingerprint import FingerprintedStore
from core.model.headers import read_folder
from core.model.skeleton import build_skeleton
from core.model.tree import build_tree
from core.model.weights import TensorStore
from core.quant import proof
from core.quant.proof import SourceProof, check_range, difference, prove, two_rows
from tests.core.model.test_block_runner import FAMILIES, saved
from tests.core.tiny_model import save_model

_SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def proof_of(folder: Path, batched: bool = True) -> SourceProof:
    """Return the proof of a model."""
    tree = build_tree(read_json(folder / "config.json"), read_folder(folder))
    assert not tree.refusal
    store = FingerprintedStore(TensorStore(folder, tree.tensors))
    skeleton = build_skeleton(tree, store)
    skeleton.check()
    vocabulary = tree.tensors[f"{tree.embedding}.weight"].shape[0]
    text = torch.randint(3, vocabulary, (3, 64), generator=torch.Generator().manual_seed(1))
    return SourceProof(skeleton, store, two_rows(text, vocabulary), torch.device("cpu"), batched, lambda: None)


def random_model(folder: Path, config: Any) -> Path:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5 * (2 if "embed" in name else 1))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("proof") / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_good_models_pass_whatever_they_are_stored_as(tmp_path: Path, family: str) -> None:
    model = saved(tmp_path, family)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model.to(dtype).save_pretrained(tmp_path)
        proven = proof_of(tmp_path)
        prove(proven)
        assert proven.store.nbytes_read == proven.skeleton.tree.nbytes, "each tensor is read, and once"
        assert all(parameter.is_meta for parameter in proven.skeleton.model.parameters())


def test_rounding_stays_far_below_the_tolerance(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def noted(found: Tensor, expected: Tensor) -> float:
        seen.append(difference(found, expected))
        return seen[-1]

    monkeypatch.setattr(proof, "difference", noted)
    prove(proof_of(tiny))
    assert len(seen) > 10
    assert max(seen) < proof.TOLERANCE / 20


def test_two_rows_differ_behind_the_same_beginning() -> None:
    text = torch.arange(200).reshape(2, 100) % 50
    first, other = two_rows(text, 50)
    assert len(first) == len(other) == 64
    assert torch.equal(first[:8], other[:8])
    assert not torch.equal(first[8:], other[8:]) or torch.equal(text[0], text[1])


@pytest.mark.parametrize("length", [5, 64, 100])
def test_two_rows_of_a_text_that_repeats_differ_too(length: int) -> None:
    first, other = two_rows(torch.full((3, length), 7), 8)
    assert not torch.equal(first, other)
    assert int(other.max()) < 8


def test_differences_are_measured_token_by_token() -> None:
    expected = torch.ones(1, 3, 4)
    expected[0, 0] = 1e4
    found = expected.clone()
    found[0, 2] += 100.0
    assert difference(found, expected) > 10
    assert difference(expected[:, :2], expected) == float("inf")
    assert difference(torch.full((1, 2, 4), torch.nan), torch.ones(1, 2, 4)) == float("inf")


def test_arguments_made_from_the_text_are_computed_for_each_batch(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    config = transformers.Gemma4TextConfig(
        **_SMALL, num_hidden_layers=4, num_key_value_heads=2, head_dim=16, sliding_window=32, layer_types=kinds,
        vocab_size_per_layer_input=96, hidden_size_per_layer_input=16, num_kv_shared_layers=0,
    )  # fmt: skip
    chain = prove(proof_of(random_model(tmp_path, config)))
    assert chain.varies
    assert not any(chain.needs)


def test_blocks_that_use_keys_of_an_earlier_block_need_its_outputs(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 3
    config = transformers.Gemma4TextConfig(
        **_SMALL, num_hidden_layers=6, num_key_value_heads=2, head_dim=16, sliding_window=32, layer_types=kinds,
        vocab_size_per_layer_input=96, hidden_size_per_layer_input=16, num_kv_shared_layers=2,
    )  # fmt: skip
    chain = prove(proof_of(random_model(tmp_path, config)))
    assert {2, 3} <= {key.block for key in chain.needs[5]}


def test_a_model_that_looks_ahead_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = modeling_llama.LlamaDecoderLayer.forward

    def forward(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return honest(self, hidden + hidden.mean(1, keepdim=True), *args, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", forward)
    with pytest.raises(UnsupportedModel, match="not a causal language model: block 0 depends on later tokens"):
        prove(proof_of(tiny))


def test_a_block_that_keeps_a_state_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = modeling_llama.LlamaDecoderLayer.forward
    calls = [0]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return honest(self, *args, **kwargs) * (1 + 0.1 * calls[0])

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", forward)
    with pytest.raises(UnsupportedModel, match=r"block 0 of LlamaForCausalLM .* \(by"):
        prove(proof_of(tiny))


def test_logits_of_one_row_for_all_are_noticed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = proof.logits
    monkeypatch.setattr(
        proof, "logits", lambda chain, hidden, *rest: honest(chain, hidden[:1].expand_as(hidden), *rest)
    )
    with pytest.raises(UnsupportedModel, match="output of its last block"):
        prove(proof_of(tiny))


def test_a_weight_taken_the_wrong_way_round_is_noticed(tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    skeleton = proof_of(tmp_path).skeleton
    square = [linear for linear in skeleton.tree.of_block(1) if linear.in_features == linear.out_features]
    assert square
    for linear in square:
        object.__setattr__(linear, "transposed", not linear.transposed)
    with pytest.raises(UnsupportedModel, match="in another order than its shape suggests"):
        skeleton.check()


def test_code_that_fails_is_told_in_one_sentence(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("rope")

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with pytest.raises(UnsupportedModel, match=r"LlamaForCausalLM cannot be run \(KeyError: 'rope'\)"):
        prove(proof_of(tiny))


def test_memory_that_runs_out_stays_what_it_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with pytest.raises(MemoryError):
        prove(proof_of(tiny))


def test_states_that_are_not_finite_are_told_by_block(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = modeling_llama.LlamaMLP.forward
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda self, x: honest(self, x) * torch.inf)
    with pytest.raises(CorruptFile, match="Block 0 of this model computes values that are not finite"):
        prove(proof_of(tiny))


def test_a_stop_is_heard_at_each_block(tiny: Path) -> None:
    proven = proof_of(tiny)
    asked = [0]

    def step() -> None:
        asked[0] += 1
        if asked[0] == 2:
            raise Cancelled("The run was cancelled.")

    object.__setattr__(proven, "step", step)
    with pytest.raises(Cancelled):
        prove(proven)
    assert all(parameter.is_meta for parameter in proven.skeleton.model.parameters())


def test_weights_beyond_the_range_of_the_products_are_refused(tiny: Path) -> None:
    proven = proof_of(tiny)
    prove(proven)
    name = "model.layers.0.mlp.up_proj.weight"
    check_range(proven.store, [name], torch.float16)
    proven.store.largest[name] = 7e4
    with pytest.raises(UnsupportedModel, match=r"up_proj\.weight contains 7e\+04, .* range of float16"):
        check_range(proven.store, [name], torch.float16)
    check_range(proven.store, [name], torch.bfloat16)
