"""Quantization of one block: its original outputs, tuning, integers, and the outputs of the quantized block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, DeviceProblem
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.carry import as_integers
from core.formats.gguf.imatrix import InputSums
from core.formats.stored import StoredLayer
from core.home import private_folder
from core.model.block_runner import BlockCall, BlockChain, products_in
from core.model.skeleton import Skeleton
from core.model.tree import LayerPlan
from core.quant.block_tuning import Tuning, TuningResult, tune_block
from core.quant.end_to_end.kept_blocks import KeptBlock, Storage, keep_block
from core.quant.grid_groups import (
    RowGroup,
    divided,
    expert_tokens,
    grid_scheme,
    group_rows,
    make_grid,
    recorded_parameters,
    starts,
)
from core.quant.input_statistics import InputStatistics
from core.quant.parameter_grid import GridRows, ParameterGrid, joined
from core.quant.prepare import ResolvedSettings
from core.quant.replicas import Replicas
from core.quant.sample_activations import SampleActivations, Side, TuningSamples
from core.quant.start.groups import LayerErrors, start_groups
from core.quant.start.levels import Levels
from core.report.experts import MixtureTokens
from core.spec import JobSpec


@dataclass(frozen=True)
class BlockJob:
    """Settings and model that all blocks of a run share.

    Attributes:
        chain: the blocks of the model.
        on_loss: receives the block, the iteration (from 1) and its minibatch loss.
        on_layer: receives the block, and the errors of a layer whose start was found.
        keep: storage in which blocks are kept for the end-to-end stage; None for a run without it.
        importance: mean squares of the inputs of linear layers by name, from an importance matrix that was given.
        shared: quantized parameters of earlier blocks that other blocks share (Zamba), by their names.
    """

    spec: JobSpec
    resolved: ResolvedSettings
    chain: BlockChain
    min_zero: int
    should_stop: ShouldStop
    on_loss: Callable[[int, int, float], None]
    on_layer: Callable[[int, LayerErrors], None]
    keep: Storage | None = None
    importance: Mapping[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)

    @property
    def skeleton(self) -> Skeleton:
        """The model."""
        return self.chain.skeleton


@dataclass(frozen=True)
class QuantizedBlock:
    """The result of quantizing one block.

    Attributes:
        layers: its quantized layers; empty if the block is kept.
        outcome: of the tuning.
        experts: experts of the block and the tokens that they got; empty for a block without experts.
        kept: its grids for the end-to-end stage; None for a run without it.
        inputs: of its linear layers by name, for an importance matrix that the run writes.
    """

    layers: list[StoredLayer]
    outcome: TuningResult
    experts: list[MixtureTokens]
    kept: KeptBlock | None = None
    inputs: Mapping[str, InputSums] = field(default_factory=dict)


def quantize_block(
    job: BlockJob,
    block: int,
    plans: list[LayerPlan],
    calibration: Sequence[SampleActivations],
    others: Sequence[SampleActivations],
) -> QuantizedBlock:
    """Advance all activations through block number `block`, and quantize its layers.

    The block is tuned on the samples of `calibration`, of text and of pictures; `others` only pass through it.

    Raises:
        Cancelled: a stop was requested.
        CorruptFile: the files of the model changed during the run.
    """
    path, device, skeleton = f"{job.skeleton.stack}.{block}", job.resolved.torch_device, job.skeleton
    places = [(item, skeleton.slices(item.linear)) for item in plans]
    names = {place.parameter for _, found in places for place in found}
    module = skeleton.fill(path, torch.float32, device, stored=names)
    try:
        originals = {name: skeleton.model.get_parameter(name).data for name in names}
        working = {name: _replaced(skeleton, name, job.resolved.compute_dtype) for name in names}
        pieces = group_rows(places)
        wanted = recorded_parameters(pieces, working, job.spec)
        batches = sum(len(list(activations.slices())) for activations in calibration)
        recorded = InputStatistics({working[name]: experts for name, experts in wanted.items()}, batches)
        with recorded.recording():
            _advance_all(job, block, module, calibration, "original")
        _advance_all(job, block, module, others, "original")
        groups = list(divided(pieces, recorded, working, job.spec))
        _use_shared(job, block)
        levels = _levels(job, block, groups, originals, working, lambda: observe(job, block, module, calibration))
        layers = [
            make_grid(
                group,
                originals[group.parameter],
                working[group.parameter],
                recorded,
                level,
                job.spec,
                job.min_zero,
                job.importance,
            )
            for group, level in zip(groups, levels, strict=True)
        ]
        originals.clear()  # the grids hold what they need
        outcome = _tune(job, block, module, layers, TuningSamples(calibration))
        kept = None if job.keep is None else keep_block(plans, layers, working, job.keep)
        parts = (part for layer in layers for part in layer.layers())
        frozen = stored_layers(parts, plans) if kept is None else []
        _advance_all(job, block, module, (*calibration, *others), "quantized")
        job.shared.update({name: working[name].data.cpu() for name in names & skeleton.shared_parameters})
        experts = expert_tokens(pieces, recorded, working, layers)
        inputs = _input_sums(pieces, recorded, working) if job.spec.save_imatrix else {}
        return QuantizedBlock(frozen, outcome, experts, kept, inputs)
    finally:
        skeleton.unload(path)


def _levels(
    job: BlockJob,
    block: int,
    groups: list[RowGroup],
    originals: Mapping[str, Tensor],
    working: Mapping[str, Tensor],
    run: Callable[[], None],
) -> list[Levels | None]:
    """Return the levels of each group with a start; `run` runs the block on the calibration samples."""
    wanted = [group for group in groups if starts(group, job.spec)]
    found = iter(
        start_groups(
            wanted,
            originals,
            working,
            run,
            lambda group: grid_scheme(job.spec, group.rows[0].item),
            job.min_zero,
            job.resolved.gram_bytes,
            job.should_stop,
            lambda errors: job.on_layer(block, errors),
        )
    )
    return [next(found) if starts(group, job.spec) else None for group in groups]


def _input_sums(
    groups: list[RowGroup], recorded: InputStatistics, parameters: Mapping[str, Tensor]
) -> dict[str, InputSums]:
    found = {}
    for group in groups:
        for part in group.rows:
            sums = recorded.sums(parameters[group.parameter], part.place.expert or 0)
            if sums is not None:
                found[part.item.linear.name] = InputSums(sums[0].cpu(), sums[1])
    return found


def _replaced(skeleton: Skeleton, name: str, dtype: torch.dtype) -> nn.Parameter:
    """Replace a parameter of the model by a copy in `dtype`, which is returned."""
    values = skeleton.model.get_parameter(name).data.to(dtype, copy=True).contiguous()
    parameter = nn.Parameter(values, requires_grad=False)
    skeleton.replace(name, parameter)
    return parameter


def _use_shared(job: BlockJob, block: int) -> None:
    """Put the quantized parameters of earlier blocks into a block that shares them."""
    for name, parameter in job.skeleton.blocks[block].named_parameters(prefix=f"{job.skeleton.stack}.{block}"):
        quantized = job.shared.get(job.skeleton.shared_name(name))
        if quantized is not None:
            parameter.data.copy_(quantized)


def advance(job: BlockJob, block: int, module: nn.Module, activations: SampleActivations, side: Side) -> None:
    """Advance the activations of one model through a block, in place."""
    for part in activations.slices():
        hidden, call = activations.inputs(job.chain, block, part, side, job.resolved.torch_device)
        activations.write(job.chain, block, part, side, forward(job, call, module, hidden))
    activations.release(job.chain, block, side)


def _advance_all(job: BlockJob, block: int, module: nn.Module, sets: Iterable[SampleActivations], side: Side) -> None:
    for activations in sets:
        advance(job, block, module, activations, side)


def observe(job: BlockJob, block: int, module: nn.Module, calibration: Sequence[SampleActivations]) -> None:
    """Run a block on the activations of the quantized model, which stay as they are."""
    for activations in calibration:
        for part in activations.slices():
            hidden, call = activations.inputs(job.chain, block, part, "quantized", job.resolved.torch_device)
            forward(job, call, module, hidden)


def forward(job: BlockJob, call: BlockCall, module: nn.Module, hidden: Tensor) -> list[Tensor]:
    """Return the outputs of a block without gradients, after a check for a requested stop."""
    if job.should_stop():
        raise Cancelled("The run was cancelled.")
    with torch.no_grad(), precision(job.resolved):
        return call.outputs(module, hidden)


def precision(resolved: ResolvedSettings) -> contextlib.AbstractContextManager[object]:
    """Return a context in which matrix products run in the compute dtype of the run."""
    return products_in(resolved.compute_dtype, resolved.torch_device)


def stored_layers(rows: Iterable[tuple[GridRows, StoredLayer]], plans: list[LayerPlan]) -> list[StoredLayer]:
    """Return the quantized layers with the schemes of their plans, in the order of the plans.

    Args:
        rows: of all layers.
    """
    parts: dict[str, list[tuple[GridRows, StoredLayer]]] = {}
    for place, layer in rows:
        parts.setdefault(place.item.linear.name, []).append((place, layer))
    found = []
    for item in plans:
        stored = joined(parts[item.linear.name])
        found.append(as_integers(stored) if isinstance(stored, BlockLinear) and not item.scheme.type else stored)
    return found


def _tune(
    job: BlockJob, block: int, module: nn.Module, layers: list[ParameterGrid], samples: TuningSamples
) -> TuningResult:
    device = job.resolved.torch_device
    with _outputs(job, block, module, layers, samples) as outputs:
        return tune_block(
            layers,
            outputs,
            lambda index: samples.targets(index, device),
            len(samples),
            _tuning(job, block, len(samples)),
            lambda iteration, loss: job.on_loss(block, iteration, loss),
            job.should_stop,
        )


@contextlib.contextmanager
def _outputs(
    job: BlockJob, block: int, module: nn.Module, layers: list[ParameterGrid], samples: TuningSamples
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function that returns the outputs of a block for sample indices, computed on all devices of the run."""
    devices = job.resolved.tuning_devices

    def inputs(index: Tensor) -> tuple[Tensor, BlockCall]:
        return samples.inputs(job.chain, block, index, devices[0])

    def run(called: Callable[..., object], hidden: Tensor, call: BlockCall) -> Tensor:
        with precision(job.resolved):
            return job.chain.rows_first(call(called, hidden))

    if len(devices) == 1:
        called = _compiled(module) if job.spec.compile else module
        yield lambda index: run(called, *inputs(index))
        return
    parameters = {id(layer.parameter): layer.parameter for layer in layers}
    with contextlib.closing(Replicas(module, list(parameters.values()), devices)) as replicas:
        yield lambda index: replicas.outputs([inputs(part) for part in index.chunk(len(devices))], run)


def _tuning(job: BlockJob, block: int, samples: int) -> Tuning:
    recipe = job.spec.recipe
    batch = min(recipe.batch_size, samples)
    split, devices = job.resolved.micro_batches(batch), len(job.resolved.tuning_devices)
    return Tuning(recipe.iters, batch, recipe.accumulate, job.spec.seed + block, split, devices)


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
