"""Our outputs as auto-round reads them: its layers must dequantize to our weights, to the bit.

Its torch layers work in float16, so ours are rounded to that; both products are exact before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.bitsmap import Rule
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, write_output

pytest.importorskip("auto_round")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MIXED: Mapping[str, Mapping[str, Any]] = {
    "model.layers.0.self_attn.q_proj": {"bits": 8},
    "model.layers.0.mlp.up_proj": {"bits": 2, "group_size": 64},
    "model.layers.1.mlp.down_proj": {"bits": 3, "group_size": -1},
    "model.layers.1.self_attn.o_proj": {"bits": 16},
    "model.layers.1.mlp.gate_proj": {"bits": 16},
    "lm_head": {"bits": 4},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, attention_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    return save(transformers.LlamaForCausalLM(config), tmp_path_factory.mktemp("llama"))


def save(model: Any, folder: Path) -> Path:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def load_by_peer(folder: Path, backend: str | None) -> Any:
    """The whole model through transformers and auto-round, in float16 as its torch layers need."""
    settings = transformers.AutoRoundConfig(backend=backend) if backend else transformers.AutoRoundConfig()
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.float16, device_map="cpu"
    )


def weight_of(module: torch.nn.Module, in_features: int) -> torch.Tensor:
    """The float16 weight [out, in] that a layer multiplies with: its answer to the unit matrix, less the bias."""
    bias, module.bias = module.bias, None
    with torch.no_grad():
        weight = module(torch.eye(in_features, dtype=torch.float16)).T
    module.bias = bias
    return weight


def assert_same_weights(output: Output, model: Any, module_name: Callable[[str], str] = str) -> None:
    for name, layer in output.layers.items():
        module = model.get_submodule(module_name(name))
        assert hasattr(module, "qweight"), f"{name} was not taken for quantized: {type(module)}"
        assert torch.equal(weight_of(module, layer.in_features), layer.dequantize().half()), name


def assert_same_plain_tensors(source: Path, output: Output, model: Any) -> None:
    state = model.state_dict()
    for name in output.plan.copied:
        if name in state and not name.endswith("bias"):
            expected = load_file(source / "model.safetensors")[name]
            assert torch.equal(state[name], expected.to(state[name].dtype)), name


def assert_answers(model: Any) -> None:
    with torch.no_grad():
        logits = model(torch.arange(20).reshape(2, 10)).logits
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric(llama: Path, tmp_path: Path, bits: int, group_size: int, name: str) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(bits, group_size, True)))
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_answers(model)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_asymmetric(llama: Path, tmp_path: Path, bits: int) -> None:
    output = write_output(llama, tmp_path / "out", "auto_round", bits_map(LayerScheme(bits, 32, False)))
    model = load_by_peer(output.folder, "auto_round:torch")
    assert_same_weights(output, model)
    assert_answers(model)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_asymmetric_gptq(llama: Path, tmp_path: Path, bits: int) -> None:
    output = write_output(llama, tmp_path / "out", "auto_gptq", bits_map(LayerScheme(bits, 32, False)))
    assert min(int(layer.zeros.min()) for layer in output.layers.values()) >= 1
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    for name, layer in output.layers.items():
        module = QuantLinear(bits, 32, layer.in_features, layer.out_features, bias=False)
        module.load_state_dict(parts_on_disk(output, name, ("qweight", "qzeros", "scales")))
        assert torch.equal(weight_of(module, layer.in_features), layer.dequantize().half()), name


def parts_on_disk(output: Output, name: str, parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    tensors = load_file(output.folder / "model.safetensors")
    return {part: tensors[f"{name}.{part}"] for part in parts}


@pytest.mark.parametrize("group_size", [32, -1])
def test_awq(llama: Path, tmp_path: Path, group_size: int) -> None:
    output = write_output(llama, tmp_path / "out", "auto_round", bits_map(LayerScheme(4, group_size, False)))
    assert output.plan.config()["packing_format"] == "auto_round:auto_awq"
    from auto_round.export.export_to_awq.utils import dequantize_gemm

    for name, layer in output.layers.items():
        parts = parts_on_disk(output, name, ("qweight", "qzeros", "scales"))
        size = layer.scheme.group_of(layer.in_features)
        weight = dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], 4, size)
        assert torch.equal(weight.T, layer.dequantize().half()), name


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_symmetric_mixed(llama: Path, tmp_path: Path, name: str) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(4, 32, True), MIXED))
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_answers(model)


def test_everything_mixed(llama: Path, tmp_path: Path) -> None:
    chosen = bits_map(LayerScheme(4, 32, False), MIXED, Rule("*.k_proj", sym=True))
    output = write_output(llama, tmp_path / "out", "auto_round", chosen)
    model = load_by_peer(output.folder, "auto_round:torch")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_answers(model)


def test_shards(llama: Path, tmp_path: Path) -> None:
    chosen = bits_map(LayerScheme(4, 32, True))
    output = write_output(llama, tmp_path / "out", "auto_round", chosen, max_shard_bytes=20_000)
    assert (output.folder / "model.safetensors.index.json").is_file()
    assert_same_weights(output, load_by_peer(output.folder, "auto_round:torch_zp"))
