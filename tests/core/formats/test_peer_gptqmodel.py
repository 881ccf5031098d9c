"""GPTQ and AWQ outputs read by GPTQModel, if it is installed: exactly the same weights.

Its torch layers work in float16, so the expected weights are rounded to float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.bitsmap import Rule
from core.formats.side_files import carry_over
from core.schemes import LayerScheme
from tests.core.formats.test_peer import assert_same_answers, assert_same_weights, llama
from tests.core.formats.tiny import Output, bits_map, write_output

gptqmodel = pytest.importorskip("gptqmodel")

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

__all__ = ["llama"]

LEFT = "model.layers.1.self_attn.o_proj"


def loaded(llama: Path, output: Output, backend: str) -> Any:
    carry_over(llama, output.folder)
    model = gptqmodel.GPTQModel.load(
        str(output.folder), device="cpu", dtype=torch.float16, backend=getattr(gptqmodel.BACKEND, backend)
    )
    return model.model


@pytest.mark.parametrize(("name", "sym"), [("auto_gptq", True), ("gptqmodel", True), ("gptqmodel", False)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(llama: Path, tmp_path: Path, bits: int, name: str, sym: bool) -> None:
    output = write_output(llama, tmp_path / "out", name, bits_map(LayerScheme(bits, 32, sym)))
    model = loaded(llama, output, "GPTQ_TORCH")
    assert_same_weights(output, model)
    assert_same_answers(llama, output, model)


@pytest.mark.parametrize("name", ["auto_gptq", "gptqmodel"])
def test_gptq_mixed(llama: Path, tmp_path: Path, name: str) -> None:
    chosen = bits_map(
        LayerScheme(4, 32), {LEFT: {"bits": 16}, "lm_head": {"bits": 8}}, Rule("*.0.self_attn.[qkv]_proj", bits=8)
    )
    output = write_output(llama, tmp_path / "out", name, chosen)
    model = loaded(llama, output, "GPTQ_TORCH")
    assert_same_weights(output, model)
    assert not hasattr(model.get_submodule(LEFT), "qweight")


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [32, -1])
def test_awq(llama: Path, tmp_path: Path, group_size: int, sym: bool) -> None:
    output = write_output(
        llama, tmp_path / "out", "auto_awq", bits_map(LayerScheme(4, group_size, sym), {LEFT: {"bits": 16}})
    )
    model = loaded(llama, output, "AWQ_TORCH")
    assert_same_weights(output, model)
    assert not hasattr(model.get_submodule(LEFT), "qweight")
    assert_same_answers(llama, output, model)
