"""Tests of the search for scales and minimums of block types: stored values, error, and unusual weights."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from core.block_types import TYPES
from core.formats.gguf.blocks import SCALE_RANGE, decode, grid_steps
from core.formats.gguf.code_books import decoded, nearest_code
from core.formats.gguf.rounding import round_to, search_scales
from core.formats.gguf.search import half
from core.formats.stored import digest

K_TYPES = sorted(name for name in TYPES if TYPES[name].nested)
LEGACY = sorted(name for name in set(TYPES) - set(K_TYPES) if not TYPES[name].code_book)
PEER_ERRORS = {
    "q4_0": (1.172e-2, 8.543e-3), "q4_1": (8.112e-3, 3.887e-3), "q5_0": (2.952e-3, 2.003e-3),
    "q5_1": (1.921e-3, 9.004e-4), "q8_0": (4.635e-5, 4.096e-5), "q2_k": (1.123e-1, 4.709e-2),
    "q3_k": (3.170e-2, 2.021e-2), "q4_k": (6.920e-3, 4.067e-3), "q5_k": (1.784e-3, 1.109e-3),
    "q6_k": (4.540e-4, 3.036e-4),
}  # fmt: skip
"""Of `weights()` by llama.cpp's `ggml_quantize_chunk` (ggml 0.25.3), without and with `drives()`."""


