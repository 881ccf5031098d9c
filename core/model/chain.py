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
    """Everything besides the hidden states that a block is called with.

    Attributes:
        args, kwargs: as the model gives them for one row.
        repeated: the arguments whose first dimension grows with the rows: positions in `args`, names in `kwargs`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    repeated: frozenset[int | str] = frozenset()

    def __call__(self, block: Callable[..., Any], hidden: Tensor) -> Tensor:
        """Return the hidden states [batch, tokens, width] after `block`."""
        args, kwargs = self.args, self.kwargs
        if self.repeated and len(hidden) > 1:
            args = tuple(_repeat(arg, len(hidden)) if n in self.repeated else arg for n, arg in enumerate(args))
            kwargs = {key: _repeat(arg, len(hidden)) if key in self.repeated else arg for key, arg in kwargs.items()}
        out = block(hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple | list) else out


class _EnoughSeen(Exception):  # noqa: N818 - control flow, not an error
    """Raised by the first block's recorder once its input is known."""


class _WrongReturn(Exception):  # noqa: N818 - control flow, not an error
    """Raised where the model took what a recorder returned for something else."""


_Record = Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Tensor]
_MISTAKEN = (_WrongReturn, IndexError, TypeError, ValueError, RuntimeError, AttributeError)
"""Raised by models that get one tensor where they expect a tuple, or a tuple of another length."""
_RETURNS: tuple[Callable[[Tensor], Any], ...] = (
    lambda hidden: hidden,
    lambda hidden: (hidden,),
    lambda hidden: (hidden, None),
    lambda hidden: (hidden, None, None),
)
"""What blocks return: hidden states alone, or followed by attention weights and by the state of a cache."""


def capture(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> list[BlockCall]:
    """Return how the model calls each of its blocks on sequences as long as `tokens` (int64 [1, tokens]).

    Everything outside the blocks must have its weights. Tensors are shared between layers, as the model does.

    Raises:
        UnsupportedModel: the model does not call its blocks one after the other, once each, with hidden states
            [batch, tokens, width].
    """
    one, two = (_calls(skeleton, tokens.expand(rows, -1).to(device)) for rows in (1, 2))
    return [_simplify(call, twice) for call, twice in zip(one, two, strict=True)]


def first_inputs(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> Tensor:
    """Return the hidden states [batch, tokens, width] that enter block 0 for `tokens` (int64 [batch, tokens])."""
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
    ids = torch.zeros(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
    embedding = skeleton.model.get_input_embeddings()
    weight = embedding.weight
    embedding.weight = nn.Parameter(torch.zeros(1, weight.shape[1], device=hidden.device), requires_grad=False)
    padding, embedding.padding_idx = embedding.padding_idx, None

    def run() -> Tensor:
        with torch.set_grad_enabled(hidden.requires_grad):
            scores: Tensor = skeleton.model(input_ids=ids, use_cache=False).logits
        return scores

    try:
        return _as_returned(skeleton, lambda *_: hidden, run, hidden.shape[:2])
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


def _calls(skeleton: Skeleton, tokens: Tensor) -> list[BlockCall]:
    """Return the calls of all blocks for `tokens` (int64 [batch, tokens]), the blocks handing hidden states through."""
    seen: list[tuple[Tensor, BlockCall]] = []

    def record(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if hidden.shape[:2] != tokens.shape or hidden.dim() != 3:
            raise _unsupported(
                skeleton,
                f"gives its blocks hidden states of the shape {list(hidden.shape)} for {list(tokens.shape)} tokens",
            )
        seen.append((hidden, BlockCall(args, kwargs)))
        return hidden

    def run() -> Tensor:
        seen.clear()
        return _run(skeleton, tokens)

    _as_returned(skeleton, record, run, tokens.shape)
    if len(seen) != skeleton.tree.blocks:
        raise _unsupported(skeleton, "does not run its blocks one after the other, once each")
    return [call for _, call in seen]


def _as_returned(skeleton: Skeleton, record: _Record, run: Callable[[], Tensor], shape: torch.Size) -> Tensor:
    """Run a model whose blocks are replaced by `record`, which returns in the form that the model expects of them.

    A model that expects another form fails, or takes the first row for the hidden states: then the next block gets
    another shape, and the end result has one that does not begin with `shape`.
    """
    for last, wrap in enumerate(_RETURNS, 1 - len(_RETURNS)):
        expected: list[torch.Size] = []

        def forward(
            hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], wrap: Any = wrap, expected: Any = expected
        ) -> Any:
            if expected and hidden.shape != expected[-1]:
                raise _WrongReturn
            out = record(hidden, args, kwargs)
            expected.append(out.shape)
            return wrap(out)

        with _recorders(skeleton, forward):
            try:
                result = run()
            except _MISTAKEN:
                if not last:
                    raise
                continue
        if result.shape[:2] == shape:
            return result
    raise _unsupported(skeleton, "takes the output of its blocks in a form that is not known here")


def _unsupported(skeleton: Skeleton, what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{skeleton.tree.architecture} {what}.", "This architecture is not supported yet.")


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


def _run(skeleton: Skeleton, tokens: Tensor) -> Tensor:
    """Return the last hidden states [batch, tokens, width] of the model without its head."""
    with torch.no_grad():
        out = skeleton.model.base_model(input_ids=tokens, use_cache=False)
    last: Tensor = out[0]
    return last


def _simplify(call: BlockCall, twice: BlockCall) -> BlockCall:
    """Return the call without what only a cache needs; `twice` is the same call for two equal rows."""
    drop = {"past_key_values", "past_key_value", "use_cache", "cache_position"}
    kwargs = {key: value for key, value in call.kwargs.items() if key not in drop}
    places = {n for n, arg in enumerate(call.args) if _grows(arg, twice.args[n])}
    names = {key for key, arg in kwargs.items() if _grows(arg, twice.kwargs[key])}
    return BlockCall(call.args, kwargs, frozenset(places | names))


def _grows(one: Any, two: Any) -> bool:
    """Whether an argument has twice the rows for two rows of text: a mask [rows, 1, tokens, tokens] or the biases of
    ALiBi [rows * heads, 1, tokens]."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.dim() > 0 and two.shape[0] == 2 * one.shape[0] and two.shape[1:] == one.shape[1:]
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return any(_grows(a, b) for a, b in zip(one, two, strict=False))
    return False


def _repeat(arg: Any, rows: int) -> Any:
    """Return an argument for one row as one for `rows` equal rows."""
    if isinstance(arg, Tensor):
        return arg.expand(rows, *arg.shape[1:]) if len(arg) == 1 else arg.repeat(rows, *[1] * (arg.dim() - 1))
    return type(arg)(_repeat(part, rows) for part in arg)
