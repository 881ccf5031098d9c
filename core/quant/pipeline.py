"""One quantization run from spec to verified checkpoint. The only place that knows the order of things.

prepare -> calibrate -> tune (block by block, written as they finish) -> end to end (if the recipe has such steps; the
layers are then written after it) -> write -> verify -> rename into place.
Reports through `emit`, asks `control` whether to stop or pause, and writes nothing outside the job folder and a
staging folder beside the output until the last step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from core.calibration.tokens import Calibration, load
from core.control import Control, check_stop
from core.errors import BadInput
from core.estimation.costs import end_to_end_share
from core.events import BlockDone, BlockStarted, Done, Emit, EndToEnd, LayerStarted, Log, Loss, Progress, Stage, Started
from core.formats.dense_store import DenseStore
from core.formats.gguf.imatrix import InputSums, write_imatrix
from core.formats.gguf.tensor_map import map_tensors
from core.formats.stored import StoredLayer
from core.inference.evaluate import loss_increase, summarize
from core.inference.memory import give_back_memory
from core.model.block_runner import BlockChain, LanguageCall, capture, embedding_rows, fill_outside, first_inputs
from core.model.context import ASSUMED, context_length
from core.model.replaced import ReplacedStore
from core.model.skeleton import build_skeleton
from core.model.tree import HEAD, TOWER, build_tree
from core.model.weights import TensorStore
from core.quant import heldout
from core.quant.activations import Activations
from core.quant.block_tuning import TuningResult
from core.quant.blocks import BlockJob, quantize_block, stored_layers
from core.quant.end_to_end.kept_blocks import KeptBlock, Storage
from core.quant.end_to_end.norms import norms_in_place
from core.quant.end_to_end.stage import LearnedModel, learn, obstacle
from core.quant.head import quantize_head
from core.quant.output import Output
from core.quant.picture_rows import PictureRow, language_calls, picture_rows
from core.quant.prepare import PreparedRun, prepare, settings_of
from core.quant.progress import BEFORE_BLOCKS, BlockProgress
from core.quant.proof import SourceProof, check_range, prove, two_rows
from core.quant.report import BlockFigures, PerplexityResult, make_report
from core.quant.sample_activations import CarriedOutputs, ModelActivations, SampleActivations, Side
from core.quant.start.groups import LayerErrors
from core.quant.streamed_head import streamed_head
from core.quant.tower_layers import round_tower_layer
from core.quant.verify import VerificationResult, WrittenCheckpoint, check_answers, check_layers
from core.spec import JobSpec
from core.wording import human


@dataclass(frozen=True)
class _Run:
    """State that the steps of a run share."""

    spec: JobSpec
    folder: Path
    ready: PreparedRun
    blocks: BlockJob
    output: Output
    emit: Emit
    control: Control
    meter: BlockProgress


def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Run a quantization job; the last event is `Done`.

    Args:
        job: folder of the job; caches that do not fit into memory are stored there and removed.

    Raises:
        BitwrightError: the run failed; the output folder is unchanged.
        Cancelled: `control` requested a stop.
    """
    started = time.monotonic()
    emit(Stage("prepare"))
    ready = prepare(spec, job, emit, control.should_stop)
    check_stop(control.should_stop)
    emit(_started(spec, ready))
    emit(Stage("calibrate"))
    calibration = load(
        spec.calibration,
        ready.tokenizer,
        spec.recipe.samples,
        spec.recipe.seqlen,
        spec.seed,
        emit,
        vocab_size=ready.tree.tensors[f"{ready.tree.embedding}.weight"].shape[0],
        should_stop=control.should_stop,
    )
    _check_lengths(ready, calibration)
    pictures = _picture_rows(spec, ready, calibration, emit, control)
    chain = _prove(spec, ready, calibration, pictures, emit, control)
    rows = embedding_rows(ready.skeleton, torch.float32, ready.resolved.torch_device)
    with Output(spec, job, ready, emit) as output, rows:
        running = _begin(spec, job, ready, chain, output, emit, control)
        entered = _enter(running, calibration, pictures)
        figures, kept, inputs = _tune_all(running, entered)
        if spec.save_imatrix:
            write_imatrix(
                Path(spec.save_imatrix), inputs, map_tensors(ready.tree), spec.calibration, *calibration.tokens.shape
            )
        head = _finish_head(running, entered.calibration[0])
        _finish_towers(running)
        learned = _end_to_end(running, kept, head, entered) if kept else None
        entered.calibration.clear()  # frees the memory of the samples for the head
        unseen = entered.unseen.tokens
        measured = _score(running, entered.unseen, head, learned)
        emit(Stage("write"))
        expected = ready.store if learned is None else ReplacedStore(ready.store, learned.tensors)
        output.finish_files(expected, control.should_stop)
        emit(Stage("verify"))
        verified = _verify(running, unseen, expected, 0 if learned is None else len(learned.tensors))
        ready.store.confirm(lambda: check_stop(control.should_stop))
        seconds = time.monotonic() - started
        report = make_report(spec, ready, calibration, figures, measured, verified, output, seconds)
        report["calibration"]["pictures"] = len(pictures)
        if learned is not None:
            report["end_to_end"] = learned.result.to_json()
        output.publish(report)
    emit(Done(output=spec.output, seconds=time.monotonic() - started, report=report))


