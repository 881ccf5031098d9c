"""Block-by-block execution of a causal language model: the inputs, arguments and outputs of its decoder blocks.

The model's own forward computes the masks and rotary tables. For one pass, its blocks are replaced by recorders that
return the hidden states unchanged. Every type of layer (sliding attention, full attention, local RoPE) therefore gets
exactly the arguments that the model would pass to it; they are captured once and shared by all samples.
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
    """The arguments of a block other than the hidden states.

    Attributes:
        args, kwargs: as the model passes them for a batch of one sequence.
        repeated: arguments whose first dimension grows with the batch: positions in `args`, names in `kwargs`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    repeated: frozenset[int | str] = frozenset()

    def __call__(self, block: Callable[..., Any], hidden: Tensor) -> Tensor:
        """Run `block` on hidden states [batch, tokens, hidden_size] and return its output, of the same shape."""
        args, kwargs = self.args, self.kwargs
        if self.repeated and len(hidden) > 1:
            args = tuple(_repeat(arg, len(hidden)) if n in self.repeated else arg for n, arg in enumerate(args))
            kwargs = {key: _repeat(arg, len(hidden)) if key in self.repeated else arg for key, arg in kwargs.items()}
        out = block(hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple | list) else out


class _InputCaptured(Exception):  # noqa: N818 - control flow, not an error
    """Raised by the recorder of the first block as soon as it has the input."""


class _WrongReturn(Exception):  # noqa: N818 - control flow, not an error
    """Raised when the model does not take the return value of a recorder for hidden states."""


_Record = Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Tensor]
_MISTAKEN = (_WrongReturn, IndexError, TypeError, ValueError, RuntimeError, AttributeError)
"""Exceptions of models that get a tensor where they expect a tuple, or a tuple of another length."""
_RETURNS: tuple[Callable[[Tensor], Any], ...] = (
    lambda hidden: hidden,
    lambda hidden: (hidden,),
    lambda hidden: (hidden, None),
    lambda hidden: (hidden, None, None),
)
"""Return values of blocks: the hidden states alone, or a tuple with attention weights and the state of a cache."""


def capture(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> list[BlockCall]:
    """Return the arguments that the model passes to each block for sequences as long as `tokens` (int64 [1, tokens]).

    All modules outside the blocks must have their weights. Layers share argument tensors as they do in the model.

    Raises:
        UnsupportedModel: the model does not call its blocks one after the other, once each, with hidden states
            [batch, tokens, hidden_size].
    """
    one, two = (_calls(skeleton, tokens.expand(rows, -1).to(device)) for rows in (1, 2))
    return [_simplify(call, twice) for call, twice in zip(one, two, strict=True)]


def first_inputs(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> Tensor:
    """Return the input of block 0, [batch, tokens, hidden_size], for `tokens` (int64 [batch, tokens])."""
    caught: list[Tensor] = []

    def record(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        caught.append(hidden)
        raise _InputCaptured

    with _recorders(skeleton, record), contextlib.suppress(_InputCaptured):
        _run(skeleton, tokens.to(device))
    return caught[0]


def logits(skeleton: Skeleton, hidden: Tensor) -> Tensor:
    """Return the logits [batch, tokens, vocab_size] for `hidden`, the output of the last block.

    The model's forward runs with every block replaced by a function that returns `hidden`, so that the final norm,
    projections and soft-capping are the model's own. Gradients are computed if `hidden` requires them.
    """
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
    """Return a context in which matrix products run in `dtype`.

    The residual stream stays in fp32: in 16 bits, the rounding of its few very large channels would exceed the
    quantization error.
    """
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=False)


@contextlib.contextmanager
def only_rows(skeleton: Skeleton, tokens: Tensor, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Load only the rows of the input embedding that `tokens` use; the whole table can be larger than many blocks."""
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
    """Return the calls of all blocks for `tokens` (int64 [batch, tokens]); the blocks return their input unchanged."""
    seen: list[tuple[Tensor, BlockCall]] = []

    def record(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if hidden.shape[:2] != tokens.shape or hidden.dim() != 3:
            raise _unsupported(
                skeleton,
                f"passes hidden states of shape {list(hidden.shape)} to its blocks for {list(tokens.shape)} tokens",
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
    """Run a model with its blocks replaced by `record`, trying each form of return value that blocks have.

    With the wrong form, the model fails or takes the first row for the hidden states. In the latter case the next
    block gets another shape, and the shape of the result does not start with `shape`.
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
    raise _unsupported(skeleton, "expects an unknown form of return value from its blocks")


def _unsupported(skeleton: Skeleton, what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{skeleton.tree.architecture} {what}.", "This architecture is not supported yet.")


@contextlib.contextmanager
def _recorders(skeleton: Skeleton, record: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Replace the forward of every block. The modules stay, since models read attributes of their layers."""

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
    """Return the last hidden states [batch, tokens, hidden_size] of the model without its head."""
    with torch.no_grad():
        out = skeleton.model.base_model(input_ids=tokens, use_cache=False)
    last: Tensor = out[0]
    return last


def _simplify(call: BlockCall, twice: BlockCall) -> BlockCall:
    """Return the call without the arguments of the KV cache; `twice` is the same call for a batch of two."""
    drop = {"past_key_values", "past_key_value", "use_cache", "cache_position"}
    kwargs = {key: value for key, value in call.kwargs.items() if key not in drop}
    places = {n for n, arg in enumerate(call.args) if _grows(arg, twice.args[n])}
    names = {key for key, arg in kwargs.items() if _grows(arg, twice.kwargs[key])}
    return BlockCall(call.args, kwargs, frozenset(places | names))


def _grows(one: Any, two: Any) -> bool:
    """Return whether an argument doubles its first dimension for a batch of two.

    Examples are a mask [batch, 1, tokens, tokens] and ALiBi biases [batch * heads, 1, tokens].
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.dim() > 0 and two.shape[0] == 2 * one.shape[0] and two.shape[1:] == one.shape[1:]
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return any(_grows(a, b) for a, b in zip(one, two, strict=False))
    return False


def _repeat(arg: Any, rows: int) -> Any:
    """Expand an argument for one sequence to a batch of `rows` equal sequences."""
    if isinstance(arg, Tensor):
        return arg.expand(rows, *arg.shape[1:]) if len(arg) == 1 else arg.repeat(rows, *[1] * (arg.dim() - 1))
    return type(arg)(_repeat(part, rows) for part in arg)
