"""Outputs read by auto-round: its layers must dequantize to exactly the same weights.

Its torch layers work in float16, so the expected weights are rounded to float16; both are exact before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.bitsmap import Rule
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, write_output
from tests.matrix import combinations

pytest.importorskip("auto_round")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

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
    folder = save(transformers.LlamaForCausalLM(config), tmp_path_factory.mktemp("llama"))
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    return folder


def save(model: Any, folder: Path, without: str = "") -> Path:
    """Save a random model in BF16; the prefix `without` is removed from the names of its tensors."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix(without): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load_by_peer(folder: Path, backend: str | None) -> Any:
    """Load a model with transformers and auto-round in float16, which its torch layers need."""
    settings = transformers.AutoRoundConfig(backend=backend) if backend else transformers.AutoRoundConfig()
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.float16, device_map="cpu"
    )


def weight_of(module: Any, in_features: int) -> torch.Tensor:
    """Return the float16 weight [out, in] of a layer: its output for the identity matrix, without bias."""
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


def assert_same_answers(
    source: Path, output: Output, model: Any, module_name: Callable[[str], str] = str, tolerance: float = 1e-2
) -> None:
    """Compare the logits of the model with those of the source with the dequantized weights of the output."""
    expected = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokens = torch.arange(60).reshape(3, 20)
    with torch.no_grad():
        for name, layer in output.layers.items():
            weight = expected.get_submodule(module_name(name)).weight
            value = layer.dequantize()
            weight.copy_(value.T if is_conv(expected, module_name(name)) else value)
        ours, theirs = expected(tokens).logits, model(tokens).logits.float()
    assert float((theirs - ours).norm() / ours.norm()) < tolerance


def is_conv(model: Any, name: str) -> bool:
    return isinstance(model.get_submodule(name), transformers.pytorch_utils.Conv1D)


@pytest.mark.parametrize(
    ("bits", "group_size", "name"),
    combinations(
        product((2, 3, 4, 8), (32, -1), ("auto_round", "auto_gptq")),
        [(2, 32, "auto_round"), (3, -1, "auto_gptq"), (4, 32, "auto_gptq"), (8, -1, "auto_round")],
    ),
)
def test_symmetric(llama: Path, tmp_path: Path, bits: int, group_size: int, name: str) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(bits, group_size, True)))
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_same_answers(llama, output, model)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_asymmetric(llama: Path, tmp_path: Path, bits: int) -> None:
    output = write_output(llama, tmp_path / "out", "auto_round", bits_map(LayerScheme(bits, 32, False)))
    model = load_by_peer(output.folder, "auto_round:torch")
    assert_same_weights(output, model)
    assert_same_answers(llama, output, model)


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


@pytest.mark.parametrize(
    ("name", "bits", "sym"),
    combinations(
        product(("auto_round:plain", "auto_round:gptqmodel"), (2, 3, 4, 8), (True, False)),
        [("auto_round:plain", 3, False), ("auto_round:plain", 8, True), ("auto_round:gptqmodel", 4, False)],
    ),
)
def test_packings_that_store_zero_points_as_they_are(
    llama: Path, tmp_path: Path, name: str, bits: int, sym: bool
) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(bits, 32, sym)))
    model = load_by_peer(output.folder, "auto_round:torch")
    assert_same_weights(output, model)
    assert_same_answers(llama, output, model)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("name", ["auto_round:auto_awq", "auto_awq"])
def test_awq(llama: Path, tmp_path: Path, name: str, group_size: int, sym: bool) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(4, group_size, sym)))
    from auto_round.export.export_to_awq.utils import dequantize_gemm

    for name, layer in output.layers.items():
        parts = parts_on_disk(output, name, ("qweight", "qzeros", "scales"))
        size = layer.scheme.group_of(layer.in_features)
        weight = dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], 4, size)
        assert torch.equal(weight.T, layer.dequantize().half()), name


def test_rules_by_the_names_that_vllm_gives_joined_layers_are_none_to_the_peer(llama: Path, tmp_path: Path) -> None:
    rules = (
        Rule("*.0.self_attn.[qkv]_proj", bits=8),
        Rule("*.1.mlp.gate_proj", bits=16),
        Rule("*.1.mlp.up_proj", bits=16),
    )
    chosen = bits_map(LayerScheme(4, 32), {"lm_head": {"bits": 4}}, *rules)
    output = write_output(llama, tmp_path / "out", "auto_gptq", chosen)
    fused = [key for key in output.plan.config()["dynamic"] if "qkv_proj" in key or "gate_up_proj" in key]
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert len(fused) == 2
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_symmetric_mixed(llama: Path, tmp_path: Path, name: str) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(4, 32, True), MIXED))
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_same_answers(llama, output, model)


