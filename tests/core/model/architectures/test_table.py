"""The table of architectures against gguf-py."""

from __future__ import annotations

import gguf
import pytest

from core.model.architectures.table import ARCHITECTURES, READ_FROM_GGUF


@pytest.mark.parametrize("model_type", [name for name, entry in ARCHITECTURES.items() if entry.gguf])
def test_names_are_those_of_gguf_py(model_type: str) -> None:
    architecture = ARCHITECTURES[model_type]
    assert architecture.gguf
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.gguf.name)
    theirs = gguf.get_tensor_name_map(kind, 4)
    inside = [f"{architecture.base}.{architecture.blocks}.3.{module}" for module in architecture.block_tensors]
    for module in (*inside, *(f"{architecture.base}.{name}" for name in architecture.outer_tensors), "lm_head"):
        expected = theirs.get_name(module)
        assert architecture.gguf_name(f"{module}.weight") == (f"{expected}.weight" if expected else "")


@pytest.mark.parametrize(
    "tensor", ["model.layers.0.self_attn.sinks", "layers.0.mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight"]
)
def test_other_tensors_have_no_name(tensor: str) -> None:
    assert ARCHITECTURES["llama"].gguf_name(tensor) == ""


def test_a_checkpoint_without_the_outer_module_is_named() -> None:
    assert ARCHITECTURES["llama"].gguf_name("layers.2.mlp.up_proj.bias", base="") == "blk.2.ffn_up.bias"


def test_llama_files_are_read_as_llama() -> None:
    assert READ_FROM_GGUF["llama"].model_type == "llama"
