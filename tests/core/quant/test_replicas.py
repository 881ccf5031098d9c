"""Replicas of a block: their outputs and gradients, and runs whose samples are shared by several devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import BadInput
from core.events import BlockDone, Started
from core.inference import devices
from core.model.block_runner import BlockCall
from core.quant import prepare
from core.quant.replicas import Replicas, _copied, _moved
from tests.core.quant.test_pipeline import run, spec_of
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model

CPU, META = torch.device("cpu"), torch.device("meta")


class Block(nn.Module):
    """A block with a tuned parameter that is used twice, another parameter, a buffer and a plain tensor."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.tuned = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("shift", torch.ones(8))
        self.plain = torch.full((8,), 0.5)
        self.same = self.tuned

    def forward(self, hidden: Tensor, scale: Tensor) -> Tensor:
        return self.same(torch.tanh(self.tuned(self.norm(hidden)) * scale)) + self.shift * self.plain


def run_block(block: Callable[..., Any], hidden: Tensor, call: BlockCall) -> Tensor:
    return call(block, hidden)


def test_the_outputs_of_the_parts_are_joined() -> None:
    block, hidden, call = Block(), torch.randn(5, 3, 8), BlockCall((torch.tensor(2.0),), {})
    replicas = Replicas(block, [block.tuned.weight], [CPU] * 3)
    found = replicas.outputs([(part, call) for part in hidden.chunk(3)], run_block)
    replicas.close()
    assert torch.allclose(found, block(hidden, torch.tensor(2.0)))
    assert all(parameter.is_leaf for parameter in block.parameters())


def test_replicas_have_the_present_values_of_the_tuned_parameters() -> None:
    block, call = Block(), BlockCall((torch.tensor(2.0),), {})
    replicas = Replicas(block, [block.tuned.weight], [CPU] * 2)
    hidden = torch.randn(1, 3, 8).expand(2, 3, 8)
    with torch.no_grad():
        block.tuned.weight.mul_(3)
        first, second = replicas.outputs([(part, call) for part in hidden.chunk(2)], run_block)
    replicas.close()
    assert torch.equal(first, second)
    assert torch.allclose(first, block(hidden[0], torch.tensor(2.0)))


def test_gradients_are_added_in_the_order_of_the_devices() -> None:
    block, call = Block(), BlockCall((torch.tensor(2.0),), {})
    weight = block.tuned.weight
    parts = torch.randn(6, 3, 8).mul(1000).chunk(3)
    single = [torch.autograd.grad(block(part, torch.tensor(2.0)).square().sum(), weight)[0] for part in parts]
    replicas = Replicas(block, [weight], [CPU] * 3)
    for _ in range(5):
        block.zero_grad()
        replicas.outputs([(part, call) for part in parts], run_block).square().sum().backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, single[0] + single[1] + single[2])
    replicas.close()


def test_a_copy_has_all_its_tensors_on_its_device_and_no_memory_for_tuned_parameters() -> None:
    block = Block()
    copied = _copied(block, {id(block.tuned.weight)}, META)
    tensors = [*copied.parameters(), *copied.buffers(), copied.plain]
    assert {value.device for value in tensors if isinstance(value, Tensor)} == {META}
    assert isinstance(copied, Block)
    assert copied.same is copied.tuned
    assert {value.device for value in block.parameters()} == {CPU}
    here = _copied(block, {id(block.tuned.weight)}, CPU)
    assert [name for name, value in here.named_parameters() if value.is_meta] == ["tuned.weight"]


def test_nested_arguments_are_moved() -> None:
    call = BlockCall((torch.ones(2), 3), {"pair": (torch.ones(1), None), "flag": True}, "hidden", {0: 0})
    moved = _moved(call, META)
    assert (moved.args[0].device, moved.kwargs["pair"][0].device) == (META, META)
    assert (moved.args[1], moved.kwargs["pair"][1], moved.kwargs["flag"]) == (3, None, True)
    assert (moved.name, moved.repeated) == ("hidden", {0: 0})


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets runs use the CPU as this number of devices."""
    cpu = devices.choose("cpu")
    return lambda count: monkeypatch.setattr(prepare, "choose_all", lambda names: (cpu,) * count)


def losses_of(model: Path, folder: Path, **changes: Any) -> tuple[list[tuple[float, float]], str]:
    """Run a job, and return the losses of its blocks and the digest of its weights."""
    folder.mkdir()
    events = run(spec_of(model, folder, bits=2, samples=12, batch_size=6, **changes), folder)
    files = sorted((folder / "out").glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return [(event.loss_before, event.loss_after) for event in events if isinstance(event, BlockDone)], digest


@pytest.mark.usefixtures("float32")
def test_the_result_is_that_of_one_device_and_the_same_in_each_run(on: Callable[[int], None], tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    one, _ = losses_of(model, tmp_path / "one", start="gptq")
    on(3)
    found = [losses_of(model, tmp_path / name, start="gptq") for name in ("first", "second")]
    assert found[0] == found[1]
    for (before, after), (before_one, after_one) in zip(found[0][0], one, strict=True):
        assert before == pytest.approx(before_one, rel=1e-3)
        assert after == pytest.approx(after_one, rel=0.02)
        assert after < before


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", ["qwen3_moe", "gemma4_text"])
def test_mixtures_and_blocks_with_arguments_of_the_text_are_shared(
    name: str, on: Callable[[int], None], tmp_path: Path
) -> None:
    make_model(name, tmp_path / "model")
    one, _ = losses_of(tmp_path / "model", tmp_path / "one")
    on(2)
    found, _ = losses_of(tmp_path / "model", tmp_path / "two")
    for (before, after), (before_one, after_one) in zip(found, one, strict=True):
        assert (before, after) == pytest.approx((before_one, after_one), rel=0.05)


def test_the_devices_are_reported(on: Callable[[int], None], tmp_path: Path) -> None:
    on(2)
    events = run(spec_of(save_model(tmp_path / "model"), tmp_path, iters=1), tmp_path)
    (settings,) = [event.settings for event in events if isinstance(event, Started)]
    assert (settings["device"], list(settings["further_devices"])) == ("cpu", ["cpu"])


def test_compile_with_several_devices_is_refused(on: Callable[[int], None], tmp_path: Path) -> None:
    on(2)
    with pytest.raises(BadInput, match="one device only"):
        run(spec_of(save_model(tmp_path / "model"), tmp_path, compile=True), tmp_path)


@pytest.mark.parametrize(
    ("batch", "micro", "count", "passes"), [(8, 8, 1, 1), (8, 2, 1, 4), (8, 2, 2, 2), (8, 2, 3, 2), (6, 4, 1, 2)]
)
def test_a_batch_is_split_into_equal_passes_of_all_devices(batch: int, micro: int, count: int, passes: int) -> None:
    further = ("cpu",) * (count - 1)
    settings = prepare.ResolvedSettings("cpu", "float32", 1, micro, 1, "float32", False, 1, True, 1, further)
    assert settings.micro_batches(batch) == passes
