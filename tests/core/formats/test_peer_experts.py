"""Experts of outputs read by auto-round: packed and unpacked ones have the weights that were written.

auto-round changes how transformers loads models in its process, so a checkpoint is read in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.model.skeleton import build_skeleton
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import bits_map, open_tree, write_output
from tests.core.tiny_architectures import make_model

pytest.importorskip("auto_round")

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

READER = Path(__file__).parents[2] / "benchmarks" / "one_reader.py"
TOKENS = torch.arange(2, 42).reshape(2, 20)


@pytest.mark.parametrize(
    ("model", "name", "same_logits"),
    [
        ("granitemoe", "auto_gptq", True),
        ("mixtral", "auto_round", True),
        ("gpt_oss", "auto_round", False),  # auto-round confuses gate and up when it computes, not when it loads
    ],
)
def test_auto_round_reads_the_experts(tmp_path: Path, model: str, name: str, same_logits: bool) -> None:
    source, folder, found = tmp_path / "source", tmp_path / "out", tmp_path / "found"
    make_model(model, source)
    tree = open_tree(source)
    skeleton = build_skeleton(tree, TensorStore(source))
    experts = [linear.name for linear in tree.linears if ".experts." in linear.name]
    kept = {linear: {"bits": 16} for linear in [*experts[:3], experts[-1]]}
    mixed = bits_map(LayerScheme(4, 32, True), {**kept, experts[-2]: {"bits": 8}})
    output = write_output(source, folder, name, mixed, module_name=skeleton.module_name)
    command = [sys.executable, str(READER), "transformers", json.dumps(TOKENS.tolist()), str(folder), str(found), ""]
    backend = ["auto_round:torch_zp"] if name == "auto_gptq" else [""]
    subprocess.run([*command[:-1], *backend], check=True, capture_output=True, timeout=300)
    assert found.exists(), Path(f"{found}.txt").read_text(encoding="utf-8")
    read = load_file(found)
    logits = read.pop("logits")
    assert set(read) == {f"{skeleton.module_name(layer)}.weight" for layer in output.layers}
    skeleton.fill("", torch.float32, torch.device("cpu"))
    parameters = dict(skeleton.model.named_parameters())
    linears = {linear.name: linear for linear in tree.linears}
    with torch.no_grad():
        for layer in output.layers.values():
            weight = layer.dequantize()
            assert torch.equal(read[f"{skeleton.module_name(layer.name)}.weight"], weight.half()), layer.name
            for place in skeleton.slices(linears[layer.name]):
                place.view(parameters[place.parameter]).copy_(weight[place.of])
        expected = skeleton.model(TOKENS).logits
    if same_logits:
        assert float((logits - expected).norm() / expected.norm()) < 5e-2  # float16; a wrong expert gives 0.5
