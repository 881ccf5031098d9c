"""Running a causal LM block by block: what enters the first block, with which arguments, and what leaves each.

The model's own forward makes the masks and rotary tables; its blocks are replaced for one pass by recorders
that hand the hidden states through. So every kind of layer (sliding, full, local rotary) gets exactly the
arguments the model would give it, captured once and shared by all samples. Knows nothing of quantization.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UnsupportedModel
from core.model.skeleton import Skeleton


@dataclass(frozen=True)
class BlockCall:
    """Everything besides the hidden states that a block is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, block: Callable[..., Any], hidden: Tensor) -> Tensor:
        """Hidden states [batch, tokens, width] after `block`."""
        out = block(hidden, *self.args, **self.kwargs)
        return out[0] if isinstance(out, tuple) else out


class _EnoughSeen(Exception):  # noqa: N818 - control flow, not an error
    """Raised by the first block's recorder once its input is known."""


def capture(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> list[BlockCall]:
    """How the model calls each of its blocks on sequences as long as `tokens` (int64 [1, tokens]).

    Everything outside the blocks must have its weights. Tensors are shared between layers, as the model does.

    Raises:
        UnsupportedModel: the model does not call its blocks one after the other, once each.
    """
    for as_tuple in (False, True):
        seen: list[tuple[Tensor, BlockCall]] = []

        def record(
            hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], wrap: bool = as_tuple, seen: Any = seen
        ) -> Any:
            seen.append((hidden, BlockCall(args, kwargs)))
            return (hidden,) if wrap else hidden

        with _recorders(skeleton, record):
            # A model that expects tuples fails or strips a dimension when handed a bare tensor; then tuples it is.
            try:
                _run(skeleton, tokens.to(device))
            except (IndexError, TypeError, ValueError, RuntimeError, AttributeError):
                if as_tuple:
                    raise
                continue
        if len(seen) == skeleton.tree.blocks and all(hidden.shape == seen[0][0].shape for hidden, _ in seen):
            return [_simplify(call) for _, call in seen]
    raise UnsupportedModel(
        f"{skeleton.tree.architecture} does not run its blocks one after the other.",
        "This architecture is not supported yet.",
    )


def first_inputs(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> Tensor:
    """Hidden states [batch, tokens, width] that enter block 0 for `tokens` (int64 [batch, tokens])."""
    caught: list[Tensor] = []

    def record(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        caught.append(hidden)
        raise _EnoughSeen

    with _recorders(skeleton, record), contextlib.suppress(_EnoughSeen):
        _run(skeleton, tokens.to(device))
    return caught[0]


def logits(skeleton: Skeleton, hidden: Tensor) -> Tensor:
    """Logits [batch, tokens, vocabulary] from the last block's output, by the model's own ending (norm, projections,
    soft-capping): its forward runs with all blocks replaced by one that returns `hidden`. Gradients flow where `hidden`
    asks for them."""

    def replay(_: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return hidden

    ids = torch.zeros(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
    embedding = skeleton.model.get_input_embeddings()
    weight = embedding.weight
    embedding.weight = nn.Parameter(torch.zeros(1, weight.shape[1], device=hidden.device), requires_grad=False)
    padding, embedding.padding_idx = embedding.padding_idx, None
    try:
        with _recorders(skeleton, replay), torch.set_grad_enabled(hidden.requires_grad):
            return skeleton.model(input_ids=ids, use_cache=False).logits
    finally:
        embedding.weight, embedding.padding_idx = weight, padding


def products_in(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Matrix products in `dtype`; the residual stream stays fp32, since in 16 bits the rounding of its few huge
    channels outweighs the errors of quantization."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=False)


@contextlib.contextmanager
def only_rows(skeleton: Skeleton, tokens: Tensor, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Give the input embedding just the rows that `tokens` use: a vocabulary can outweigh many blocks."""
    embedding = skeleton.model.get_input_embeddings()
    used, _ = torch.unique(tokens).sort()
    key = skeleton.tree.embedding + ".weight"
    rows = skeleton.store.rows(key, used).to(device, dtype)
    index = torch.zeros(int(used[-1]) + 1, dtype=torch.int64, device=device)
    index[used.to(device)] = torch.arange(len(used), device=device)

    padding, weight = embedding.padding_idx, embedding.weight
    embedding.padding_idx = None
    embedding.weight = nn.Parameter(rows, requires_grad=False)
    hook = embedding.register_forward_pre_hook(lambda module, args: (index[args[0]], *args[1:]))
    try:
        yield
    finally:
        hook.remove()
        embedding.padding_idx, embedding.weight = padding, weight


@contextlib.contextmanager
def _recorders(skeleton: Skeleton, record: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Replace the forward of every block; the module stays, since models read attributes of their layers."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        if args:
            return record(args[0], args[1:], kwargs)
        return record(kwargs.pop("hidden_states"), (), kwargs)

    blocks = list(skeleton.blocks)
    for block in blocks:
        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _run(skeleton: Skeleton, tokens: Tensor) -> None:
    with torch.no_grad():
        skeleton.model.base_model(input_ids=tokens, use_cache=False)


def _simplify(call: BlockCall) -> BlockCall:
    """The call without what only a cache needs."""
    drop = {"past_key_values", "past_key_value", "use_cache", "cache_position"}
    return BlockCall(call.args, {key: value for key, value in call.kwargs.items() if key not in drop})
