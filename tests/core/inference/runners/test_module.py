"""Tests of the runner for transformers models: logits with a cache equal those of one pass, also after truncation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.errors import BadInput, Cancelled, OutOfMemory, UnsupportedModel
from core.inference.runners import module
from core.inference.runners.cache import GrowingLayer, can_cut, make_cache
from core.inference.runners.module import ModuleRunner

SMALL: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
WINDOW = {"sliding_window": 24}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": WINDOW,
    "gemma2": {
        **WINDOW,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma3_text": {**WINDOW, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "qwen3": {},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 512},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "falcon_h1": {
        "mamba_d_ssm": 128, "mamba_d_state": 16, "mamba_d_head": 16, "mamba_n_heads": 8, "mamba_chunk_size": 16,
    },
    "deepseek_v32": {
        **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
        **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 16),
        **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
        "n_routed_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4, "moe_intermediate_size": 32,
        "index_topk": 32, "index_n_heads": 16,
    },
}  # fmt: skip
RECURRENT = ("lfm2", "qwen3_5_text", "falcon_h1")
TEXT = [int(value) for value in torch.randint(1, 288, (150,), generator=torch.Generator().manual_seed(5))]


def build(family: str) -> Any:
    """Return a random model of a family, in float32."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SMALL, **MODELS[family]})
    attention = "eager" if family == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the logits of one pass without a cache, [tokens, vocabulary]."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def runner_of(model: Any, monkeypatch: pytest.MonkeyPatch, piece: int = 16) -> ModuleRunner:
    monkeypatch.setattr(module, "PIECE", {"cpu": piece})
    return ModuleRunner(model, 400, "cpu")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


