"""Checkpoints of auto-round 0.16.1 in all packed formats: the weights equal those of its own layers.

Quantized heads are not tested: auto-round 0.16.1 lists them in its config but stores them unquantized.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.matrix import combinations

pytest.importorskip("auto_round")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def eight_asymmetric_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable auto-round's own check, which rejects schemes without a vLLM kernel."""
    monkeypatch.setenv("AR_ALLOW_W8_ASYM", "1")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random model in BF16 with dimensions that are multiples of 64 and 96, and a word-level tokenizer."""
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, attention_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(11)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("llama")
    model.to(torch.bfloat16).save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    return folder


def write(llama: Path, target: Path, name: str, layers: dict[str, Any] | None = None, **scheme: Any) -> Path:
    """Return the output folder of auto-round without tuning."""
    from auto_round import AutoRound

    AutoRound(
        str(llama), iters=0, disable_opt_rtn=True, disable_model_free=True, layer_config=layers, device_map="cpu",
        **scheme,
    ).quantize_and_save(str(target), format=name)  # fmt: skip
    return next(target.rglob("config.json")).parent


def peers_weight(checkpoint: QuantizedCheckpoint, tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return the float16 weight [out, in] that auto-round's own code computes from the tensors of a layer."""
    scheme = checkpoint.schemes[name]
    outputs, inputs = checkpoint.shape(name)
    parts = {part: tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")}
    parts["scales"] = parts["scales"].half()
    packing = checkpoint.settings.packing
    if packing.awq:
        from auto_round.export.export_to_awq.utils import dequantize_gemm

        return dequantize_gemm(*parts.values(), scheme.bits, scheme.group_of(inputs)).T
    if packing.zero_bias:
        from auto_round_extension.torch.qlinear_torch_zp import QuantLinear
    else:
        from auto_round_extension.torch.qlinear_torch import QuantLinear
    module = QuantLinear(scheme.bits, scheme.group_size, inputs, outputs, bias=False)
    module.load_state_dict(parts)
    with torch.no_grad():
        return module(torch.eye(inputs, dtype=torch.float16)).T


def assert_same_weights(folder: Path, llama: Path, expected: dict[str, LayerScheme]) -> None:
    checkpoint = QuantizedCheckpoint(folder)
    assert checkpoint.schemes == expected
    files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    tensors = {name: tensor for file in files for name, tensor in file.items()}
    originals = load_file(llama / "model.safetensors")
    for name in expected:
        layer = checkpoint.layer(name)
        weight = layer.dequantize()
        assert torch.equal(weight.half(), peers_weight(checkpoint, tensors, name)), name
        # And it is the weight that went in, half a step off; a whole one where the full range clips, and two of 8 bits,
        # since it computes in the model's bfloat16, which has as many.
        columns = torch.arange(layer.in_features) // layer.scheme.group_of(layer.in_features)
        step = layer.scales.float().abs()[:, columns]
        assert float(((weight - originals[f"{name}.weight"].float()).abs() / step).max()) < (
            2 if layer.scheme.bits == 8 else 1.01
        ), name


def names(llama: Path) -> list[str]:
    return [
        name.removesuffix(".weight")
        for name in load_file(llama / "model.safetensors")
        if ".layers." in name and name.endswith("_proj.weight")
    ]


@pytest.mark.parametrize(("bits", "sym"), combinations(product((2, 3, 4, 8), (True, False)), [(3, False)]))
def test_auto_round(llama: Path, tmp_path: Path, bits: int, sym: bool) -> None:
    folder = write(llama, tmp_path, "auto_round", bits=bits, group_size=32, sym=sym)
    assert_same_weights(folder, llama, dict.fromkeys(names(llama), LayerScheme(bits, 32, sym)))


@pytest.mark.parametrize(("bits", "sym"), combinations(product((2, 3, 4, 8), (True, False)), [(4, True)]))
def test_auto_gptq(llama: Path, tmp_path: Path, bits: int, sym: bool) -> None:
    folder = write(llama, tmp_path, "auto_gptq", bits=bits, group_size=32, sym=sym)
    assert_same_weights(folder, llama, dict.fromkeys(names(llama), LayerScheme(bits, 32, sym)))


@pytest.mark.parametrize(("sym", "group_size"), combinations(product((True, False), (32, -1)), [(False, 32)]))
def test_auto_awq(llama: Path, tmp_path: Path, sym: bool, group_size: int) -> None:
    left = "model.layers.1.mlp.down_proj"
    folder = write(llama, tmp_path, "auto_awq", {left: {"bits": 16}}, bits=4, group_size=group_size, sym=sym)
    quantized = [name for name in names(llama) if name != left]
    assert_same_weights(folder, llama, dict.fromkeys(quantized, LayerScheme(4, group_size, sym)))


@pytest.mark.parametrize("sym", combinations([True, False], [False]))
def test_gptqmodels_version(llama: Path, tmp_path: Path, sym: bool) -> None:
    folder = write(llama, tmp_path, "auto_round:gptqmodel", bits=4, group_size=-1, sym=sym)
    assert_same_weights(folder, llama, dict.fromkeys(names(llama), LayerScheme(4, -1, sym)))


@pytest.mark.parametrize("name", combinations(["auto_round", "auto_gptq"], ["auto_round"]))
def test_mixed(llama: Path, tmp_path: Path, name: str) -> None:
    layers = {
        "k_proj": {"bits": 8},
        "model.layers.0.mlp.down_proj": {"bits": 16},
        "model.layers.1.mlp.up_proj": {"bits": 2, "group_size": 64},
    }
    folder = write(llama, tmp_path, name, layers, bits=4, group_size=32, sym=True)
    expected = {each: LayerScheme(8 if each.endswith("k_proj") else 4, 32, True) for each in names(llama)}
    del expected["model.layers.0.mlp.down_proj"]
    expected["model.layers.1.mlp.up_proj"] = LayerScheme(2, 64, True)
    assert_same_weights(folder, llama, expected)