def weights(rows: int = 16, width: int = 1024, seed: int = 0) -> torch.Tensor:
    """Normal with heavy tails, like a trained layer's."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(0.02 * rng.standard_t(5, (rows, width))).to(torch.bfloat16).float()


def drives(width: int = 1024) -> torch.Tensor:
    """Mean squares of inputs; a few are hundreds of times the others."""
    return torch.from_numpy(np.exp(1.5 * np.random.default_rng(1).standard_normal(width))).float()


def relative_error(weight: torch.Tensor, rounded: torch.Tensor, importance: torch.Tensor | None) -> float:
    """Weighted squared error over the weighted square of the weight."""
    counts = torch.ones(weight.shape[1]) if importance is None else importance
    off = (rounded - weight).double().square() * counts
    return float(off.sum() / (weight.double().square() * counts).sum())


def test_rounding_to_float16_is_torchs() -> None:
    """Random patterns, and those halfway between two float16, subnormal ones too."""
    random = np.random.default_rng(2).integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    small = np.arange(2048, dtype=np.float32) * np.float32(2.0**-25)
    halfway = (np.arange(0, 0x47800000, 0x101000, dtype=np.uint32) | np.uint32(0x1000)).view(np.float32)
    values = np.concatenate([random[np.isfinite(random)], small, -small, halfway])
    expected = torch.from_numpy(values).clamp(-65504, 65504).half().float()
    assert [float(half(value)) for value in values] == expected.tolist()


@pytest.mark.parametrize("given_importance", [False, True])
@pytest.mark.parametrize("name", PEER_ERRORS)
def test_no_worse_than_llama_cpp(name: str, given_importance: bool) -> None:
    importance = drives() if given_importance else None
    rounded = round_to(weights(), name, importance, "layer").dequantize()
    assert relative_error(weights(), rounded, importance) <= PEER_ERRORS[name][given_importance]


@pytest.mark.parametrize(("name", "other"), [("iq4_nl", "q4_0"), ("iq4_xs", "q4_0")])
def test_a_code_book_suits_weights_better_than_even_levels(name: str, other: str) -> None:
    coded, even = (round_to(weights(), one, None, "layer").dequantize() for one in (name, other))
    assert relative_error(weights(), coded, None) < relative_error(weights(), even, None)


def test_no_scale_of_a_fine_grid_is_better_for_iq4_nl() -> None:
    weight, importance = weights(4, 64), drives(64)
    found = round_to(weight, "iq4_nl", importance, "layer").dequantize()
    groups, counts = weight.view(-1, 1, 32), importance.view(1, -1, 1, 32).expand(4, -1, -1, -1).reshape(-1, 1, 32)
    scales = (groups.abs().amax(-1, keepdim=True) * torch.linspace(-1.2, 1.2, 4001).view(1, -1, 1) / 113).half().float()
    scales[scales == 0] = 2.0**-24
    rounded = decoded(nearest_code(groups / scales, "iq4_nl"), "iq4_nl") * scales
    least = ((rounded - groups).square() * counts).sum(-1).amin(-1)
    error = ((found.view(-1, 32) - groups.squeeze(1)).square() * counts.squeeze(1)).sum(-1)
    assert bool((error <= 1.1 * least).all())
    assert float(error.sum()) <= 1.01 * float(least.sum())


@pytest.mark.parametrize("name", LEGACY)
def test_better_than_gguf_py(name: str) -> None:
    kind = GGMLQuantizationType[name.upper()]
    peer = torch.from_numpy(gguf.dequantize(gguf.quantize(weights().numpy(), kind), kind))
    rounded = round_to(weights(), name, None, "layer").dequantize()
    assert relative_error(weights(), rounded, None) < relative_error(weights(), peer, None)


@pytest.mark.parametrize("name", TYPES)
def test_weights_on_a_grid_are_found_exactly(name: str) -> None:
    """A file of blocks, dequantized and rounded anew, loses nothing where its writer used the whole range."""
    data = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (4, TYPES[name].nbytes * 2), dtype=np.uint8))
    layer = decode("layer", name, data)
    groups = layer.ints.view(4, -1, TYPES[name].group)
    groups[..., 0], groups[..., 1] = 0, (1 << TYPES[name].bits) - 1
    layer.d.fill_(0.01)
    if layer.m is not None:
        layer.m.fill_(0.02)
    for part in (layer.scales, layer.mins):
        if part is not None:
            low, high = SCALE_RANGE[name]
            part[:, :: part.shape[1] // layer.d.shape[1]] = low if low < 0 else high
    found = round_to(layer.dequantize(), name, None, "layer").dequantize()
    assert relative_error(layer.dequantize(), found, None) < 1e-12


@pytest.mark.parametrize("name", TYPES)
def test_a_start_holds_exactly_what_is_stored(name: str) -> None:
    grid = search_scales(weights(), name, drives())
    layer = round_to(weights(), name, drives(), "layer")
    for found, stored in ((grid.d, layer.d), (grid.m, layer.m), (grid.scales, layer.scales), (grid.mins, layer.mins)):
        assert (found is None) == (stored is None)
        if found is not None and stored is not None:
            assert found.dtype == torch.float32
            assert torch.equal(found, stored.float())


@given(
    name=st.sampled_from(sorted(TYPES)),
    magnitude=st.integers(-14, 12),
    shift=st.sampled_from([0.0, 1.0, -3.0]),
    importance=st.sampled_from([None, 0.0, 1e-12, 1e12]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_weight_gets_values_that_the_type_stores(
    name: str, magnitude: int, shift: float, importance: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy((rng.standard_normal((2, 256)) + shift) * 10.0**magnitude).float()
    weight[0, :64] = 0
    counts = None if importance is None else torch.from_numpy(importance * rng.random(256)).float()
    layer = round_to(weight, name, counts, "layer")
    for part in (layer.scales, layer.mins):
        if part is not None:
            assert SCALE_RANGE[name][0] <= int(part.min())
            assert int(part.max()) <= SCALE_RANGE[name][1]
    rounded = layer.dequantize()
    assert bool(rounded.isfinite().all())
    assert bool((layer.encode() == decode("layer", name, layer.encode()).encode()).all())
    # Never worse than nothing, for what float16 scales can hold at all.
    if -6 <= magnitude <= 3:
        counts = torch.ones(256) if not importance else counts
        assert relative_error(weight.where(weight.abs() > 1e-9, 1e-9), rounded, counts) <= 1.001


@pytest.mark.parametrize("name", sorted(TYPES))
def test_weights_near_the_smallest_float16_are_not_lost(name: str) -> None:
    """Scales that are 64ths or levels that are 128ths of a float16 would all be 0 here."""
    tiny = weights() * 2e-5
    assert relative_error(tiny, round_to(tiny, name, None, "layer").dequantize(), None) < 0.3


@pytest.mark.parametrize("name", [name for name in TYPES if not TYPES[name].code_book])
def test_every_integer_is_the_nearest(name: str) -> None:
    layer = round_to(weights(), name, None, "layer")
    step, _ = grid_steps(layer.d, layer.m, layer.scales, layer.mins)
    group = TYPES[name].group
    off = (layer.dequantize() - weights()).abs().view(16, -1, group)
    top = (1 << TYPES[name].bits) - 1
    inner = (layer.ints > 0) & (layer.ints < top)
    assert bool((off <= step.abs().unsqueeze(-1) * 0.5001)[inner.view(off.shape)].all())


@pytest.mark.parametrize("name", ["iq4_nl", "iq4_xs"])
def test_every_value_of_a_code_book_is_the_nearest(name: str) -> None:
    layer = round_to(weights(), name, None, "layer")
    step, _ = grid_steps(layer.d, layer.m, layer.scales, layer.mins)
    values = step.view(*step.shape, 1, 1) * torch.tensor(TYPES[name].code_book)
    grouped = weights().view(*step.shape, 32)
    least = (values - grouped.unsqueeze(-1)).abs().amin(-1)
    off = (layer.dequantize().view(grouped.shape) - grouped).abs()
    assert torch.allclose(off, least, rtol=0, atol=1e-5 * float(weights().abs().max()))


@pytest.mark.parametrize("name", ["q4_1", "q3_k", "q4_k"])
def test_nothing_depends_on_threads_or_on_the_rows_beside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = round_to(weights(), name, drives(), "layer")
    assert digest(round_to(weights()[3:5], name, drives(), "layer")) == digest(whole.take(torch.tensor([3, 4])))
    monkeypatch.setattr("core.formats.gguf.rounding._CHUNK", 3 * 1024)
    monkeypatch.setattr("core.formats.gguf.rounding._SMALLEST_SHARE", 1024)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert digest(round_to(weights(), name, drives(), "layer")) == digest(whole)


def test_a_matrix_without_rows_has_an_empty_grid() -> None:
    assert round_to(torch.empty(0, 256), "q4_k", None, "layer").encode().shape == (0, 144)


@pytest.mark.parametrize("name", ["q4_0", "q4_k"])
def test_what_is_not_finite_is_refused(name: str) -> None:
    weight = weights()
    weight[3, 7] = torch.nan
    with pytest.raises(ValueError, match="weight is not finite"):
        round_to(weight, name, None, "layer")
    with pytest.raises(ValueError, match="importance is not finite"):
        round_to(weights(), name, torch.full((1024,), torch.inf), "layer")


def test_weights_in_bfloat16_round_like_themselves() -> None:
    assert digest(round_to(weights().bfloat16(), "q4_k", None, "layer")) == digest(
        round_to(weights(), "q4_k", None, "layer")
    )


def test_an_input_of_great_importance_decides_its_group() -> None:
    importance = torch.ones(1024)
    importance[5::32] = 1e6
    plain = round_to(weights(), "q4_0", None, "layer").dequantize()
    driven = round_to(weights(), "q4_0", importance, "layer").dequantize()
    error, before = ((value - weights())[:, 5::32].square().mean() for value in (driven, plain))
    assert float(error) < 0.01 * float(before)