def test_pieces_and_single_tokens_give_the_logits_of_one_pass(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(model, TEXT)
    runner = runner_of(model, monkeypatch)
    close(runner.extend(TEXT[:100]), expected[99])
    for position in range(100, 110):
        close(runner.extend([TEXT[position]]), expected[position])
    close(runner.extend(TEXT[110:]), expected[-1])
    assert runner.length == len(TEXT)


def test_truncated_tokens_do_not_affect_the_logits(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(model, monkeypatch)
    runner.extend(TEXT)
    runner.truncate(90)  # before the sliding window, for the models that have one
    assert runner.length == 90
    other = [*TEXT[:90], 7, 8, 9]
    close(runner.extend(other[90:]), whole(model, other)[-1])
    runner.truncate(0)
    close(runner.extend(TEXT[:5]), whole(model, TEXT[:5])[-1])


def test_truncating_beyond_the_end_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(model, monkeypatch)
    runner.extend(TEXT[:20])
    runner.truncate(50)
    assert runner.length == 20
    close(runner.extend(TEXT[20:30]), whole(model, TEXT[:30])[-1])


def test_logits_of_a_text_leave_an_empty_cache(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(model, monkeypatch)
    runner.extend([1, 2, 3])
    close(runner.logits(TEXT), whole(model, TEXT))
    assert runner.length == 0
    close(runner.extend(TEXT[:5]), whole(model, TEXT[:5])[-1])


def test_a_stop_between_two_pieces_keeps_the_processed_tokens(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(model, monkeypatch)
    calls = []

    def after_two() -> bool:
        calls.append(True)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        runner.extend(TEXT, after_two)
    assert runner.length == 32
    close(runner.extend(TEXT[32:40]), whole(model, TEXT[:40])[-1])


def test_a_failure_within_a_piece_keeps_the_pieces_before(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(model, monkeypatch)
    runner.extend(TEXT[:16])
    last = list(model.modules())[-1]

    def fail(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    hook = last.register_forward_pre_hook(fail)
    with pytest.raises(OutOfMemory, match="Processing the prompt"):
        runner.extend(TEXT[16:32])
    hook.remove()
    assert runner.length == 16
    close(runner.extend(TEXT[16:32]), whole(model, TEXT[:32])[-1])


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "no text to process"), ([288], "token id 288"), ([-1], "token id -1"), ([1] * 401, "context of 400")],
)
def test_invalid_inputs_are_refused(ids: list[int], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(build("llama"), monkeypatch)
    with pytest.raises(BadInput, match=message):
        runner.extend(ids)
    assert runner.length == 0


def test_memory_counts_weights_once_and_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    runner = runner_of(model, monkeypatch)
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    before = runner.memory_bytes
    assert parameters <= before < parameters + 4096  # the rotary table is included
    runner.extend(TEXT[:3])
    assert runner.memory_bytes > before


def test_the_cache_grows_without_copying_each_time() -> None:
    layer = GrowingLayer()
    keys = torch.randn(1, 2, 1, 8)
    layer.update(keys, keys)
    assert layer.keys is not None
    address = layer.keys.data_ptr()
    for _ in range(100):
        layer.update(keys, keys)
    assert layer.keys.data_ptr() == address
    assert layer.get_seq_length() == 101
    assert layer.values is not None
    assert torch.equal(layer.values[:, :, 50:51], keys)


@pytest.mark.parametrize(("family", "cuts"), [("mistral", True), ("lfm2", False)])
def test_only_caches_without_recurrent_states_can_be_truncated(family: str, cuts: bool) -> None:
    assert can_cut(make_cache(build(family))) is cuts


@pytest.mark.parametrize("family", RECURRENT)
def test_a_replaced_end_of_a_prompt_continues_from_a_snapshot(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to the same prompt again, and the prompt of a next turn without the text before the first answer."""
    model = build(family)
    runner = runner_of(model, monkeypatch)
    runner.extend(TEXT[:60])
    for token in (7, 8, 9):
        runner.extend([token])
    counted = count_tokens(runner, monkeypatch)
    for length in (59, 56, 52):
        runner.truncate(length)
        other = [*TEXT[:length], 11, 12]
        close(runner.extend([11, 12]), whole(model, other)[-1])
    assert sum(counted) < 20  # and not 3 times the prompt
    runner.truncate(20)
    close(runner.extend([3]), whole(model, [*TEXT[:20], 3])[-1])


def count_tokens(runner: ModuleRunner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of tokens of every call of the model."""
    counted: list[int] = []
    forward = runner._forward

    def count(ids: list[int], keep: int) -> torch.Tensor:
        counted.append(len(ids))
        return forward(ids, keep)

    monkeypatch.setattr(runner, "_forward", count)
    return counted


def test_few_snapshots_are_kept_and_counted_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(build("lfm2"), monkeypatch)
    sizes = []
    for start in range(0, 100, 10):
        runner.extend(TEXT[start : start + 10])
        assert len(runner._snapshots) <= module._SNAPSHOTS
        sizes.append(runner.memory_bytes)
    assert sizes[0] < sizes[1]
    assert sizes[-1] == sizes[-2]


def test_a_text_beyond_the_short_context_of_longrope_has_other_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    }  # fmt: skip
    config = AutoConfig.for_model("phi3", **{**SMALL, "rope_parameters": rope, "pad_token_id": 0})
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    runner = runner_of(model, monkeypatch)
    close(runner.logits(TEXT), whole(model, TEXT))
    for start, end in ((0, 60), (60, 64), (64, 65), (65, 66), (66, 100)):
        close(runner.extend(TEXT[start:end]), whole(model, TEXT[:end])[-1])
    runner.truncate(50)
    close(runner.extend(TEXT[50:52]), whole(model, TEXT[:52])[-1])


def test_a_closed_runner_has_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(build("llama"), monkeypatch)
    runner.close()
    assert runner.model is None


def test_an_error_of_the_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN raises this error for shapes without a kernel."""
    runner = ModuleRunner(build("llama"), 100, "cpu")

    def fail(**given: Any) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(runner, "model", fail, raising=False)
    monkeypatch.setattr(runner, "_check", lambda ids: None)
    with pytest.raises(UnsupportedModel, match="could not create a primitive"):
        runner.extend(TEXT[:3])
    assert runner.length == 0
