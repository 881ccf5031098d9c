"""Layers that float16 scales cannot hold stay in 16 bits, and are named before the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from core.bitsmap import BitsMap
from core.estimation.preflight import read_tree
from core.events import Log
from core.formats.gguf.mixes import tuned_as
from core.formats.grids import plan_layers
from core.model.weights import TensorStore
from core.quant.grid import new_grid
from core.quant.scale_range import loses_levels, within_float16
from core.schemes import LayerScheme
from tests.core.quant.test_pipeline import report_of, run, spec_of
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model

SCHEMES = [
    *(LayerScheme(bits, 64, sym) for bits in (4, 8) for sym in (True, False)),
    *(tuned_as(name) for name in ("q4_k", "q6_k", "q8_0")),
]


@settings(max_examples=60, deadline=None)
@given(scheme=st.sampled_from(SCHEMES), seed=st.integers(0, 2**31), exponent=st.floats(-12, 4))
def test_what_is_not_refused_is_rounded_as_well_as_usual(scheme: LayerScheme, seed: int, exponent: float) -> None:
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(seed))
    out = torch.empty_like(weight)
    new_grid(weight, scheme).quantize_into(out)
    usual = float((out - weight).norm() / weight.norm())
    small = weight * 10**exponent
    new_grid(small, scheme).quantize_into(out)
    error = float((out - small).norm() / small.norm())
    assert loses_levels(small, scheme) or error < max(1.3 * usual, usual + 0.0025)
    assert not loses_levels(small, scheme) or exponent < -4


@pytest.mark.parametrize("weight", [torch.zeros(4, 64), torch.full((4, 64), 1e-44), torch.full((4, 64), torch.nan)])
def test_what_has_no_size_is_judged_without_an_error(weight: torch.Tensor) -> None:
    assert loses_levels(weight, LayerScheme(8, 64, True)) in (True, False)


def test_a_layer_of_tiny_weights_is_named_and_kept(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    tensors[f"{name}.weight"] *= 2**-24
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    events = run(spec_of(model, tmp_path, iters=0, bits=8), tmp_path)

    said = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert len(said) == 1
    assert said[0].startswith(f"{name}: its weights are too small or too large for float16 scales")
    assert list(report_of(events)["fallbacks"]) == [name]
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written[f"{name}.weight"], tensors[f"{name}.weight"])


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])
def test_experts_of_tiny_weights_are_named(family: str, tmp_path: Path) -> None:
    make_model(family, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    stem = "model.layers.1.mlp.experts"
    if family == "gpt_oss":  # all experts are in one tensor
        tensors[f"{stem}.gate_up_proj"] *= 2**-24
        names = [f"{stem}.{expert}.{kind}_proj" for expert in range(6) for kind in ("gate", "up")]
    else:
        names = [f"{stem}.3.up_proj"]
        tensors[f"{names[0]}.weight"] *= 2**-24
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tree = read_tree(tmp_path)
    plans = plan_layers(tree, BitsMap(LayerScheme(8, 32)), ("auto_round",))
    found = within_float16(tree, plans, TensorStore(tmp_path, tree.tensors))
    assert (
        sorted(item.linear.name for item, old in zip(found, plans, strict=True) if item.scheme != old.scheme) == names
    )