@dataclass(frozen=True)
class _Entered:
    """Activations of a run, which advance from block to block.

    Attributes:
        calibration: of the samples of text, and of those with pictures if there are any.
        unseen: of the held-out windows.
    """

    calibration: list[SampleActivations]
    unseen: SampleActivations


def _started(spec: JobSpec, ready: PreparedRun) -> Started:
    return Started(
        model=ready.source.label,
        blocks=ready.tree.blocks,
        linears=sum(item.scheme.quantized for item in ready.plans),
        parameters=ready.tree.parameters,
        device=ready.resolved.device,
        dtype=ready.resolved.dtype,
        threads=ready.resolved.threads,
        settings={
            **settings_of(spec, ready.resolved),
            "source_bytes": ready.source.file_bytes or ready.tree.nbytes,
            "planned_bytes": {name: item.nbytes for name, item in ready.formats.items()},
        },
    )


def _begin(
    spec: JobSpec,
    job: Path,
    ready: PreparedRun,
    chain: BlockChain,
    output: Output,
    emit: Emit,
    control: Control,
) -> _Run:
    """Return the state that the steps of a run share."""
    recipe = spec.recipe
    keep = _kept_levels(spec, ready, chain, job, emit)
    share = 0.0 if keep is None else end_to_end_share(ready.tree, recipe)
    meter = BlockProgress(ready.tree.blocks, recipe.iters, emit, steps=recipe.end_to_end, share=share)
    blocks = BlockJob(
        spec=spec,
        resolved=ready.resolved,
        chain=chain,
        min_zero=max(item.min_zero for item in ready.formats.values()),
        should_stop=control.should_stop,
        keep=keep,
        importance=ready.importance,
        on_loss=lambda block, iteration, loss: _on_loss(emit, meter, recipe.iters, block, iteration, loss),
        on_layer=lambda block, errors: _on_layer(emit, meter, block, errors),
    )
    return _Run(spec, job, ready, blocks, output, emit, control, meter)


def _on_loss(emit: Emit, meter: BlockProgress, iterations: int, block: int, iteration: int, loss: float) -> None:
    emit(Loss(block=block, iteration=iteration, iterations=iterations, loss=loss))
    meter.at(block, iteration)


def _on_layer(emit: Emit, meter: BlockProgress, block: int, errors: LayerErrors) -> None:
    emit(LayerStarted(block=block, layer=errors.layer, error_before=errors.before, error_after=errors.after))
    meter.layer_started(block)


