"""Loading of weights into a transformers model: plain tensors as floats, each quantized layer with its backend.

A quantized layer that is a whole `nn.Linear` takes its place. Layers that are parts of a parameter, such as experts,
take the place of the parameter together (`core.inference.experts`). At most one layer is in memory twice: as stored and
in the representation of its backend.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from core.control import ShouldStop
from core.errors import Cancelled, OutOfMemory, UnsupportedModel, no_memory
from core.events import Emit, Log, Progress
from core.formats.stored import Checkpoint, StoredLayer
from core.inference.backends.backend import LayerFacts
from core.inference.backends.choose import BackendChoice, backend
from core.inference.backends.portable import dense_linear
from core.inference.experts import ExpertWeights, JoinedLinear
from core.inference.memory import memory_errors
from core.model.headers import short
from core.model.skeleton import Skeleton
from core.model.slices import ParameterSlice, Rows
from core.model.towers import tower_of
from core.model.tree import TOWER, Linear, ModelTree
from core.model.weights import read_linear

AGREEMENT = 0.05
"""Largest accepted relative RMS difference between a backend's product and the exact one. A kernel with 8-bit
activations differs by about 0.01, one that misreads the weights by about 1."""
_EXACT = frozenset({"dense", "portable"})


def facts_of(checkpoint: Checkpoint, tree: ModelTree) -> list[LayerFacts]:
    """Return the facts by which backends are chosen for every quantized layer, in the checkpoint's order.

    Layers of towers are not included: they are dequantized when the tower is called. Reads no tensor larger than a
    layer's group indices.
    """
    shapes = {linear.name: (linear.out_features, linear.in_features) for linear in tree.nameable}
    table = checkpoint.dense_table()
    act_order = frozenset(getattr(checkpoint, "act_order", ()))
    found = []
    for name, scheme in checkpoint.schemes.items():
        if tower_of(tree.towers, name) is not None:
            continue
        outputs, inputs = shapes.get(name) or table[checkpoint.weight_name(name)].shape
        found.append(LayerFacts(name, outputs, inputs, scheme, name in act_order))
    return found


def check_shapes(skeleton: Skeleton, checkpoint: Checkpoint) -> None:
    """Check the shape of every tensor of a checkpoint against its config.json; reads headers only.

    Every runner relies on it: compiled code computes addresses from the config. A quantized layer is checked by the
    shape of its dequantized weight. A bias without a parameter in the model must still have the layer's output size.

    Raises:
        UnsupportedModel: a tensor's shape differs from the config's (the message names the first such tensor and both
            shapes), or the number of attention heads is not a multiple of the number of key-value heads.
    """
    _check_heads(skeleton.model.config.get_text_config(decoder=True))
    table = checkpoint.dense_table()
    packed = {checkpoint.weight_name(name) for name in checkpoint.schemes}
    for path, owner in skeleton.model.named_modules():
        for slot, parameter in owner.named_parameters(recurse=False):
            name = f"{path}.{slot}" if path else slot
            shape = skeleton.shapes.get(skeleton.shared_name(name))
            if shape is None:
                continue
            key = skeleton.checkpoint_name(name) or name
            # A quantized layer is [outputs, inputs] even if the model itself stores the transposed weight.
            transposed = type(owner).__name__ == "Conv1D" and key in packed
            _check_shape(key, shape, tuple(parameter.shape)[:: -1 if transposed else 1])
    for linear in skeleton.tree.nameable:
        bias = table.get(f"{linear.name}.bias")
        if bias is not None:
            _check_shape(bias.name, bias.shape, (linear.out_features,))


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise UnsupportedModel(
            f"{short(name)} has the shape {list(found)}, but config.json requires {list(wanted)}.",
            "The config and the weights do not belong together.",
        )


def _check_heads(config: Any) -> None:
    """Refuse head counts that transformers accepts when it builds the model, but with which it cannot compute."""
    values = config.to_dict()  # the attributes of a config with different blocks (Gemma 4) cannot be read
    heads, kv_heads = (values.get(key) for key in ("num_attention_heads", "num_key_value_heads"))
    if type(heads) is int and type(kv_heads) is int and (heads < 1 or kv_heads < 1 or heads % kv_heads):
        raise UnsupportedModel(
            f"config.json has {heads} attention heads, which is not a multiple of its {kv_heads} key-value heads.",
            "The config and the weights do not belong together.",
        )


def needed_bytes(checkpoint: Checkpoint, choice: BackendChoice | None, dtype: torch.dtype | None) -> int:
    """Return the estimated bytes of the loaded weights.

    Args:
        choice: the backend of each layer; None if every layer stays packed.
        dtype: dtype of the plain tensors; None if they keep their stored dtype.
    """
    total = 0
    for name in checkpoint.plain:
        info = checkpoint.store.info(name)
        total += info.nbytes if dtype is None else info.numel * dtype.itemsize
    table = checkpoint.dense_table()
    for name, scheme in checkpoint.schemes.items():
        outputs, inputs = table[checkpoint.weight_name(name)].shape
        # layers of towers have no candidates
        if choice is not None and dtype is not None and choice.candidates.get(name, ("dense",))[0] == "dense":
            total += outputs * inputs * dtype.itemsize
        else:
            total += scheme.weight_bytes(inputs, outputs)
    return total


def fill(
    skeleton: Skeleton,
    checkpoint: Checkpoint,
    build: Callable[[StoredLayer, Tensor | None], nn.Module],
    dtype: torch.dtype,
    device: torch.device,
    emit: Emit,
    should_stop: ShouldStop,
    *,
    packed_parts: bool = True,
) -> None:
    """Load all weights into a model on `meta`, except towers, which are loaded when the model calls them.

    Args:
        build: returns the module for a stored layer and its bias.
        dtype: dtype of the plain tensors.
        packed_parts: use `build` also for layers that are parts of a parameter; otherwise these are unpacked.

    Raises:
        UnsupportedModel, CorruptFile, ModelNotFound: as in `check_shapes`, `Skeleton.fill` and `Checkpoint.layer`.
        OutOfMemory: the weights do not fit into memory.
        Cancelled: `should_stop` returned True.
    """
    check_shapes(skeleton, checkpoint)
    embedding, head = skeleton.ends()
    places = find_places(skeleton, checkpoint)
    if not packed_parts:
        places.parameters.clear()
    skip = [*places.modules.values(), *places.parameters]
    if skeleton.tree.tied:
        skip.append(f"{head}.weight")  # not the bias, which the embedding does not have
    steps = skeleton.tree.blocks + len(places.modules) + sum(len(pieces) for pieces in places.parameters.values())
    progress, done = LoadProgress(emit), itertools.count()

    def step() -> None:
        _check_stop(should_stop)
        progress(next(done), steps)

    def module(name: str, bias: Tensor | None) -> nn.Module:
        step()
        return build(checkpoint.layer(name), bias)

    with memory_errors("Loading the model"):
        _fill_plain(skeleton, skip, dtype, device, step)
        for name, path in places.modules.items():
            bias = f"{name}.bias"
            value = skeleton.store.get(bias) if bias in skeleton.store else None
            skeleton.model.set_submodule(path, module(name, value))
        for parameter, pieces in places.parameters.items():
            layers = [
                module(piece.linear.name, None)
                if piece.linear.name in checkpoint.schemes
                else dense_linear(read_linear(skeleton.store, skeleton.tree, piece.linear).to(device, dtype), None)
                for piece in pieces
            ]
            _replace(skeleton.model, parameter, pieces, layers, dtype)
        if skeleton.tree.tied:
            skeleton.model.get_output_embeddings().weight = skeleton.model.get_submodule(embedding).weight


def _fill_plain(
    skeleton: Skeleton, skip: Sequence[str], dtype: torch.dtype, device: torch.device, step: Callable[[], None]
) -> None:
    """Load all parameters block by block, except the modules and parameters in `skip`; calls `step` for each block."""
    # Grouped by block first, because comparing all layers with every block takes quadratic time.
    of_block: dict[str, list[str]] = {}
    depth = skeleton.stack.count(".") + 2
    for path in skip:
        of_block.setdefault(".".join(path.split(".", depth)[:depth]), []).append(path)
    skeleton.fill("", dtype, device, skip=(skeleton.stack, *skeleton.towers, *skip))
    for path in skeleton.towers:
        skeleton.fill_on_use(path, dtype, device)
    for block in range(skeleton.tree.blocks):
        step()
        path = f"{skeleton.stack}.{block}"
        skeleton.fill(path, dtype, device, skip=tuple(of_block.get(path, ())))


@dataclass(frozen=True)
class Piece:
    """A linear layer of the checkpoint that is a part of a parameter."""

    linear: Linear
    place: ParameterSlice


@dataclass(frozen=True)
class LayerPlaces:
    """The places of the quantized layers of a checkpoint in a model.

    Attributes:
        modules: layer that is a whole module -> path of the module.
        parameters: name of a parameter of which parts are quantized layers -> all of its parts.
    """

    modules: dict[str, str]
    parameters: dict[str, list[Piece]]


def find_places(skeleton: Skeleton, checkpoint: Checkpoint) -> LayerPlaces:
    """Return the places of the quantized layers whose products a backend can compute.

    The others are unpacked when the model is filled: weights that transformers divides between parameters, and those of
    modules with a forward pass of their own, such as routers.
    """
    modules: dict[str, str] = {}
    parameters: dict[str, list[Piece]] = {}
    quantized: set[str] = set()
    # Ordered by projection within a block, because `slices` is fast for layers of the same parameter.
    for linear in sorted(skeleton.tree.nameable, key=lambda linear: (linear.block, linear.kind.rpartition(".")[2])):
        if linear.block == TOWER:
            continue
        packed = linear.name in checkpoint.schemes
        if linear == skeleton.tree.tied_head:
            if packed:
                modules[linear.name] = skeleton.module_name(linear.name)
            continue
        try:
            places = skeleton.slices(linear)
        except UnsupportedModel:
            if packed:
                raise
            continue
        place = places[0]
        if len(places) > 1 or place.of != slice(None):
            continue
        path = place.parameter.rpartition(".")[0]
        is_linear = isinstance(skeleton.model.get_submodule(path), nn.Linear | Conv1D)
        if place.expert is None and place.rows == slice(None):
            if packed and is_linear:
                modules[linear.name] = path
        elif place.expert is not None or is_linear:
            parameters.setdefault(place.parameter, []).append(Piece(linear, place))
            if packed:
                quantized.add(place.parameter)
    for name in [*parameters]:
        matrices = sum(piece.linear.in_features * piece.linear.out_features for piece in parameters[name])
        if name not in quantized or matrices != skeleton.model.get_parameter(name).numel():
            del parameters[name]
    return LayerPlaces(modules, parameters)


def _replace(
    model: nn.Module, parameter: str, pieces: Sequence[Piece], layers: Sequence[nn.Module], dtype: torch.dtype
) -> None:
    """Replace a parameter, or the linear layer that it is the weight of, by the layers of its parts."""
    path, _, slot = parameter.rpartition(".")
    owner = model.get_submodule(path)
    shape = owner.get_parameter(slot).shape
    groups: dict[int, list[tuple[Rows, nn.Module]]] = {}
    for piece, layer in zip(pieces, layers, strict=True):
        groups.setdefault(piece.place.expert or 0, []).append((piece.place.rows, layer))
    outputs = sum(piece.linear.out_features for piece in pieces) // len(groups)
    experts = [_joined(groups[expert], outputs) for expert in sorted(groups)]
    if pieces[0].place.expert is None:
        bias: Tensor | None = owner.bias  # type: ignore[assignment]
        model.set_submodule(path, JoinedLinear(experts, [slice(None)], outputs, bias))
        return
    del owner._parameters[slot]
    owner.add_module(slot, ExpertWeights(experts, shape, pieces[0].place.transposed, dtype))
    config = getattr(owner, "config", None)
    if config is not None:
        config._experts_implementation = "eager"  # the loop over the experts that tokens use


def _joined(parts: Sequence[tuple[Rows, nn.Module]], height: int) -> nn.Module:
    rows, layers = zip(*parts, strict=True)
    return layers[0] if len(layers) == 1 else JoinedLinear(layers, rows, height)


class Builder:
    """Builder of layers from the chosen backends; a backend that fails or computes wrong values is not used again."""

    def __init__(self, choice: BackendChoice, dtype: torch.dtype, emit: Emit) -> None:
        self._choice, self._dtype, self._emit = choice, dtype, emit
        self._verified: set[tuple[str, Any]] = set()

    def __call__(self, layer: StoredLayer, bias: Tensor | None) -> nn.Module:
        """Build the layer with the first of its backends that succeeds."""
        *others, last = self._choice.candidates[layer.name]
        for name in others:
            if name in self._choice.failed:
                continue
            try:
                module = self._build_checked(name, layer, bias)
            except OutOfMemory:
                raise
            except Exception as error:  # third-party libraries raise arbitrary exceptions
                if no_memory(error):
                    raise
                self._disable(name, layer.name, str(error).strip().splitlines()[:1] or [type(error).__name__])
                continue
            self._choice.taken[name] += 1
            return module
        module = backend(last).build(layer, bias, self._choice.device, self._dtype)
        self._choice.taken[last] += 1
        return module

    def _build_checked(self, name: str, layer: StoredLayer, bias: Tensor | None) -> nn.Module:
        """Build the layer with the backend `name`, and check the product for the first layer of each kind.

        Raises:
            ValueError: the product differs from the exact one by more than AGREEMENT.
        """
        module = backend(name).build(layer, bias, self._choice.device, self._dtype)
        kind = (name, (layer.scheme, getattr(layer, "g_idx", None) is None))
        if name not in _EXACT and kind not in self._verified:
            difference = disagreement(module, layer, bias, self._choice.device.id, self._dtype)
            if not difference <= AGREEMENT:
                raise ValueError(f"its result differs from the exact one by {100 * difference:.3g} %")
            self._verified.add(kind)
        return module

    def _disable(self, name: str, layer: str, message: list[str]) -> None:
        reason = f"It failed at {layer}: {message[0][:200]}"
        self._choice.failed[name] = reason
        self._emit(Log("warning", f"The backend {name} will not be used for further layers. {reason}"))


@torch.inference_mode()
def disagreement(module: nn.Module, layer: StoredLayer, bias: Tensor | None, device: str, dtype: torch.dtype) -> float:
    """Return the relative RMS difference of a layer's product from the exact one, the larger of 1 and 7 rows."""
    generator = torch.Generator().manual_seed(7)
    weight = layer.dequantize()
    worst = 0.0
    for rows in (1, 7):
        x = torch.randn(1, rows, weight.shape[1], generator=generator).to(dtype)
        exact = torch.nn.functional.linear(x.float(), weight, None if bias is None else bias.float())
        found = module(x.to(device)).float().cpu()
        difference = float((found - exact).norm() / exact.norm().clamp_min(1e-30))
        worst = difference if not difference <= worst else worst  # NaN counts as worst
    return worst


def plain_linears(checkpoint: Checkpoint, tree: ModelTree) -> int:
    """Return the number of linears of the language model that are not quantized, the output head included."""
    schemes: Mapping[str, Any] = checkpoint.schemes
    of_text = (linear for linear in tree.linears if linear.block != TOWER)
    return sum(linear.name not in schemes for linear in of_text) + int(tree.tied)


class LoadProgress:
    """Emitter of the progress of loading, at most every 0.5 s."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._began, self._last = emit, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Emit the progress after `done` of `total` steps."""
        now = time.monotonic()
        if not done or now - self._last < 0.5:
            return
        self._last = now
        fraction = done / max(1, total)
        left = (now - self._began) / fraction * (1 - fraction)
        self._emit(Progress(fraction, 0.7 * left, 1.5 * left))


def _check_stop(should_stop: ShouldStop) -> None:
    if should_stop():
        raise Cancelled("Loading was cancelled.")
