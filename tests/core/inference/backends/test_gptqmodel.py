"""Tests of Marlin and ExLlamaV2 without a CUDA device: reasons, refused layers, and the tensors passed to gptqmodel.

A stand-in for gptqmodel's layers records the tensors. The kernels themselves are tested on a device.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from core.formats.pack import unpack_inputs, unpack_outputs
from core.inference.backends import gptqmodel, trial
from core.inference.backends.gptqmodel import ExllamaBackend, MarlinBackend
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CARD, CPU, facts, layer

BACKENDS = (MarlinBackend(), ExllamaBackend())


class Recorder(nn.Module):
    """A module with the buffers that gptqmodel 7.7 registers; it records the arguments of `post_init`."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given
        bits, inputs, outputs = given["bits"], given["in_features"], given["out_features"]
        groups = inputs // (inputs if given["group_size"] == -1 else given["group_size"])
        self.register_buffer("qweight", torch.zeros(inputs * bits // 32, outputs, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, outputs * bits // 32, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, outputs, dtype=torch.float16))
        self.register_buffer("g_idx", torch.zeros(inputs, dtype=torch.int32))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.float16) if given["bias"] else None)

    def qzero_format(self, format: int) -> None:
        self.version = format

    def temp_dq_size(self) -> int:
        return 1024

    def post_init(self, *scratch: Any) -> None:
        self.scratch = scratch


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, dict[str, Any]] = {
        "gptqmodel.nn_modules.qlinear.marlin": {"MarlinLinear": Recorder},
        "gptqmodel.nn_modules.qlinear.exllamav2": {"ExllamaV2Linear": Recorder},
        "gptqmodel.utils.exllamav2": {"ScratchSpace": SimpleNamespace},
    }
    for name in ("gptqmodel", "gptqmodel.nn_modules", "gptqmodel.nn_modules.qlinear", "gptqmodel.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, values in names.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    gptqmodel._scratches.clear()


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_on_a_cpu_the_reason_names_cuda(backend: Any) -> None:
    missing = backend.missing(CPU)
    assert missing is not None
    assert "CUDA" in missing.reason


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_without_the_package_the_install_command_is_given(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = backend.missing(CARD)
    assert missing is not None
    assert missing.install == "pip install gptqmodel"


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_a_package_that_cannot_be_imported_gives_the_reason(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("its kernels are for another CUDA\nand more")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", broken)
    gptqmodel._import_problem.cache_clear()
    missing = backend.missing(CARD)
    gptqmodel._import_problem.cache_clear()
    assert missing is not None
    assert missing.reason == "gptqmodel is installed but cannot be imported: its kernels are for another CUDA."


@pytest.mark.usefixtures("_stand_in")
def test_a_trial_that_fails_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in cannot compute, like a missing card."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(trial, "_found", {})
    missing = ExllamaBackend().missing(CARD)
    assert missing is not None
    assert missing.reason.startswith("A trial layer failed on Some card")


@pytest.mark.parametrize("scheme", [LayerScheme(4, 128, True), LayerScheme(8, -1, True), LayerScheme.of_type("q8_0")])
def test_marlin_supports_symmetric_layers_of_4_and_8_bits(scheme: LayerScheme) -> None:
    assert MarlinBackend().refusal(facts(layer(scheme, 64)), CARD, torch.bfloat16) == ""


@pytest.mark.parametrize("scheme", [LayerScheme(4, 64, False), LayerScheme(4, -1, True), LayerScheme.of_type("q4_0")])
def test_exllama_supports_layers_of_4_bits(scheme: LayerScheme) -> None:
    assert ExllamaBackend().refusal(facts(layer(scheme, 64)), CARD, torch.float16) == ""


@pytest.mark.parametrize(
    ("backend", "scheme", "dtype", "word"),
    [
        (MarlinBackend(), LayerScheme(4, 64, False), torch.float16, "symmetric"),
        (MarlinBackend(), LayerScheme(3, 64, True), torch.float16, "W3"),
        (MarlinBackend(), LayerScheme.of_type("q6_k"), torch.float16, "Q6_K"),
        (MarlinBackend(), LayerScheme(4, 256, True), torch.float16, "groups of"),
        (MarlinBackend(), LayerScheme(4, 64, True), torch.float32, "float32"),
        (ExllamaBackend(), LayerScheme(8, 64, True), torch.float16, "4 bits"),
        (ExllamaBackend(), LayerScheme.of_type("q4_k"), torch.float16, "Q4_K"),
        (ExllamaBackend(), LayerScheme(4, 64, True), torch.float32, "float32"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_unsupported_layers_are_refused_with_the_reason(
    backend: Any, scheme: LayerScheme, dtype: torch.dtype, word: str
) -> None:
    assert word in backend.refusal(facts(layer(scheme, 64)), CARD, dtype)


def test_marlin_refuses_act_order_if_its_tiles_do_not_divide_the_layer() -> None:
    stored = layer(LayerScheme(4, 32, True), 96, 256, act_order=True)
    assert "tiles" in MarlinBackend().refusal(facts(stored), CARD, torch.float16)


def test_outputs_that_are_not_a_multiple_of_32_are_refused() -> None:
    assert "divisible" in ExllamaBackend().refusal(facts(layer(LayerScheme(4, 64, True), 48)), CARD, torch.float16)


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_the_layer_gets_the_tensors_of_gptq_version_2(backend: Any, act_order: bool) -> None:
    stored: Any = layer(LayerScheme(4, 64, backend.name == "marlin"), 64, 256, act_order=act_order)
    built: Any = backend.build(stored, torch.ones(64), CPU, torch.float16)
    assert torch.equal(unpack_inputs(built.qweight, 4), stored.ints)
    assert torch.equal(unpack_outputs(built.qzeros, 4), stored.zeros)
    assert torch.equal(built.scales, stored.scales.T)
    assert built.version == 2
    assert built.given["desc_act"] is act_order
    assert torch.equal(built.bias, torch.ones(64, dtype=torch.float16))


@pytest.mark.usefixtures("_stand_in")
def test_exllama_gets_a_zero_g_idx_without_act_order() -> None:
    built: Any = ExllamaBackend().build(layer(LayerScheme(4, 64, True), 64), None, CPU, torch.float16)
    assert not built.g_idx.any()


@pytest.mark.usefixtures("_stand_in")
def test_exllama_gets_the_g_idx_of_act_order() -> None:
    stored: Any = layer(LayerScheme(4, 64, True), 64, act_order=True)
    built: Any = ExllamaBackend().build(stored, None, CPU, torch.float16)
    assert torch.equal(built.g_idx, stored.g_idx)


@pytest.mark.usefixtures("_stand_in")
def test_layers_of_a_device_share_one_buffer() -> None:
    first, second = (
        ExllamaBackend().build(layer(LayerScheme(4, 64, True), 64), None, CPU, torch.float16) for _ in range(2)
    )
    assert first.scratch[0] is second.scratch[0]  # type: ignore[index]


@pytest.mark.usefixtures("_stand_in")
def test_a_block_type_is_passed_as_its_equivalent_scheme() -> None:
    built: Any = MarlinBackend().build(layer(LayerScheme.of_type("q8_0"), 64), None, CPU, torch.float16)
    assert (built.given["bits"], built.given["group_size"], built.given["sym"]) == (8, 32, True)


@pytest.mark.usefixtures("_stand_in")
def test_a_buffer_of_another_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If gptqmodel changes its layout, the error is raised before a kernel reads out of bounds."""

    class Other(Recorder):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.qweight = torch.zeros(2, 2, dtype=torch.int32)

    monkeypatch.setattr(sys.modules["gptqmodel.nn_modules.qlinear.marlin"], "MarlinLinear", Other)
    with pytest.raises(ValueError, match="qweight"):
        MarlinBackend().build(layer(LayerScheme(4, 64, True), 64), None, CPU, torch.float16)
