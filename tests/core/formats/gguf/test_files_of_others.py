"""Tests with GGUF files of llama.cpp and auto-round, whose values are compared with gguf-py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from core.formats.gguf.reader import GgufCheckpoint
from core.model.weights import TensorStore
from tests.core.formats.gguf import families, gguf_files
from tests.core.formats.gguf.llama import interpreter

QUANTIZE = Path(__file__).with_name("llama_quantize.py")
WIDE: dict[str, Any] = gguf_files.ROOMY | {"hidden_size": 256, "intermediate_size": 512}
KINDS = {
    "Q4_0": {"q4_0"}, "Q4_1": {"q4_1"}, "Q5_0": {"q5_0"}, "Q5_1": {"q5_1"}, "Q8_0": {"q8_0"}, "Q2_K": {"q2_k", "q3_k"},
    "Q3_K_M": {"q3_k", "q4_k", "q5_k"}, "Q4_K_M": {"q4_k", "q6_k"}, "Q5_K_S": {"q5_k"}, "Q6_K": {"q6_k"},
    "IQ4_NL": {"iq4_nl"}, "IQ4_XS": {"iq4_xs"},
}  # fmt: skip
MORE = ["IQ3_S", "TQ1_0", "TQ2_0"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


def model(**changes: Any) -> Any:
    torch.manual_seed(4)
    made = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**(WIDE | changes)), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).bfloat16().float())
    return made


def check_values(path: Path, original: dict[str, torch.Tensor], allowed: float) -> GgufCheckpoint:
    """Compare every value with gguf-py bit by bit, and approximately with the original."""
    found = GgufCheckpoint(path)
    theirs = {item.name: gguf.dequantize(item.data, item.tensor_type) for item in gguf.GGUFReader(path).tensors}
    for name, place in found.model.mapped.items():
        stem = name.removesuffix(".weight")
        value = found.layer(stem).dequantize() if stem in found.schemes else found.store.get(name).float()
        expected = theirs[place.tensor.name].reshape(place.tensor.shape)
        if ".attn_q." in place.tensor.name or ".attn_k." in place.tensor.name:
            heads = 4 if ".attn_q." in place.tensor.name else 2
            halves = expected.reshape(heads, expected.shape[0] // heads // 2, 2, -1)
            expected = halves.swapaxes(1, 2).reshape(expected.shape)
        assert np.array_equal(value.numpy(), expected), name
        error = (value - original[name].float()).norm() / original[name].float().norm()
        assert error < allowed, (name, error)
    return found


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves")
    return gguf_files.write(folder / "f16.gguf", "llama", model(), kind=gguf.GGMLQuantizationType.F16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_what_llama_cpp_quantized(kind: str, halves: Path, tmp_path: Path) -> None:
    target = tmp_path / "q.gguf"
    command = [interpreter(), str(QUANTIZE), str(halves), str(target), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    # Three levels, as the TQ types have them, are far from weights that were not trained for them.
    found = check_values(target, model().state_dict(), 0.9 if kind.startswith("TQ") else 0.5)
    blocks = {scheme.type for name, scheme in found.schemes.items() if name != "lm_head"}
    # The types that are not ours are floats here; beside them llama.cpp keeps some tensors in ones that are.
    assert blocks == KINDS[kind] if kind in KINDS else len(found.schemes) < 3


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("scheme", "kinds"), [("Q4_0", {"q4_0"}), ("Q4_K_M", {"q4_k", "q6_k"}), ("Q2_K_S", {"q2_k"})])
def test_what_auto_round_quantized(
    scheme: str, kinds: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto_round = pytest.importorskip("auto_round")
    llama_cpp_conversion = pytest.importorskip("auto_round.export.export_to_gguf.llama_cpp_conversion")
    pytest.importorskip("sentencepiece", reason="auto-round's export to GGUF needs sentencepiece")
    made = model(vocab_size=320, tie_word_embeddings=True)
    folder = families.save(made, tmp_path / "source")
    # It looks its tokenizers up in a list of known ones: that of GPT-2 cuts text as this one does.
    llama_cpp_conversion.get_conversion(folder)
    monkeypatch.setattr(sys.modules["conversion.base"].TextModel, "get_vocab_base_pre", lambda self, known: "gpt-2")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tuner = auto_round.AutoRound(loaded, tokenizer, scheme=f"GGUF:{scheme}", iters=0, disable_opt_rtn=True)
    tuner.quantize_and_save(str(tmp_path / "out"), format=f"gguf:{scheme.lower()}")
    (path,) = (tmp_path / "out").rglob("*.gguf")
    source = TensorStore(folder)
    found = check_values(path, {name: source.get(name) for name in source.table}, 0.5)
    assert {scheme.type for scheme in found.schemes.values()} == kinds
