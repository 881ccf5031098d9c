"""The head in slices computes what the whole head computes, and gives its place back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.quant import streamed_head as module
from core.quant.blocks import BlockJob
from core.quant.grid import new_grid
from core.schemes import LayerScheme


class Store:
    """One head, as the store of a checkpoint has it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.tensors = {"lm_head.weight": weight} | ({} if bias is None else {"lm_head.bias": bias})

    def get(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        return self.tensors[name][index]

    def info(self, name: str) -> Any:
        tensor = self.tensors[name]
        return SimpleNamespace(shape=tuple(tensor.shape), nbytes=tensor.nbytes, numel=tensor.numel())


def job_with(store: Store) -> Any:
    model = nn.Module()
    model.lm_head = nn.Linear(32, 70, device="meta")
    skeleton = SimpleNamespace(
        model=model,
        store=store,
        head=lambda: "lm_head",
        checkpoint_name=lambda name: name if name in store.tensors else None,
    )
    resolved = SimpleNamespace(compute_dtype=torch.float32, torch_device=torch.device("cpu"))
    return SimpleNamespace(skeleton=skeleton, resolved=resolved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_slices_are_the_whole(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, biased: bool) -> None:
    monkeypatch.setattr(module, "_PIECE", 32 * 16)
    weight, bias = torch.randn(70, 32).to(dtype), torch.randn(70).to(dtype) if biased else None
    job = job_with(Store(weight, bias))
    own, x = job.skeleton.model.lm_head, torch.randn(2, 3, 32)
    with module.streamed_head(cast(BlockJob, job)):
        found = job.skeleton.model.lm_head(x)
    expected = nn.functional.linear(x, weight.float(), None if bias is None else bias.float())
    assert torch.allclose(found, expected, atol=1e-5)
    assert job.skeleton.model.lm_head is own


def test_a_quantized_head_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 32 * 16)
    layer = new_grid(torch.randn(70, 32), LayerScheme(4, 32, True)).freeze("lm_head")
    assert isinstance(layer, QuantizedLinear)
    job, x = job_with(Store(torch.zeros(70, 32), None)), torch.randn(1, 3, 32)
    with module.streamed_head(cast(BlockJob, job), cast(StoredLayer, layer)):
        found = job.skeleton.model.lm_head(x)
    assert torch.allclose(found, x @ layer.dequantize().T, atol=1e-5)


def test_inputs_in_float32_are_multiplied_with_a_head_in_16_bits() -> None:
    """Llama 4 is captured with its head, outside of autocast."""
    store = Store(torch.randn(70, 32), None)
    head = module.StreamedHead(
        lambda: iter([store.get("lm_head.weight")]), (70, 32), None, torch.bfloat16, torch.device("cpu")
    )
    x = torch.randn(2, 3, 32)
    expected = nn.functional.linear(x.bfloat16(), store.get("lm_head.weight").bfloat16())
    assert torch.equal(head(x), expected)
