"""Filling a model with weights: floats as they are, each quantized layer by the backend that was chosen for it.

One layer is in memory twice at a time: as it is read and as its backend keeps it. Knows no text and no cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, OutOfMemory, UnsupportedModel, no_memory
from core.events import Emit, Log, Progress
from core.formats.stored import Checkpoint, Stored
from core.inference.backends.backend import LayerFacts
from core.inference.backends.choose import Choice, backend
from core.inference.memory import memory_errors
from core.model.headers import short
from core.model.skeleton import Skeleton
from core.model.tree import ModelTree

AGREEMENT = 0.05
"""Largest relative difference of a backend's product from the exact one, root mean square: a kernel with 8-bit
activations is off by 0.01, one that means other numbers by 1."""
_EXACT = frozenset({"dense", "portable"})


def facts_of(checkpoint: Checkpoint, tree: ModelTree) -> list[LayerFacts]:
    """What backends decide by, of every quantized layer, in the checkpoint's order; reads lists of groups at most."""
    shapes = {linear.name: (linear.out_features, linear.in_features) for linear in tree.nameable}
    table = checkpoint.dense_table()
    ordered = frozenset(getattr(checkpoint, "shuffled", ()))
    found = []
    for name, scheme in checkpoint.schemes.items():
        outputs, inputs = shapes.get(name) or table[f"{name}.weight"].shape
        found.append(LayerFacts(name, outputs, inputs, scheme, name in ordered))
    return found


def check_shapes(skeleton: Skeleton, checkpoint: Checkpoint) -> None:
    """Hold the shape of every tensor of a checkpoint against its config.json, from headers alone.

    Whatever runs the model relies on it: compiled code computes addresses from the config. Quantized layers count with
    the shape of the weight that they stand for. A bias that the model has no place for still has the layer's outputs.

    Raises:
        UnsupportedModel: a tensor has another shape than the config says, or attention heads that cannot be shared
            out; the first one, by name, with both shapes.
    """
    _check_heads(skeleton.model.config.get_text_config(decoder=True))
    table = checkpoint.dense_table()
    packed = {skeleton.module_name(name): f"{name}.weight" for name in checkpoint.schemes}
    for path, owner in skeleton.model.named_modules():
        for slot, parameter in owner.named_parameters(recurse=False):
            quantized = packed.get(path) if slot == "weight" else None
            key = quantized or skeleton.checkpoint_name(f"{path}.{slot}" if path else slot)
            if key is not None and key in table:
                # A quantized layer is [outputs, inputs], whatever the model would have stored.
                turned = quantized and type(owner).__name__ == "Conv1D"
                _check_shape(key, table[key].shape, tuple(parameter.shape)[:: -1 if turned else 1])
    for linear in skeleton.tree.nameable:
        bias = table.get(f"{linear.name}.bias")
        if bias is not None:
            _check_shape(bias.name, bias.shape, (linear.out_features,))


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise UnsupportedModel(
            f"{short(name)} has the shape {list(found)}, but config.json says {list(wanted)}.",
            "The config and the weights do not belong together.",
        )


def _check_heads(config: Any) -> None:
    """Refuse what transformers builds and then fails to compute: queries that cannot be shared out among keys."""
    heads, groups = (getattr(config, key, None) for key in ("num_attention_heads", "num_key_value_heads"))
    if type(heads) is int and type(groups) is int and (heads < 1 or groups < 1 or heads % groups):
        raise UnsupportedModel(
            f"config.json says {heads} attention heads and {groups} key-value heads, which do not divide them.",
            "The config and the weights do not belong together.",
        )


def needed_bytes(checkpoint: Checkpoint, choice: Choice | None, dtype: torch.dtype | None) -> int:
    """About what the weights will take in memory.

    Args:
        choice: of backends; without one, every layer stays packed.
        dtype: of plain tensors; None leaves them as they are stored.
    """
    total = 0
    for name in checkpoint.plain:
        info = checkpoint.store.info(name)
        total += info.nbytes if dtype is None else info.numel * dtype.itemsize
    table = checkpoint.dense_table()
    for name, scheme in checkpoint.schemes.items():
        outputs, inputs = table[f"{name}.weight"].shape
        if choice is not None and dtype is not None and choice.candidates[name][0] == "dense":
            total += outputs * inputs * dtype.itemsize
        else:
            total += scheme.weight_bytes(inputs, outputs)
    return total


