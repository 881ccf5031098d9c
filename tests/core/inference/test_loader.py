"""Loading originals and quantized folders: the module's weights are the file's."""

from __future__ import annotations

import copy
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.errors import Cancelled, ModelNotFound
from core.formats.side_files import carry_over
from core.inference.loader import load_model
from core.schemes import LayerScheme
from tests.core.formats.tiny import bits_map, open_tree, write_output
from tests.core.model import gguf_files
from tests.core.model.test_chain import saved
from tests.core.tiny_model import save_model


def test_an_original_is_what_transformers_loads(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load_model(str(folder), "cpu", "float32")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(5, 45).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, theirs(ids).logits, atol=1e-5)
    assert loaded.schemes == {}
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "opt"])
def test_a_quantized_model_computes_with_its_dequantized_weights(tmp_path: Path, family: str) -> None:
    source = tmp_path / "source"
    saved(source, family)
    save_model(tmp_path / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((tmp_path / "tokenizer" / name).read_bytes())
    written = write_output(source, tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32)))
    carry_over(source, written.folder)
    loaded = load_model(str(written.folder), "cpu", "float32")

    tensors = load_file(source / "model.safetensors")
    tree = open_tree(source)
    for linear in tree.linears:
        if linear.name in written.layers:
            weight = written.layers[linear.name].dequantize()
            tensors[f"{linear.name}.weight"] = weight.t().contiguous() if linear.transposed else weight
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    state = theirs.state_dict()
    state.update({name: tensors[name] for name in state if name in tensors})
    theirs.load_state_dict(state)
    ids = torch.arange(5, 35).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, theirs(ids).logits, atol=1e-4)
    assert sum(loaded.schemes.values()) == len(written.layers)


@pytest.mark.parametrize("kind", ["F16", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_gguf_file_computes_with_the_numbers_in_it(
    tmp_path: Path, family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    original = gguf_files.build(family)
    path = gguf_files.write(tmp_path / "m.gguf", family, original, kind=gguf.GGMLQuantizationType[kind])
    rounded = copy.deepcopy(original)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if parameter.dim() == 2:
                weight = parameter.T if family == "gpt2" and ".h." in name else parameter
                blocks = gguf.quantize(np.ascontiguousarray(weight.numpy()), gguf.GGMLQuantizationType[kind])
                weight.copy_(torch.tensor(gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])))
    loaded = load_model(str(path), "cpu", "float32")
    ids = torch.arange(5, 35).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, rounded(ids).logits, atol=1e-5)
    assert not list(tmp_path.glob("home/**/*.safetensors"))
    assert set(loaded.schemes) == (set() if kind == "F16" else {kind})
    assert loaded.weight_bytes < path.stat().st_size
    assert loaded.tokenizer.decode(loaded.tokenizer("there 12")["input_ids"]) == "there 12"


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "out").mkdir()
    gguf_files.write(tmp_path / "out" / "m.gguf", "qwen2", gguf_files.build("qwen2"))
    assert load_model(str(tmp_path / "out"), "cpu", "float32").label == "m.gguf"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_model(str(tmp_path / "nothing"), "cpu", "float32")


def test_loading_can_be_stopped(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    with pytest.raises(Cancelled):
        load_model(str(folder), "cpu", "float32", should_stop=lambda: True)
