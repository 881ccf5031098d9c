"""Quantization of one block: its original outputs, tuning, integers, and the outputs of the quantized block.

Each set of samples has two sets of hidden states: the activations of the original and of the quantized model.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, DeviceProblem
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.carry import as_integers
from core.formats.gguf.mixes import tuned_as
from core.formats.grids import named_mix
from core.formats.stored import StoredLayer
from core.home import private_folder
from core.model.block_runner import BlockCall, products_in
from core.model.linear import TunedLinear
from core.model.skeleton import Skeleton
from core.model.tree import LayerPlan, Linear
from core.quant.activations import Activations
from core.quant.grid import freeze, new_grid
from core.quant.prepare import ResolvedSettings
from core.quant.rtn import search_scale, searchable
from core.quant.signround import TunedLayer, Tuning, TuningResult, tune_block
from core.recipes import Recipe
from core.schemes import LayerScheme
from core.spec import JobSpec


@dataclass(frozen=True)
class SampleActivations:
    """Activations of the original and of the quantized model for samples of one length.

    Attributes:
        original, quantized: hidden states after the last processed block.
        calls: arguments of each block for sequences of this length.
        batch: samples per forward pass.
    """

    original: Activations
    quantized: Activations
    calls: list[BlockCall]
    batch: int

    def slices(self) -> Iterator[slice]:
        """Return the slices of samples that make up the batches."""
        count = len(self.original)
        return (slice(start, min(count, start + self.batch)) for start in range(0, count, self.batch))


@dataclass(frozen=True)
class BlockJob:
    """Settings and model that all blocks of a run share."""

    spec: JobSpec
    resolved: ResolvedSettings
    skeleton: Skeleton
    min_zero: int
    should_stop: ShouldStop
    on_loss: Callable[[int, int, float], None]


def quantize_block(
    job: BlockJob, block: int, plans: list[LayerPlan], activation_sets: list[SampleActivations]
) -> tuple[list[StoredLayer], TuningResult]:
    """Advance all activations through block number `block`, and return its quantized layers.

    The block is tuned on the first activation set; the others only pass through it.

    Raises:
        Cancelled: a stop was requested.
        CorruptFile: the files of the model changed during the run.
    """
    path, device = f"{job.skeleton.stack}.{block}", job.resolved.torch_device
    names = {item.linear.name: job.skeleton.module_name(item.linear.name) for item in plans}
    module = job.skeleton.fill(path, torch.float32, device, skip=tuple(names.values()))
    try:
        weights = {item.linear.name: read_weight(job.skeleton, item.linear, device) for item in plans}
        linears = {name: insert_linear(job, name, weight) for name, weight in weights.items()}
        weighed = [linears[item.linear.name] for item in plans if _weighed(job.spec.recipe, _grid_of(job, item))]
        _advance_original(job, block, module, weighed, activation_sets)
        layers = [_layer(job, item, weights[item.linear.name], linears[item.linear.name]) for item in plans]
        outcome = _tune(job, block, module, layers, activation_sets[0])
        frozen = [_frozen(layer, item) for layer, item in zip(layers, plans, strict=True)]
        for activations in activation_sets:
            for part in activations.slices():
                activations.quantized.write(
                    part,
                    forward(
                        job,
                        activations.calls[block],
                        module,
                        activations.quantized.read(part, job.resolved.torch_device),
                    ),
                )
        return frozen, outcome
    finally:
        job.skeleton.unload(path)


def forward(job: BlockJob, call: BlockCall, module: nn.Module, hidden: Tensor) -> Tensor:
    """Run a block without gradients, after a check for a requested stop."""
    if job.should_stop():
        raise Cancelled("The run was cancelled.")
    with torch.no_grad(), precision(job.resolved):
        return call(module, hidden)


def precision(resolved: ResolvedSettings) -> contextlib.AbstractContextManager[object]:
    """Return a context in which matrix products run in the compute dtype of the run."""
    return products_in(resolved.compute_dtype, resolved.torch_device)


def read_weight(skeleton: Skeleton, linear: Linear, device: torch.device) -> Tensor:
    """Return the weight of a layer as [out, in], in its own dtype, on the device."""
    weight = skeleton.store.get(skeleton.tree.weight_of(linear)).to(device)
    return weight.t().contiguous() if linear.transposed else weight


def insert_linear(job: BlockJob, name: str, weight: Tensor) -> TunedLinear:
    """Replace a linear layer of the model by a `TunedLinear` with `weight` ([out, in]) and the same bias."""
    bias, device, skeleton = f"{name}.bias", job.resolved.torch_device, job.skeleton
    value = skeleton.store.get(bias).to(device, torch.float32) if bias in skeleton.store else None
    linear = TunedLinear(weight.to(device, job.resolved.compute_dtype, copy=True), value)
    skeleton.model.set_submodule(skeleton.module_name(name), linear)
    return linear


def _advance_original(
    job: BlockJob, block: int, module: nn.Module, weighed: list[TunedLinear], activation_sets: list[SampleActivations]
) -> None:
    """Advance the original model's activations through the block, in place; measure the inputs of `weighed` layers."""
    for number, activations in enumerate(activation_sets):
        for linear in weighed:
            linear.gather = number == 0
        for part in activations.slices():
            hidden = activations.original.read(part, job.resolved.torch_device)
            activations.original.write(part, forward(job, activations.calls[block], module, hidden))
    for linear in weighed:
        linear.gather = False