def test_everything_mixed(llama: Path, tmp_path: Path) -> None:
    chosen = bits_map(LayerScheme(4, 32, False), MIXED, Rule("*.k_proj", sym=True))
    output = write_output(llama, tmp_path / "out", "auto_round", chosen)
    model = load_by_peer(output.folder, "auto_round:torch")
    assert_same_weights(output, model)
    assert_same_plain_tensors(llama, output, model)
    assert_same_answers(llama, output, model)


def test_shards(llama: Path, tmp_path: Path) -> None:
    chosen = bits_map(LayerScheme(4, 32, True))
    output = write_output(llama, tmp_path / "out", "auto_round", chosen, max_shard_bytes=20_000)
    assert (output.folder / "model.safetensors.index.json").is_file()
    assert_same_weights(output, load_by_peer(output.folder, "auto_round:torch_zp"))


GPT2 = ("transformer.", "h.")
OPT = ("model.", "decoder.")


def family(which: tuple[str, str]) -> Any:
    if which == GPT2:
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=64)
        )
    return transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=128,
            hidden_size=64,
            ffn_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=64,
        )
    )


@pytest.mark.parametrize(
    ("which", "prefixed", "name"),
    combinations(
        product((GPT2, OPT), (True, False), ("auto_round", "auto_gptq")),
        [(GPT2, True, "auto_round"), (GPT2, False, "auto_gptq"), (OPT, True, "auto_gptq"), (OPT, False, "auto_round")],
    ),
)
def test_names_and_transposed_weights(tmp_path: Path, which: tuple[str, str], prefixed: bool, name: str) -> None:
    """Checkpoints with and without the prefix of the base model; GPT-2 stores its weights as [in, out]."""
    outer, inner = which
    source = save(family(which), tmp_path / "source", "" if prefixed else outer)

    def module_name(linear: str) -> str:
        return f"{outer}{linear}" if linear.startswith(inner) else linear

    names = [linear.name for linear in open_tree(source).linears]
    chosen = bits_map(LayerScheme(4, 32, True), {names[0]: {"bits": 16}, names[-1]: {"bits": 8}})
    output = write_output(source, tmp_path / "out", name, chosen, module_name=module_name)
    model = load_by_peer(output.folder, "auto_round:torch_zp")
    assert_same_weights(output, model, module_name)
    assert not hasattr(model.get_submodule(module_name(names[0])), "qweight")
    assert_same_answers(source, output, model, module_name)
    assert list(QuantizedCheckpoint(output.folder).schemes) == list(output.layers)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("auto_round", LayerScheme(4, 32, False)),
        ("auto_round", LayerScheme(4, -1, False)),
        ("auto_round", LayerScheme(8, 32, False)),
        ("auto_round", LayerScheme(2, 32, False)),
        ("auto_round", LayerScheme(2, -1, True)),
        ("auto_gptq", LayerScheme(2, 32, False)),
        ("auto_gptq", LayerScheme(4, 32, False)),
        ("auto_gptq", LayerScheme(8, -1, False)),
        ("auto_awq", LayerScheme(4, 32, False)),
        ("auto_awq", LayerScheme(4, -1, True)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.label(),
)
def test_whole_model_with_its_kernels(llama: Path, tmp_path: Path, name: str, scheme: LayerScheme) -> None:
    """Layers that the torch kernels cannot load on a CPU (AWQ, asymmetric GPTQ), and auto-round's default kernel."""
    pytest.importorskip("auto_round_kernel")
    head = {} if name == "auto_awq" else {"lm_head": {"bits": scheme.bits}}
    chosen = bits_map(scheme, {"model.layers.0.mlp.up_proj": {"bits": 16}, **head})
    output = write_output(llama, tmp_path / "out", name, chosen)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        output.folder, quantization_config=transformers.AutoRoundConfig(), dtype=torch.float32, device_map="cpu"
    )
    packed = {name for name, module in model.named_modules() if hasattr(module, "qweight")}
    assert packed == set(output.layers)
    assert_same_answers(llama, output, model, tolerance=1e-4)
