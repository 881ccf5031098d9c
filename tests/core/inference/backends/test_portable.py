"""Tests of the backends in plain torch: every scheme is computed with the exact weights."""

from __future__ import annotations

import pytest
import torch

from core.formats.quantized import QuantizedLinear
from core.inference.backends import portable
from core.inference.backends.portable import DenseBackend, PackedLinear, PortableBackend, pack_plane, unpack_plane
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, CPU, PLAIN, facts, layer

IDS = [scheme.label() for scheme in (*PLAIN, *BLOCKS)]


@pytest.mark.parametrize("scheme", [*PLAIN, *BLOCKS], ids=IDS)
@pytest.mark.parametrize("backend", [DenseBackend(), PortableBackend()], ids=["dense", "portable"])
def test_every_scheme_is_computed_with_the_exact_weights(
    backend: DenseBackend | PortableBackend, scheme: LayerScheme
) -> None:
    stored = layer(scheme)
    x, bias = torch.randn(2, 3, 256), torch.randn(48)
    assert (backend.missing(CPU), backend.refusal(facts(stored), CPU, torch.float32)) == (None, "")
    module = backend.build(stored, bias, CPU, torch.float32)
    exact = torch.nn.functional.linear(x, stored.dequantize(), bias)
    torch.testing.assert_close(module(x), exact, rtol=0, atol=0)


@pytest.mark.parametrize("scheme", PLAIN, ids=[scheme.label() for scheme in PLAIN])
def test_act_order_is_computed(scheme: LayerScheme) -> None:
    stored = layer(scheme, act_order=True)
    module = PackedLinear(stored, None, torch.float32)
    assert torch.equal(module.rows(0, 48), stored.dequantize())


def test_an_incomplete_last_group_is_computed() -> None:
    stored = layer(LayerScheme(4, 96), inputs=256)
    assert isinstance(stored, QuantizedLinear)
    assert torch.equal(PackedLinear(stored, None, torch.float32).rows(0, 48), stored.dequantize())


def test_slices_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = layer(LayerScheme(3, 32, sym=False))
    x, bias = torch.randn(5, 256), torch.randn(48)
    whole = PackedLinear(stored, bias, torch.float32)(x)
    monkeypatch.setattr(portable, "_SLICE", {"cpu": 256 * 7})
    torch.testing.assert_close(PackedLinear(stored, bias, torch.float32)(x), whole)


def test_a_packed_layer_rounds_its_weights_once() -> None:
    stored = layer(LayerScheme(4, 64))
    rows = PackedLinear(stored, None, torch.bfloat16).rows(0, 48)
    assert torch.equal(rows, stored.dequantize().to(torch.bfloat16))


@pytest.mark.parametrize(("bits", "per_weight"), [(2, 2), (3, 3), (4, 4), (8, 8)])
def test_a_packed_layer_takes_the_memory_of_its_bits(bits: int, per_weight: int) -> None:
    stored = layer(LayerScheme(bits, -1), outputs=64, inputs=4096)
    nbytes = sum(buffer.nbytes for buffer in PackedLinear(stored, None, torch.float32).buffers())
    assert nbytes == 64 * 4096 * per_weight // 8 + 2 * 64


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_unpacking_a_plane_inverts_packing(bits: int) -> None:
    ints = torch.randint(0, 256, (5, 64), dtype=torch.uint8)
    low = 8 - bits
    assert torch.equal(unpack_plane(pack_plane(ints, low, bits), bits), ints >> low)


def test_an_object_that_is_not_a_stored_layer_is_refused() -> None:
    class Other:
        name, scheme, ints = "x", LayerScheme(4, 32), torch.zeros(32, 32, dtype=torch.uint8)

    with pytest.raises(TypeError, match="Other is not a stored layer"):
        PackedLinear(Other(), None, torch.float32)  # type: ignore[arg-type]
