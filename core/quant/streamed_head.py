"""A replacement of the output head that is computed in slices of the vocabulary.

A head with 262,144 rows is a third of a small model; converted to the dtype of the products it would determine the
peak memory of a run. It therefore stays as stored (16 bits, or integers), and each slice of rows is converted when it
is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.formats.stored import StoredLayer, by_rows
from core.inference.memory import give_back_memory
from core.quant.blocks import BlockJob

_PIECE = 1 << 22
"""Weights per slice."""


class StreamedHead(nn.Module):
    """A linear layer y = x W^T + b whose weight W, [vocab_size, hidden_size], is converted in slices for each pass.

    Args:
        pieces: returns an iterator over the rows of W in order, float [rows, hidden_size].
        shape: shape of W.
    """

    def __init__(
        self,
        pieces: Callable[[], Iterator[Tensor]],
        shape: tuple[int, int],
        bias: Tensor | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._pieces, self._dtype, self._device = pieces, dtype, device
        self.out_features, self.in_features = shape
        # Some models read the dtype of the head; the values are never used.
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.to(device, dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)  # some models are captured together with their head, without autocast
        out, start = None, 0
        for piece in self._pieces():
            end = start + len(piece)
            bias = None if self.bias is None else self.bias[start:end]
            part = functional.linear(x, piece.to(self._device, self._dtype), bias)
            if out is None:
                out = part.new_empty(*part.shape[:-1], self.out_features)
            out[..., start:end] = part
            start = end
        assert out is not None
        return out

    def in_memory(self) -> StreamedHead:
        """Return a head with the same slices, which stay in memory in the dtype of the products."""
        pieces = [piece.to(self._device, self._dtype) for piece in self._pieces()]
        shape = (self.out_features, self.in_features)
        return StreamedHead(lambda: iter(pieces), shape, self.bias, self._dtype, self._device)


@contextlib.contextmanager
def streamed_head(job: BlockJob, layer: StoredLayer | None = None) -> Iterator[None]:
    """Load the head of the job's model for the duration of the context.

    Args:
        layer: the quantized head; None for that of the job's checkpoint.
    """
    skeleton, resolved = job.skeleton, job.resolved
    path = skeleton.head()
    own = skeleton.model.get_submodule(path)
    if layer is None and not isinstance(own, nn.Linear):
        skeleton.fill(path, resolved.compute_dtype, resolved.torch_device)
        try:
            yield
        finally:
            skeleton.unload(path)
        return
    names = {f"{path}.bias", *((f"{layer.name}.bias",) if layer is not None else ())}
    stored = next((key for name in names if (key := skeleton.checkpoint_name(name)) is not None), None)
    bias = None if stored is None else skeleton.store.get(stored)
    if layer is not None:
        pieces, shape = _of_layer(layer)
    else:
        pieces, shape = _of_store(job, f"{path}.weight")
    skeleton.model.set_submodule(path, StreamedHead(pieces, shape, bias, resolved.compute_dtype, resolved.torch_device))
    try:
        yield
    finally:
        skeleton.model.set_submodule(path, own)
        give_back_memory()


def _of_layer(layer: StoredLayer) -> tuple[Callable[[], Iterator[Tensor]], tuple[int, int]]:
    rows, columns = layer.ints.shape
    return lambda: by_rows(layer, max(1, _PIECE // columns)), (rows, columns)


def _of_store(job: BlockJob, name: str) -> tuple[Callable[[], Iterator[Tensor]], tuple[int, int]]:
    """Return the slices of a stored head: from memory with up to 16 bits, otherwise from the file."""
    store = job.skeleton.store
    key = job.skeleton.checkpoint_name(name)
    if key is None:
        raise ValueError(f"the checkpoint has no {name}")
    info = store.info(key)
    rows, columns = info.shape
    step = max(1, _PIECE // columns)
    if info.nbytes <= 2 * info.numel:
        weight = store.get(key)
        return lambda: iter(weight.split(step)), (rows, columns)
    starts = range(0, rows, step)
    return lambda: (store.rows(key, torch.arange(start, min(rows, start + step))) for start in starts), (rows, columns)
