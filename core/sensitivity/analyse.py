"""Measurement of a model's sensitivity: from a spec to a cached table of loss increases.

The passes through the model are in `core.sensitivity.passes`, the formulas in `core.sensitivity.measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.calibration.tokens import load
from core.control import ShouldStop, check_stop
from core.errors import BadInput, Cancelled, UnsupportedModel
from core.events import Emit, Stage
from core.formats.dequantized.source import read_source
from core.formats.dequantized.store import open_store
from core.formats.opened import open_source
from core.inference.devices import choose, probe_dtype
from core.inference.memory import give_back_memory
from core.model.block_runner import BlockChain
from core.model.context import ASSUMED, context_length
from core.model.fingerprint import FingerprintedStore
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.tree import Linear, ModelTree
from core.model.weights import read_linear
from core.quant.proof import SourceProof, check_range, prove, two_rows
from core.schemes import LayerScheme
from core.sensitivity import cache, measures
from core.sensitivity.meter import PassProgress
from core.sensitivity.passes import CapturedActivations, Pass, backward, forward, open_pass
from core.sensitivity.spec import AnalysisSpec
from core.sensitivity.table import SensitivityTable

_BATCH = 4


def analyse(spec: AnalysisSpec, emit: Emit, should_stop: ShouldStop) -> SensitivityTable:
    """Return the loss increase of every linear layer of the blocks for every scheme of `spec`; emits `Progress`.

    The model is processed block by block: memory holds one block with the inputs and gradients of its layers, and the
    hidden states are in a file.

    Raises:
        BitwrightError: The model or the text cannot be used; `Cancelled` after a stop.
    """
    emit(Stage("prepare"))
    source = open_source(spec.model, emit, should_stop)
    cached = cache.find(spec, source.folder)
    if cached is not None:
        return cached
    tensors = read_source(source.folder)
    tree = tensors.tree()
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows the layers of the model.")
    store = FingerprintedStore(open_store(source.folder, tensors, tree.tensors))
    skeleton = build_skeleton(tree, store)
    skeleton.check()
    tokens = _tokens(spec, source.folder, tree, emit, should_stop)
    device = choose(spec.device)
    dtype = getattr(torch, probe_dtype(device).dtype)
    chain = _prove(skeleton, store, tokens, torch.device(device.id), should_stop)
    check_range(store, sorted({tree.weight_of(linear) for linear in tree.linears if linear.block >= 0}), dtype)
    emit(Stage("analyse"))
    meter = PassProgress(emit, tree.blocks, 0 if spec.measure == "output" else tree.blocks)

    def step() -> None:
        give_back_memory()
        meter.step()

    with open_pass(
        chain, tokens, cache.writable_folder(), torch.device(device.id), dtype,
        min(_BATCH, len(tokens)), should_stop, step,
    ) as model_pass:  # fmt: skip
        rows = _measure(spec, model_pass)
    layers = tuple(linear.name for linear in tree.linears if linear.name in rows)
    table = SensitivityTable(spec.measure, layers, spec.schemes, tuple(rows[name] for name in layers))
    cache.save(spec, source.folder, table)
    return table


def _prove(
    skeleton: Skeleton, store: FingerprintedStore, tokens: Tensor, device: torch.device, should_stop: ShouldStop
) -> BlockChain:
    tree = skeleton.tree
    rows = two_rows(tokens, tree.tensors[f"{tree.embedding}.weight"].shape[0])

    def step() -> None:
        check_stop(should_stop, "The analysis was cancelled.")

    return prove(SourceProof(skeleton, store, rows, device, len(tokens) > 1, step))


def _measure(spec: AnalysisSpec, model_pass: Pass) -> dict[str, tuple[float, ...]]:
    """Return the loss increases of every layer, one value per scheme."""
    rows: dict[str, tuple[float, ...]] = {}
    linears = {linear.name: linear for linear in model_pass.skeleton.tree.linears}

    def visit(captured: Mapping[str, CapturedActivations]) -> None:
        for name, activations in captured.items():
            if model_pass.should_stop():
                raise Cancelled("The analysis was cancelled.")
            rows[name] = _row(spec, model_pass, linears[name], activations)

    if spec.measure == "output":
        forward(model_pass, visit)
        return rows
    forward(model_pass)
    for _block, captured in backward(model_pass, _labels(spec)):
        visit(captured)
    return rows


def _row(spec: AnalysisSpec, model_pass: Pass, linear: Linear, activations: CapturedActivations) -> tuple[float, ...]:
    skeleton = model_pass.skeleton
    weight = read_linear(skeleton.store, skeleton.tree, linear).to(model_pass.device)
    fitted = [scheme.fit(linear.in_features, linear.out_features)[0] for scheme in spec.schemes]
    found = {scheme: _loss_increase(spec.measure, scheme, weight, activations) for scheme in set(fitted)}
    return tuple(found[scheme] for scheme in fitted)


def _loss_increase(measure: str, scheme: LayerScheme, weight: Tensor, activations: CapturedActivations) -> float:
    if not scheme.quantized:
        return 0.0
    error = measures.error_of(weight, scheme)
    if measure == "output":
        return measures.output(activations, weight, error)
    if measure == "first-order":
        return measures.first_order(activations, error)
    return measures.TUNED * measures.fisher(activations, error)


def _labels(spec: AnalysisSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that provides the labels: sampled from the model's predictions for `fisher`, else the text.

    The function takes logits [tokens, vocabulary] and the next tokens [tokens], and returns labels [tokens].
    """
    generator = torch.Generator().manual_seed(spec.seed)

    def sampled(scores: Tensor, _following: Tensor) -> Tensor:
        return torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(scores.device)

    def from_text(_scores: Tensor, following: Tensor) -> Tensor:
        return following

    return sampled if spec.measure == "fisher" else from_text


def _tokens(spec: AnalysisSpec, folder: Path, tree: ModelTree, emit: Emit, should_stop: ShouldStop) -> Tensor:
    longest = context_length(tree.config) or ASSUMED
    if spec.seqlen > longest:
        raise BadInput(
            f"The context of the model is at most {longest} tokens, and seqlen is {spec.seqlen}.",
            "Use a shorter sequence length.",
        )
    return load(
        spec.calibration,
        load_tokenizer(folder),
        spec.samples,
        spec.seqlen,
        spec.seed,
        emit,
        vocab_size=tree.tensors[f"{tree.embedding}.weight"].shape[0],
        should_stop=should_stop,
    ).tokens
