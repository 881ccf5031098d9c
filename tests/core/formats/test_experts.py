"""Experts in packed outputs: separate tensors under the names of a bits map, and readable again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.control import never
from core.errors import VerificationFailed
from core.formats.dense_store import DenseStore
from core.formats.reader import QuantizedCheckpoint
from core.model.tree import build_tree
from core.model.weights import TensorStore, read_bias, read_linear
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, save_source, write_output

HIDDEN, INNER, EXPERTS = 64, 96, 3
SCHEME = LayerScheme(4, 32, True)
EXPERT = "model.layers.1.mlp.experts.2"
KEPT: Mapping[str, Mapping[str, Any]] = {f"{EXPERT}.up_proj": {"bits": 16}}


def source(folder: Path, layout: str) -> Path:
    """Write a mixture with two blocks; `layout` is that of gpt-oss, of Granite or of Mixtral."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    kind = {"fused": "gpt_oss", "granite": "granitemoe", "single": "mixtral"}[layout]
    tensors = {"model.embed_tokens.weight": random(128, HIDDEN), "lm_head.weight": random(128, HIDDEN)}
    for block in range(2):
        mlp = f"model.layers.{block}.mlp"
        tensors[f"model.layers.{block}.self_attn.q_proj.weight"] = random(HIDDEN, HIDDEN)
        tensors[f"{mlp}.gate.weight"] = random(EXPERTS, HIDDEN)
        if layout == "fused":
            tensors[f"{mlp}.experts.down_proj"] = random(EXPERTS, INNER, HIDDEN)
            tensors[f"{mlp}.experts.down_proj_bias"] = random(EXPERTS, HIDDEN)
            tensors[f"{mlp}.experts.gate_up_proj"] = random(EXPERTS, HIDDEN, 2 * INNER)
            tensors[f"{mlp}.experts.gate_up_proj_bias"] = random(EXPERTS, 2 * INNER)
        elif layout == "granite":
            tensors[f"{mlp}.input_linear.weight"] = random(EXPERTS, 2 * INNER, HIDDEN)
            tensors[f"{mlp}.output_linear.weight"] = random(EXPERTS, HIDDEN, INNER)
        else:
            for expert in range(EXPERTS):
                tensors |= {f"{mlp}.experts.{expert}.{name}.weight": random(INNER, HIDDEN) for name in ("w1", "w3")}
                tensors[f"{mlp}.experts.{expert}.w2.weight"] = random(HIDDEN, INNER)
    config = {
        "architectures": ["MixtralForCausalLM"], "model_type": kind, "vocab_size": 128, "hidden_size": HIDDEN,
        "num_hidden_layers": 2, "num_local_experts": EXPERTS, "tie_word_embeddings": False,
    }  # fmt: skip
    return save_source(folder, tensors, config)


def written(tmp_path: Path, layout: str, layers: Mapping[str, Mapping[str, Any]] = KEPT) -> tuple[Path, Output]:
    made = source(tmp_path / "source", layout)
    return made, write_output(made, tmp_path / "out", "auto_round", bits_map(SCHEME, layers))


@pytest.mark.parametrize("layout", ["fused", "granite", "single"])
def test_all_experts_are_separate_tensors(tmp_path: Path, layout: str) -> None:
    _, output = written(tmp_path, layout)
    names = {name for name in load_file(output.folder / "model.safetensors") if ".experts." in name}
    stems = {f"model.layers.{block}.mlp.experts.{expert}" for block in range(2) for expert in range(EXPERTS)}
    expected = {
        f"{stem}.{projection}.{part}"
        for stem in stems
        for projection in ("gate_proj", "up_proj", "down_proj")
        for part in (("qweight", "qzeros", "scales") if (stem, projection) != (EXPERT, "up_proj") else ("weight",))
    }
    if layout == "fused":
        expected |= {
            f"{stem}.{projection}.bias" for stem in stems for projection in ("gate_proj", "up_proj", "down_proj")
        }
    assert names == expected


