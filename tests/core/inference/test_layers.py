"""Tests of building layers with backends that work, fail, or compute wrong values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from core.bitsmap import Rule
from core.errors import OutOfMemory
from core.events import Event
from core.formats.side_files import carry_over
from core.formats.stored import StoredLayer
from core.inference import layers
from core.inference.backends.choose import BackendChoice
from core.inference.backends.portable import DenseBackend, PackedLinear, dense_linear
from core.inference.experts import ExpertWeights
from core.inference.layers import Builder, disagreement
from core.inference.loader import load_model, load_runner
from core.inference.runners.module import ModuleRunner
from core.model.skeleton import build_skeleton
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, write_output
from tests.core.inference.backends.stored_layers import CPU, layer
from tests.core.tiny_architectures import make_model

STORED = layer(LayerScheme(4, 64))
EXACT = DenseBackend()


class StubBackend:
    """A backend that builds layers with a given function and counts them."""

    def __init__(self, build: Callable[[StoredLayer, Tensor | None], nn.Module]) -> None:
        self.make, self.count = build, 0

    def build(self, stored: StoredLayer, bias: Tensor | None, *_: Any) -> nn.Module:
        self.count += 1
        return self.make(stored, bias)


def right(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    return dense_linear(stored.dequantize(), bias)


def wrong(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    return dense_linear(stored.dequantize().neg(), bias)


def endless(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    return dense_linear(stored.dequantize() * float("inf"), bias)


def broken(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    raise AttributeError("module 'fast' has no attribute 'gemm'\nand more lines")


def unable(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")


def full(stored: StoredLayer, bias: Tensor | None) -> nn.Module:
    raise OutOfMemory("It does not fit.", "")


def builder(
    build: Callable[[StoredLayer, Tensor | None], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> tuple[Builder, BackendChoice, StubBackend, list[Event]]:
    fast = StubBackend(build)
    monkeypatch.setattr(layers, "backend", {"fast": fast, "dense": EXACT}.__getitem__)
    events: list[Event] = []
    choice = BackendChoice(CPU, "auto", {STORED.name: ("fast", "dense")}, {}, Counter())
    return Builder(choice, torch.float32, events.append), choice, fast, events


def test_the_first_backend_that_works_makes_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    build, choice, _, events = builder(right, monkeypatch)
    build(STORED, None)
    assert (choice.taken, choice.failed, events) == ({"fast": 1}, {}, [])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (broken, "It failed at model.layers.0.mlp.up_proj: module 'fast' has no attribute 'gemm'"),
        (wrong, "It failed at model.layers.0.mlp.up_proj: its result differs from the exact one by 200 %"),
        (endless, "It failed at model.layers.0.mlp.up_proj: its result differs from the exact one by nan %"),
    ],
)
def test_a_backend_that_fails_is_not_used_again(
    make: Callable[[StoredLayer, Tensor | None], nn.Module], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, choice, fast, events = builder(make, monkeypatch)
    x = torch.randn(2, 256)
    for _ in range(2):
        assert torch.equal(build(STORED, None)(x), EXACT.build(STORED, None, CPU, torch.float32)(x))
    assert (choice.taken, fast.count, choice.failed) == ({"dense": 2}, 1, {"fast": reason})
    assert len(events) == 1


@pytest.mark.parametrize(("make", "error"), [(unable, RuntimeError), (full, OutOfMemory)])
def test_out_of_memory_does_not_disable_a_backend(
    make: Callable[[StoredLayer, Tensor | None], nn.Module], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, choice, _, _ = builder(make, monkeypatch)
    with pytest.raises(error):
        build(STORED, None)
    assert choice.failed == {}


def test_a_kind_of_layer_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[str] = []
    build, *_ = builder(right, monkeypatch)

    def disagreement(*_: Any) -> float:
        checks.append("")
        return 0.0

    monkeypatch.setattr(layers, "disagreement", disagreement)
    for _ in range(3):
        build(STORED, None)
    assert len(checks) == 1


@pytest.mark.parametrize(("make", "apart"), [(right, 0.0), (wrong, 2.0)])
def test_disagreement_is_the_relative_difference_of_the_product(
    make: Callable[[StoredLayer, Tensor | None], nn.Module], apart: float
) -> None:
    bias = torch.zeros(48)
    assert disagreement(make(STORED, bias), STORED, bias, "cpu", torch.float32) == pytest.approx(apart, abs=1e-6)


MIXTURES = {
    "qwen3_moe": "transformers joins the experts of the checkpoint",
    "gpt_oss": "transposed, rows of gate and up alternate, biases",
    "llama4_text": "the product with all experts at once",
    "dbrx": "all experts below each other in one matrix",
    "jetmoe": "a loop over all experts, also in attention",
}


def dequantized(source: Path, written: Output) -> Any:
    """Return the original model in float32 with the dequantized weights of an output in its parameters."""
    tree = open_tree(source)
    skeleton = build_skeleton(tree, TensorStore(source, dict(tree.tensors)))
    skeleton.fill("", torch.float32, torch.device("cpu"))
    parameters = dict(skeleton.model.named_parameters())
    for linear in tree.linears:
        if linear.name in written.layers:
            weight = written.layers[linear.name].dequantize()
            for place in skeleton.slices(linear):
                place.view(parameters[place.parameter]).copy_(weight[place.of])
    return skeleton.model


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.usefixtures("own_home")
def test_experts_of_a_quantized_mixture_stay_packed(tmp_path: Path, name: str) -> None:
    make_model(name, tmp_path / "source")
    rules = [Rule("*.experts.1.*", bits=8), Rule("*.experts.2.up_proj", bits=16)]
    chosen = bits_map(LayerScheme(4, 32), None, *rules)
    written = write_output(tmp_path / "source", tmp_path / "out", "auto_round", chosen)
    carry_over(tmp_path / "source", written.folder)
    ids = list(range(3, 43))
    with torch.inference_mode():
        expected = dequantized(tmp_path / "source", written)(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        exact = load_model(str(written.folder), "cpu", "float32").model
        torch.testing.assert_close(exact(input_ids=torch.tensor([ids]), use_cache=False).logits[0], expected)

    loaded = load_runner(str(written.folder), "cpu", "portable", "float32")
    torch.testing.assert_close(loaded.runner.logits(ids), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded.runner.extend(ids[:30]), expected[29], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded.runner.extend(ids[30:31]), expected[30], rtol=1e-4, atol=1e-4)
    model = cast(ModuleRunner, loaded.runner).model
    assert any(isinstance(module, ExpertWeights) for module in model.modules())
    assert sum(isinstance(module, PackedLinear) for module in model.modules()) == len(written.layers)
    assert loaded.counts["portable"] == len(written.layers) == sum(loaded.schemes.values())