def _check_lengths(ready: PreparedRun, calibration: Calibration) -> None:
    longest = context_length(ready.tree.config) or ASSUMED
    length = calibration.tokens.shape[1]
    if length > longest:
        raise BadInput(
            f"The context length of the model is {longest} tokens, but seqlen is {length}.", f"Use --seqlen {longest}."
        )


def _picture_rows(
    spec: JobSpec, ready: PreparedRun, calibration: Calibration, emit: Emit, control: Control
) -> list[PictureRow]:
    """Return the calibration samples with pictures; none unless the job has pairs of pictures and text."""
    if not spec.pictures:
        return []
    folder, tokens = ready.source.folder, calibration.tokens
    rows = picture_rows(Path(spec.pictures), folder, ready.tokenizer, tokens, spec.seed, emit, control.should_stop)
    emit(Log("info", f"{len(rows)} samples with pictures are used besides {len(tokens)} samples of text."))
    return rows


def _prove(
    spec: JobSpec,
    ready: PreparedRun,
    calibration: Calibration,
    pictures: list[PictureRow],
    emit: Emit,
    control: Control,
) -> BlockChain:
    """Read every tensor once, and compare each block, run separately, with the whole model."""
    tree, store = ready.tree, ready.store
    emit(Log("info", f"Checking {human(tree.nbytes)} of weights, and each block separately against the whole model"))

    def step() -> None:
        check_stop(control.should_stop)
        emit(Progress(BEFORE_BLOCKS * store.nbytes_read / max(1, tree.nbytes), -1.0, -1.0))

    chain = prove(
        SourceProof(
            skeleton=ready.skeleton,
            store=store,
            tokens=two_rows(calibration.tokens, tree.tensors[f"{tree.embedding}.weight"].shape[0]),
            device=ready.resolved.torch_device,
            batched=ready.resolved.micro_batch > 1,
            step=step,
            pictures=tuple(pictures[:1]),
        )
    )
    weights = [tree.weight_of(item.linear) for item in ready.plans if item.scheme.quantized]
    check_range(store, weights, ready.resolved.compute_dtype)
    return chain


def _enter(running: _Run, calibration: Calibration, pictures: list[PictureRow]) -> _Entered:
    """Return the inputs of block 0 for the calibration samples and the held-out windows."""
    ready, resolved = running.ready, running.ready.resolved
    unseen = heldout.windows(ready.tokenizer, context_length(ready.tree.config) or ASSUMED)
    skeleton, device = ready.skeleton, resolved.torch_device
    fill_outside(skeleton, torch.float32, device)
    text = _inputs(running, "calibration", calibration.tokens, resolved.micro_batch)
    windows = _inputs(running, "unseen", unseen, 1)
    if not pictures:
        return _Entered([text], windows)
    calls = list(language_calls(skeleton, pictures, device, lambda: check_stop(running.control.should_stop)))
    tokens = torch.cat([row.tokens for row in pictures])
    return _Entered([text, _inputs(running, "pictures", tokens, 1, calls)], windows)


def _inputs(
    running: _Run, name: str, tokens: Tensor, batch: int, languages: Sequence[LanguageCall] = ()
) -> SampleActivations:
    """Return the activations of samples with the inputs of block 0; arguments as in `SampleActivations`."""
    skeleton, chain, device = running.ready.skeleton, running.blocks.chain, running.ready.resolved.torch_device

    def entering(part: slice) -> Tensor:
        language = languages[part.start] if languages else None
        return chain.rows_first(first_inputs(skeleton, tokens[part], device, language))

    shape = (len(tokens), *entering(slice(0, 1)).shape[1:])
    original, quantized = (_empty_activations(running, shape, f"{name}-{side}") for side in get_args(Side))
    calls = [] if chain.varies or languages else capture(chain, tokens[:1], device)
    activations = SampleActivations(tokens, original, quantized, calls, batch, languages)
    for part in activations.slices():
        check_stop(running.control.should_stop)
        hidden = entering(part)
        original.hidden.write(part, hidden)
        quantized.hidden.write(part, hidden)
    return activations