def _weighed(recipe: Recipe, scheme: LayerScheme) -> bool:
    """Return whether the search for the layer's scales is weighted by the mean square of each input.

    For block types it always is, unless the recipe uses no calibration text.
    """
    if scheme.type:
        return recipe.search_scale or recipe.iters > 0
    return recipe.search_scale and searchable(scheme)


def _layer(job: BlockJob, item: LayerPlan, weight: Tensor, linear: TunedLinear) -> TunedLayer:
    recipe, importance, scheme = job.spec.recipe, linear.importance(), _grid_of(job, item)
    searched = None
    if recipe.search_scale and searchable(scheme):
        searched = search_scale(weight, scheme, importance)
    grid = new_grid(
        weight,
        scheme,
        iterations=recipe.iters,
        rate=recipe.learning_rate(item.scheme.bits),
        min_zero=job.min_zero,
        searched=searched,
        importance=importance,
    )
    return TunedLayer(grid, linear, recipe.range_rate(item.scheme.bits))


def _grid_of(job: BlockJob, item: LayerPlan) -> LayerScheme:
    """Return the scheme whose grid is tuned: that of the layer, or Q4_0 if an output of that type is requested.

    Both represent the same values. The scales of the type are searched and then fixed, which gave a loss 10 to 13 %
    lower than tuned ranges (blocks 5 and 20 of SmolLM2-135M, 100 steps).
    """
    plain = tuned_as("q4_0")
    return LayerScheme.of_type("q4_0") if item.scheme == plain and named_mix(job.spec.formats) else item.scheme


def _frozen(layer: TunedLayer, item: LayerPlan) -> StoredLayer:
    """Return the quantized layer with the scheme of its plan."""
    found = freeze(layer.grid, item.linear.name)
    return found if item.scheme.type or not isinstance(found, BlockLinear) else as_integers(found)


def _tune(
    job: BlockJob, block: int, module: nn.Module, layers: list[TunedLayer], activations: SampleActivations
) -> TuningResult:
    device = job.resolved.torch_device
    call = activations.calls[block]
    run = _compiled(module) if job.spec.compile else module

    def through(hidden: Tensor) -> Tensor:
        with precision(job.resolved):
            return call(run, hidden)

    return tune_block(
        layers,
        through,
        lambda index: activations.quantized.read(index, device),
        lambda index: activations.original.read(index, device),
        len(activations.original),
        Tuning(job.spec.recipe.iters, job.resolved.micro_batch, job.resolved.accumulate, job.spec.seed + block),
        lambda iteration, loss: job.on_loss(block, iteration, loss),
        job.should_stop,
    )


def _compiled(module: nn.Module) -> Callable[..., object]:
    """Return the block compiled by torch.compile; a failure of its compiler raises `DeviceProblem`."""
    from torch._dynamo.exc import TorchDynamoException

    with contextlib.suppress(OSError):
        # The default, /tmp/torchinductor_USER, can be created by another user, whose files would be loaded.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(private_folder("inductor")))
    compiled = torch.compile(module)

    def run(*args: object, **kwargs: object) -> object:
        try:
            return compiled(*args, **kwargs)
        except TorchDynamoException as error:
            raise DeviceProblem(
                "torch.compile failed to compile a block of this model.",
                "Run without --compile. (Some compilers fail on paths with spaces.)",
            ) from error

    return run