def test_gate_and_up_of_gpt_oss_are_not_mixed(tmp_path: Path) -> None:
    made, output = written(tmp_path, "fused")
    before, after = (load_file(folder / "model.safetensors") for folder in (made, output.folder))
    fused = before["model.layers.1.mlp.experts.gate_up_proj"][2]
    assert torch.equal(after[f"{EXPERT}.up_proj.weight"], fused[:, 1::2].T)
    bias = before["model.layers.1.mlp.experts.gate_up_proj_bias"][2]
    assert torch.equal(after[f"{EXPERT}.gate_proj.bias"], bias[::2])
    assert torch.equal(after[f"{EXPERT}.up_proj.bias"], bias[1::2])


@pytest.mark.parametrize("layout", ["fused", "granite", "single"])
def test_the_output_has_the_layers_of_the_source(tmp_path: Path, layout: str) -> None:
    made, output = written(tmp_path, layout)
    checkpoint, tree = QuantizedCheckpoint(output.folder), open_tree(made)
    assert set(checkpoint.schemes) == set(output.layers)
    store, original = DenseStore(checkpoint), TensorStore(made)
    again = build_tree(tree.config, store.table)
    assert [linear.name for linear in again.linears] == [linear.name for linear in tree.linears]
    for before, after in zip(tree.linears, again.linears, strict=True):
        layer = output.layers.get(before.name)
        expected = read_linear(original, tree, before).float() if layer is None else layer.dequantize()
        assert torch.equal(read_linear(store, again, after).float(), expected), before.name
        bias = read_bias(original, tree, before)
        found = read_bias(store, again, after)
        assert (bias is None) == (found is None)
        assert bias is None or found is None or torch.equal(bias, found)


@pytest.mark.parametrize("layout", ["fused", "granite", "single"])
def test_if_no_expert_is_quantized_only_auto_round_has_separate_tensors(tmp_path: Path, layout: str) -> None:
    made = source(tmp_path / "source", layout)
    experts = {linear.name: {"bits": 16} for linear in open_tree(made).linears if ".experts." in linear.name}
    separate = write_output(made, tmp_path / "separate", "auto_round", bits_map(SCHEME, experts))
    assert {f"{name}.weight" for name in experts} <= set(separate.plan.experts)
    output = write_output(made, tmp_path / "out", "auto_gptq", bits_map(SCHEME, experts))
    assert output.plan.experts == {}
    assert {name for name in output.plan.copied if ".experts." in name or "_linear" in name} == {
        name for name in load_file(made / "model.safetensors") if ".experts." in name or "_linear" in name
    }


def test_a_changed_expert_in_16_bits_is_found(tmp_path: Path) -> None:
    made, output = written(tmp_path, "fused")
    checkpoint = output.plan.open(output.folder)
    output.plan.check_rest(checkpoint, TensorStore(made), never)
    info = checkpoint.tensors[f"{EXPERT}.up_proj.weight"]
    with (output.folder / "model.safetensors").open("r+b") as stream:
        stream.seek(info.start)
        stream.write(b"\x00\x3f")
    with pytest.raises(VerificationFailed, match=r"experts\.2\.up_proj"):
        output.plan.check_rest(checkpoint, TensorStore(made), never)


def test_packed_experts_of_old_mixtrals_get_the_names_of_a_bits_map(tmp_path: Path) -> None:
    _, output = written(tmp_path, "single", {})
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    tensors = load_file(output.folder / "model.safetensors")
    renamed = {
        ".".join(names.get(part, part) if ".experts." in name else part for part in name.split(".")): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, output.folder / "model.safetensors")
    checkpoint = QuantizedCheckpoint(output.folder)
    assert set(checkpoint.schemes) == set(output.layers)
    assert checkpoint.stored_name(f"{EXPERT}.up_proj") == f"{EXPERT}.w3"
    assert torch.equal(checkpoint.layer(f"{EXPERT}.up_proj").ints, output.layers[f"{EXPERT}.up_proj"].ints)
    assert f"{EXPERT}.w3.weight" in checkpoint.dense_table()