def _empty_activations(running: _Run, shape: tuple[int, ...], name: str) -> ModelActivations:
    """Return storage for activations, [samples, ...], in memory or in files whose names start with `name`."""
    resolved, folder = running.ready.resolved, running.folder
    dtype: torch.dtype = getattr(torch, resolved.cache_dtype)

    def file(rest: str) -> Path | None:
        return folder / f"{name}{rest}.cache" if resolved.spill else None

    carried = CarriedOutputs(shape[0], dtype, lambda key: file(f"-{key.block}-{key.leaf}"))
    return ModelActivations(Activations(shape, dtype, file("")), carried)


def _tune_all(running: _Run, entered: _Entered) -> tuple[list[BlockFigures], list[KeptBlock], dict[str, InputSums]]:
    """Quantize all blocks in order; write them, or keep them for the end-to-end stage.

    Returns:
        The results of all blocks, the blocks that were kept, and the inputs of layers for an importance matrix.
    """
    ready, emit = running.ready, running.emit
    figures: list[BlockFigures] = []
    kept: list[KeptBlock] = []
    inputs: dict[str, InputSums] = {}
    emit(Stage("tune"))
    give_back_memory()
    for block in range(ready.tree.blocks):
        running.control.wait_while_paused()
        check_stop(running.control.should_stop)
        plans = ready.quantized(block)
        name = f"{ready.tree.prefix}.{block}"
        emit(BlockStarted(block=block, total=ready.tree.blocks, name=name, linears=tuple(x.linear.kind for x in plans)))
        begun = time.monotonic()
        result = quantize_block(running.blocks, block, plans, entered.calibration, [entered.unseen])
        if result.kept is not None:
            kept.append(result.kept)
        inputs.update(result.inputs)
        for layer in result.layers:
            running.output.write(layer)
        seconds = time.monotonic() - begun
        _block_done(running, block, result.outcome, seconds)
        figures.append(BlockFigures(name, result.outcome, seconds, result.experts))
        running.meter.block_done(block, seconds)
    return figures, kept, inputs


def _kept_levels(spec: JobSpec, ready: PreparedRun, chain: BlockChain, job: Path, emit: Emit) -> Storage | None:
    """Return the storage for the blocks until the end-to-end stage; None without one.

    The reason is logged if the recipe has such a stage and it cannot run.
    """
    if not spec.recipe.end_to_end:
        return None
    reason = obstacle(spec, chain, ready.plans)
    if reason:
        emit(Log("warning", f"The end-to-end stage is skipped: {reason}."))
        return None
    return Storage(job if ready.resolved.spill else None)


def _end_to_end(running: _Run, kept: list[KeptBlock], head: StoredLayer | None, entered: _Entered) -> LearnedModel:
    """Learn the scales of all kept blocks and the norms on the samples of text, and write the layers."""
    emit, meter, steps = running.emit, running.meter, running.spec.recipe.end_to_end
    emit(Stage("end to end"))

    def on_step(step: int, divergence: float) -> None:
        emit(EndToEnd(step=step, steps=steps, kl=divergence))
        meter.step_done(step)

    formats = list(running.ready.formats.values())
    text, unseen = entered.calibration[0], entered.unseen
    learned = learn(running.blocks, kept, head, formats, text, unseen, on_step, running.control)
    result = learned.result
    if not result.kept:
        emit(Log("warning", "The end-to-end steps did not reduce the KL divergence; the scales before them were kept."))
    for block in kept:
        for layer in stored_layers(block.parts(), block.plans):
            check_stop(running.control.should_stop)
            running.output.write(layer)
    return learned