def fill(
    skeleton: Skeleton,
    checkpoint: Checkpoint,
    build: Callable[[Stored, Tensor | None], nn.Module],
    dtype: torch.dtype,
    device: torch.device,
    emit: Emit,
    should_stop: ShouldStop,
) -> None:
    """Give a model on `meta` all its weights: plain ones in `dtype`, quantized ones as `build` makes them.

    Raises:
        UnsupportedModel, CorruptFile, ModelNotFound: as `check_shapes`, `Skeleton.fill` and `Checkpoint.layer`.
        OutOfMemory: there is no room.
        Cancelled: `should_stop` said so.
    """
    check_shapes(skeleton, checkpoint)
    names = list(checkpoint.schemes)
    embedding, head = skeleton.ends()
    skip = [skeleton.module_name(name) for name in names]
    if skeleton.tree.tied:
        skip.append(f"{head}.weight")  # and not the bias, which is no part of the embedding
    blocks = skeleton.tree.blocks
    # to hold the names of all layers against those of every block would take the square of their number
    of_block: dict[str, list[str]] = {}
    depth = skeleton.stack.count(".") + 2
    for path in skip:
        of_block.setdefault(".".join(path.split(".", depth)[:depth]), []).append(path)
    told, steps = Told(emit), blocks + len(names)
    with memory_errors("Loading the model"):
        skeleton.fill("", dtype, device, skip=(skeleton.stack, *skip))
        for block in range(blocks):
            _look(should_stop)
            told(block, steps)
            place = f"{skeleton.stack}.{block}"
            skeleton.fill(place, dtype, device, skip=tuple(of_block.get(place, ())))
        for done, name in enumerate(names, blocks):
            _look(should_stop)
            told(done, steps)
            bias = f"{name}.bias"
            value = skeleton.store.get(bias) if bias in skeleton.store else None
            skeleton.model.set_submodule(skeleton.module_name(name), build(checkpoint.layer(name), value))
        if skeleton.tree.tied:
            skeleton.model.get_output_embeddings().weight = skeleton.model.get_submodule(embedding).weight


class Builder:
    """Makes layers by the backends of a choice; one that fails, or computes something else, is not asked again."""

    def __init__(self, choice: Choice, dtype: torch.dtype, emit: Emit) -> None:
        self._choice, self._dtype, self._emit = choice, dtype, emit
        self._sound: set[tuple[str, Any]] = set()

    def __call__(self, layer: Stored, bias: Tensor | None) -> nn.Module:
        """The layer, by the first of its backends that can."""
        *others, last = self._choice.candidates[layer.name]
        for name in others:
            if name in self._choice.failed:
                continue
            try:
                module = self._built(name, layer, bias)
            except OutOfMemory:
                raise
            except Exception as error:  # other people's libraries fail in every way there is
                if no_memory(error):
                    raise
                self._give_up(name, layer.name, str(error).strip().splitlines()[:1] or [type(error).__name__])
                continue
            self._choice.taken[name] += 1
            return module
        module = backend(last).build(layer, bias, self._choice.device, self._dtype)
        self._choice.taken[last] += 1
        return module

    def _built(self, name: str, layer: Stored, bias: Tensor | None) -> nn.Module:
        module = backend(name).build(layer, bias, self._choice.device, self._dtype)
        kind = (name, (layer.scheme, getattr(layer, "g_idx", None) is None))
        if name not in _EXACT and kind not in self._sound:
            apart = disagreement(module, layer, bias, self._choice.device.id, self._dtype)
            if not apart <= AGREEMENT:
                raise ValueError(f"it computes something else, {100 * apart:.3g} % apart")
            self._sound.add(kind)
        return module

    def _give_up(self, name: str, layer: str, why: list[str]) -> None:
        reason = f"It failed at {layer}: {why[0][:200]}"
        self._choice.failed[name] = reason
        self._emit(Log("warning", f"The backend {name} is not used further. {reason}"))


@torch.inference_mode()
def disagreement(module: nn.Module, layer: Stored, bias: Tensor | None, device: str, dtype: torch.dtype) -> float:
    """Relative difference, root mean square, of a layer's product from the exact one, for one row and for seven."""
    generator = torch.Generator().manual_seed(7)
    weight = layer.dequantize()
    worst = 0.0
    for rows in (1, 7):
        x = torch.randn(1, rows, weight.shape[1], generator=generator).to(dtype)
        exact = torch.nn.functional.linear(x.float(), weight, None if bias is None else bias.float())
        found = module(x.to(device)).float().cpu()
        apart = float((found - exact).norm() / exact.norm().clamp_min(1e-30))
        worst = apart if not apart <= worst else worst  # NaN counts as worst
    return worst


def plain_linears(checkpoint: Checkpoint, tree: ModelTree) -> int:
    """Linears of the model that are not quantized, the output head among them."""
    schemes: Mapping[str, Any] = checkpoint.schemes
    return sum(linear.name not in schemes for linear in tree.linears) + int(tree.tied)


class Told:
    """Tells of the progress of loading, at most twice a second."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._began, self._last = emit, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So many steps of all are done."""
        now = time.monotonic()
        if not done or now - self._last < 0.5:
            return
        self._last = now
        fraction = done / max(1, total)
        left = (now - self._began) / fraction * (1 - fraction)
        self._emit(Progress(fraction, 0.7 * left, 1.5 * left))


def _look(should_stop: ShouldStop) -> None:
    if should_stop():
        raise Cancelled("Loading was cancelled.")
