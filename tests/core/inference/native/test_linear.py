"""Tests of the compiled linear layers against float32 matmuls, for every instruction set of this processor."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from core.errors import MissingDependency
from core.inference.native import library, matrix
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, PLAIN, apart, layer

EIGHT_BITS, TWO_PLANES = 0.01, 5e-5
"""A block of 32 normal numbers rounded to 255 levels is off by about 0.7 %; two planes by 1/254 of that."""
ISA = [
    pytest.param("-march=native", id="native"),
    pytest.param("-march=haswell", id="avx2", marks=pytest.mark.slow),
    # the byte products of processors without AVX-512, under the name that those with it have for them
    pytest.param(
        "-march=haswell -mavx512vl -mavx512vnni", id="avx2-vnni", marks=[pytest.mark.slow, pytest.mark.matrix]
    ),
    pytest.param("-march=x86-64", id="plain", marks=[pytest.mark.slow, pytest.mark.matrix]),
]


@pytest.fixture(autouse=True, scope="module", params=ISA)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run all tests with each instruction set."""
    flags = request.param
    if "native" not in flags and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("not this kind of processor")
    if "haswell" in flags and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    if "vnni" in flags and "avx512_vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("this processor has no AVX-512 VNNI")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITWRIGHT_NATIVE_FLAGS", flags)
        try:
            library.load()
        except MissingDependency as error:
            pytest.skip(error.message)
        yield


def exact(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the product in float64."""
    y = x.double() @ weight.double().t()
    return (y if bias is None else y + bias.double()).float()


@pytest.mark.parametrize("scheme", [*PLAIN, *BLOCKS], ids=lambda scheme: scheme.label())
@pytest.mark.parametrize(("planes", "bound"), [(1, EIGHT_BITS), (2, TWO_PLANES)])
def test_every_scheme(scheme: LayerScheme, planes: int, bound: float) -> None:
    stored, bias = layer(scheme), torch.randn(48)
    packed, weight = matrix.pack(stored, bias, planes), stored.dequantize()
    for rows in (1, 3, 7):
        x = torch.randn(rows, 256)
        assert apart(matrix.linear(packed, x), exact(x, weight, bias)) < bound, rows


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 48, 97, 200])
def test_every_number_of_rows(bits: int, rows: int) -> None:
    stored, x = layer(LayerScheme(bits, 64), outputs=72), torch.randn(rows, 256)
    found = matrix.linear(matrix.pack(stored, None, 2), x)
    worst = (found - exact(x, stored.dequantize())).norm(dim=1) / found.norm(dim=1)
    assert float(worst.max()) < 3 * TWO_PLANES


@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([32, 64, 96, 128, -1]),
    sym=st.booleans(),
    act_order=st.booleans(),
    outputs=st.integers(1, 70),
    blocks=st.integers(1, 20),
    rows=st.integers(1, 40),
    planes=st.sampled_from([1, 2]),
)
@hypothesis_settings(max_examples=60)
def test_any_shape(
    bits: int, group: int, sym: bool, act_order: bool, outputs: int, blocks: int, rows: int, planes: int
) -> None:
    """The last group is shorter if the group size does not divide in_features, as in files of other programs."""
    stored = layer(LayerScheme(bits, group, sym), outputs, 32 * blocks, act_order=act_order)
    x = torch.randn(rows, 32 * blocks, generator=torch.Generator().manual_seed(1))
    found = matrix.linear(matrix.pack(stored, None, planes), x)
    off = (found - exact(x, stored.dequantize())).norm()
    # of weights that cancel out there is nothing to be relative to
    assert float(off) <= (EIGHT_BITS if planes == 1 else TWO_PLANES) * 2 * float(x.norm() * stored.dequantize().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 12, 13, 100])
def test_weights_that_are_not_quantized(dtype: torch.dtype, rows: int) -> None:
    weight, bias = torch.randn(56, 320).to(dtype), torch.randn(56)
    x = torch.randn(rows, 320)
    found = matrix.linear(matrix.dense(weight, bias), x)
    assert apart(found, exact(x, weight, bias)) < 1e-6


def test_threads_change_nothing() -> None:
    packed = matrix.pack(layer(LayerScheme(4, 64), outputs=208), None)
    for rows in (1, 5, 150):
        x = torch.randn(rows, 256)
        one = matrix.linear(packed, x, threads=1)
        assert all(torch.equal(one, matrix.linear(packed, x, threads=count)) for count in (2, 3))


def test_rows_do_not_touch_each_other() -> None:
    """The result of a row does not depend on the number of rows."""
    packed, x = matrix.pack(layer(LayerScheme(4, 64)), None), torch.randn(9, 256)
    together = matrix.linear(packed, x)
    alone = torch.cat([matrix.linear(packed, row[None]) for row in x])
    assert apart(together, alone) < 1e-6


def test_rows_of_nothing_give_the_bias() -> None:
    bias = torch.randn(48)
    packed = matrix.pack(layer(LayerScheme(4, 32, False)), bias)
    assert torch.equal(matrix.linear(packed, torch.zeros(2, 256)), bias.expand(2, -1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(wrong: float) -> None:
    packed, x = matrix.pack(layer(LayerScheme(4, 32)), None), torch.randn(3, 256)
    x[1, 70] = wrong
    found = matrix.linear(packed, x)
    assert not bool(found[1].isfinite().any())
    assert bool(found[[0, 2]].isfinite().all())


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("size", [1e-25, 1e-6, 1e6, 1e30])
def test_numbers_of_any_size(size: float, planes: int) -> None:
    stored, x = layer(LayerScheme(4, 32)), torch.randn(3, 256) * size
    found = matrix.linear(matrix.pack(stored, None, planes), x)
    assert apart(found / size, exact(x / size, stored.dequantize())) < EIGHT_BITS


@pytest.mark.parametrize("planes", [1, 2])
def test_numbers_next_to_nothing_are_nothing(planes: int) -> None:
    x = torch.full((2, 256), 1e-40)
    assert torch.equal(matrix.linear(matrix.pack(layer(LayerScheme(4, 32)), None, planes), x), torch.zeros(2, 48))


def test_no_rows() -> None:
    assert matrix.linear(matrix.pack(layer(LayerScheme(4, 32)), None), torch.empty(0, 256)).shape == (0, 48)