def _finish_head(running: _Run, activations: SampleActivations) -> StoredLayer | None:
    """Quantize and write the output head if the bits map names it; a tied head gets a copy of the embedding."""
    for item in running.ready.quantized(HEAD):
        running.emit(Log("info", f"{item.linear.name}: {item.scheme.label()}, {item.why}"))
        layer = quantize_head(running.blocks, item, activations)
        running.output.write(layer)
        return layer
    return None


def _finish_towers(running: _Run) -> None:
    """Quantize and write the layers of towers that the bits map names."""
    items = running.ready.quantized(TOWER)
    if items:
        found = "one layer of a tower is" if len(items) == 1 else f"{len(items)} layers of towers are"
        running.emit(Log("info", f"{found} rounded to nearest with searched scales, without calibration"))
    for item in items:
        check_stop(running.control.should_stop)
        running.output.write(round_tower_layer(running.blocks, item))


def _block_done(running: _Run, block: int, outcome: TuningResult, seconds: float) -> None:
    if outcome.diverged:
        running.emit(Log("warning", f"Block {block}: {_divergence(outcome, running.spec.recipe.iters)}"))
    running.emit(
        BlockDone(
            block=block,
            total=running.ready.tree.blocks,
            loss_before=outcome.loss_before,
            loss_after=outcome.loss_after,
            best_iteration=outcome.best_iteration,
            seconds=seconds,
        )
    )


def _divergence(outcome: TuningResult, iterations: int) -> str:
    kept = f"the rounding of step {outcome.best_iteration}" if outcome.best_iteration else "plain rounding"
    if not outcome.diverged_at:
        return f"the loss of plain rounding is not finite (NaN or infinity); {kept} was kept"
    where = f"step {outcome.diverged_at} of {iterations}"
    return f"the loss was not finite (NaN or infinity) at {where}, which ended the tuning; {kept} was kept"


def _score(
    running: _Run,
    activations: SampleActivations,
    head: StoredLayer | None,
    learned: LearnedModel | None,
) -> PerplexityResult:
    """Return the perplexities of the original and of the quantized model on the held-out windows."""
    norms = norms_in_place(running.ready.skeleton, {} if learned is None else learned.outside)
    with streamed_head(running.blocks):
        before = heldout.token_losses(running.blocks, activations, "original")
        if head is None:
            with norms:
                after = heldout.token_losses(running.blocks, activations, "quantized")
    if head is not None:
        with streamed_head(running.blocks, head), norms:
            after = heldout.token_losses(running.blocks, activations, "quantized")
    embedding = running.ready.tree.tensors[f"{running.ready.tree.embedding}.weight"]
    return PerplexityResult(
        summarize(before, activations.tokens),
        summarize(after, activations.tokens),
        *loss_increase(before, after),
        embedding.shape[0],
    )


def _verify(running: _Run, unseen: Tensor, expected: TensorStore, changed: int) -> dict[str, VerificationResult]:
    """Read back and run the output of each format.

    Args:
        expected: the tensors that are not quantized layers.
        changed: number of them that differ from the source.
    """
    ready, output, should_stop = running.ready, running.output, running.control.should_stop
    results = {}
    for name, folder in output.folders.items():
        plan = ready.formats[name]
        written = plan.open(folder)
        check_layers(written, output.digests[name], should_stop)
        plan.check_rest(written, expected, should_stop)
        # Conv1D of transformers stores [in, out]
        store = DenseStore(written, transposed=[x.name for x in ready.tree.linears if x.transposed and x.part is None])
        skeleton = build_skeleton(build_tree(ready.tree.config, store.table), store)
        chain = running.blocks.chain.of(skeleton)
        perplexity, sample = check_answers(
            WrittenCheckpoint(replace(running.blocks, chain=chain, shared={}), written), unseen, ready.tokenizer
        )
        results[name] = VerificationResult(
            len(output.digests[name]),
            len(plan.copied) - len(plan.rounded) - changed,
            dict(plan.rounded),
            perplexity,
            sample,
        )
    return results
