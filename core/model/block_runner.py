"""Block-by-block execution of a causal language model: the inputs, arguments and outputs of its decoder blocks.

The model's own forward computes the masks, rotary tables and other arguments. Its blocks are replaced by stand-ins that
return stored outputs, and the one for the wanted block stops the forward and yields its arguments. Most models pass
arguments that are the same for every text; these are captured once. Others pass an embedding of each token (Gemma 4),
or the keys, values or routing of earlier blocks; their arguments are computed again for every batch.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from core.errors import UnsupportedModel
from core.model.block_outputs import OutputLayout, hand_on, outputs, snapshot
from core.model.causal_attention import attend, attends
from core.model.grouped import GROUPED, ends_of, in_few_shapes
from core.model.skeleton import Skeleton

_CACHES = frozenset({"past_key_values", "past_key_value", "use_cache", "cache_position"})


@dataclass(frozen=True, order=True)
class OutputKey:
    """One tensor that a block hands on: number of the block, and of the leaf in its `OutputLayout`."""

    block: int
    leaf: int


@dataclass(frozen=True)
class BlockCall:
    """The arguments of a block other than the hidden states.

    Attributes:
        args, kwargs: as the model passes them for a batch of one sequence.
        name: name of the hidden states if they are passed by name, else "".
        repeated: positions in `args` and names in `kwargs` of the arguments that grow with the batch -> the dimension
            that does: 0, or 1 for the positions [3, batch, tokens] of models with rotary embeddings for pictures.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str = ""
    repeated: Mapping[int | str, int] = field(default_factory=dict)

    def __call__(self, block: Callable[..., Any], hidden: Tensor) -> Tensor:
        """Run `block` on hidden states [batch, tokens, hidden_size] and return its output, of the same shape."""
        return self.outputs(block, hidden)[0]

    def outputs(self, block: Callable[..., Any], hidden: Tensor) -> list[Tensor]:
        """Run `block` and return all tensors that it hands on; the first are its hidden states."""
        args, kwargs = self.arguments(len(hidden))
        if self.name:
            kwargs = {self.name: hidden, **kwargs}
        else:
            args = (hidden, *args)
        before = snapshot(args, kwargs)
        return outputs(block(*args, **kwargs), args, kwargs, before)[0]

    def arguments(self, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments for a batch of `rows` sequences."""
        args, kwargs = self.args, self.kwargs
        if self.repeated and rows > 1:
            args = tuple(_repeat(arg, rows, self.repeated.get(n)) for n, arg in enumerate(args))
            kwargs = {key: _repeat(arg, rows, self.repeated.get(key)) for key, arg in kwargs.items()}
        return args, kwargs


@dataclass(frozen=True)
class BlockChain:
    """The blocks of a model, and what each needs besides the output of the previous one.

    Attributes:
        skeleton: the model; all modules outside the blocks must have their weights.
        layouts: structure of the outputs of each block.
        needs: for each block, and last for the head, the outputs of earlier blocks that its arguments depend on,
            without the hidden states of the previous block.
        varies: whether the arguments of a block depend on the text.
        batch_dim: dimension of the hidden states that grows with the batch; 1 for the AltUp models of Gemma 3n.
    """

    skeleton: Skeleton
    layouts: tuple[OutputLayout, ...]
    needs: tuple[frozenset[OutputKey], ...]
    varies: bool
    batch_dim: int = 0

    def of(self, skeleton: Skeleton) -> BlockChain:
        """Return the chain of the same model with the weights of another checkpoint."""
        return replace(self, skeleton=skeleton)

    @cached_property
    def kept(self) -> dict[int, frozenset[OutputKey]]:
        """Number of a block -> its outputs that later blocks need, without its hidden states for the next block."""
        needed = frozenset[OutputKey]().union(*self.needs)
        return {block: frozenset(key for key in needed if key.block == block) for block in range(len(self.layouts))}

    def last_use(self, key: OutputKey) -> int:
        """Return the number of the last block that needs an output; the number of blocks for the head."""
        return max(number for number, needed in enumerate(self.needs) if key in needed)

    def rows_first(self, hidden: Tensor) -> Tensor:
        """Return hidden states with the batch in the first dimension."""
        return hidden.movedim(self.batch_dim, 0)

    def some_tokens(self, hidden: Tensor, part: slice) -> Tensor:
        """Return the hidden states of some tokens; `hidden` has the layout of the blocks."""
        return hidden[(slice(None),) * (self.batch_dim + 1) + (part,)]

    def rows_back(self, hidden: Tensor) -> Tensor:
        """Return hidden states whose batch is in the first dimension as the blocks take them."""
        return hidden.movedim(0, self.batch_dim)


@dataclass(frozen=True)
class LanguageCall:
    """The arguments of the language model of a multimodal model for one row of tokens and pictures.

    They contain what the towers computed: embeddings in which pictures have replaced their tokens, positions on several
    axes (M-RoPE), masks, and features that are added between the first blocks (DeepStack).

    Attributes:
        args, kwargs: as the model passes them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, skeleton: Skeleton) -> Any:
        """Run the language model, without its head, and return its output."""
        return skeleton.model.get_submodule(skeleton.language_model)(*self.args, **self.kwargs)


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Raised by the stand-in of the wanted block as soon as it has the arguments."""


_StandIn = Callable[[int, tuple[Any, ...], dict[str, Any]], Any]


def first_inputs(
    skeleton: Skeleton, tokens: Tensor, device: torch.device, language: LanguageCall | None = None
) -> Tensor:
    """Return the input of block 0, [batch, tokens, hidden_size], for `tokens` (int64 [batch, tokens]).

    Args:
        language: arguments of the language model for a row with pictures.
    """
    with torch.no_grad():
        return arguments_of(skeleton, 0, tokens.to(device), (), lambda _: [], language)[0]


def language_call(
    skeleton: Skeleton, tokens: Tensor, pictures: Mapping[str, Any], device: torch.device
) -> LanguageCall:
    """Return the arguments of the language model for a row with pictures; runs the towers, which must be loaded.

    Args:
        tokens: int64 [1, tokens].
        pictures: further inputs of the model, from its processor.
    """
    known = inspect.signature(type(skeleton.model).forward).parameters
    given = {key: _moved(value, device) for key, value in pictures.items() if key in known or "kwargs" in known}
    caught: list[LanguageCall] = []

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        left = {key: value for key, value in kwargs.items() if key not in _CACHES}
        caught.append(LanguageCall(args, {**left, "use_cache": False}))
        raise _Reached

    handle = skeleton.model.get_submodule(skeleton.language_model).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with contextlib.suppress(_Reached), torch.no_grad():
            skeleton.model(input_ids=tokens.to(device), use_cache=False, **given)
    finally:
        handle.remove()
    if not caught:
        raise unsupported(skeleton, "does not call its language model")
    return caught[0]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, torch.float32 if value.is_floating_point() else value.dtype)
    return value


def capture(chain: BlockChain, tokens: Tensor, device: torch.device) -> list[BlockCall]:
    """Return the arguments that the model passes to each block for sequences as long as `tokens` (int64 [1, tokens]).

    Only for a chain that does not vary. Layers share argument tensors as they do in the model.
    """
    one, two = (_calls(chain, tokens.expand(rows, -1).to(device)) for rows in (1, 2))
    return [_with_repeated(call, twice) for call, twice in zip(one, two, strict=True)]


def block_input(
    chain: BlockChain,
    block: int,
    tokens: Tensor,
    hidden: Tensor,
    carried: Mapping[OutputKey, Tensor],
    language: LanguageCall | None = None,
) -> tuple[Tensor, BlockCall]:
    """Return the hidden states and the arguments of a block of a chain that varies, or for a row with pictures.

    Args:
        tokens: int64 [batch, tokens].
        hidden: output of the previous block, or the input of block 0, as the blocks take it.
        carried: the outputs of earlier blocks in `chain.needs`.
        language: arguments of the language model for a row with pictures.

    Gradients are computed if `hidden` requires them.
    """

    def stored(number: int) -> list[Tensor]:
        return _leaves(chain, number, block - 1, hidden, carried)

    with torch.set_grad_enabled(hidden.requires_grad):
        found, call = arguments_of(chain.skeleton, block, tokens.to(hidden.device), chain.layouts, stored, language)
    return (found if block else hidden), call


def logits(
    chain: BlockChain, hidden: Tensor, tokens: Tensor, carried: Mapping[OutputKey, Tensor] | None = None
) -> Tensor:
    """Return the logits [batch, tokens, vocab_size] for `hidden`, the output of the last block.

    The model's forward runs with every block replaced by a function that returns `hidden`, so that the final norm,
    projections and soft-capping are the model's own. Gradients are computed if `hidden` requires them.

    Args:
        tokens: int64 [batch, tokens]; the embeddings are computed only if the arguments of blocks vary with them.
        carried: outputs of earlier blocks that the head needs (`chain.needs`), for the same tokens as `hidden`.
    """
    skeleton, last = chain.skeleton, len(chain.layouts) - 1

    def stand_in(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return hand_on(chain.layouts[number], _leaves(chain, number, last, hidden, carried or {}), args, kwargs)

    embeddings = contextlib.nullcontext() if chain.varies else _zero_embeddings(skeleton, hidden.device)
    with stand_ins(skeleton, stand_in), embeddings, torch.set_grad_enabled(hidden.requires_grad):
        scores: Tensor = skeleton.model(input_ids=tokens.to(hidden.device), use_cache=False).logits
    return scores


def _leaves(
    chain: BlockChain, number: int, last: int, hidden: Tensor, carried: Mapping[OutputKey, Tensor]
) -> list[Tensor]:
    """Return what the stand-in of block `number` hands on: `carried` outputs, and empty tensors that are not used.

    Args:
        hidden: hidden states that block `last` hands on; also of blocks whose own are not used.
    """
    empty = hidden.new_empty(0)
    keys = [OutputKey(number, leaf) for leaf in range(len(chain.layouts[number].shapes))]
    leaves = [carried.get(key, hidden if key.leaf == 0 else empty) for key in keys]
    return [hidden, *leaves[1:]] if number == last else leaves


@contextlib.contextmanager
def products_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run matrix products in `dtype` for the duration of the context.

    The residual stream stays in fp32: in 16 bits, the rounding of its few very large channels would exceed the
    quantization error.
    """
    if dtype == torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype, cache_enabled=False), _AdaptedProducts():
        yield


class _AdaptedProducts(TorchFunctionMode):
    """A context in which functions that autocast does not adapt work in 16 bits.

    `index_add_` converts its source, since DBRX adds products in 16 bits to sums in float32. Grouped products without
    gradients are computed in few different shapes, and causal attention of short sequences in blocks of queries.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func is Tensor.index_add_ and len(args) == 4 and args[3].dtype != args[0].dtype:
            args = (*args[:3], args[3].to(args[0].dtype))
        if func in GROUPED and not torch.is_grad_enabled() and args[0].device.type == "cpu":
            return in_few_shapes(args[0], args[1], ends_of(args, kwargs))
        if func is functional.scaled_dot_product_attention and len(args) == 3 and attends(*args, **kwargs):
            return attend(*args, **kwargs)
        return func(*args, **kwargs)


def fill_outside(skeleton: Skeleton, dtype: torch.dtype, device: torch.device) -> None:
    """Load the modules outside the blocks, except the head and the embeddings of `embedding_rows`.

    Towers are loaded if the model calls them, as Gemma 3n calls a part of them for text, too.
    """
    tables = (f"{path}.weight" for path in skeleton.embeddings())
    skeleton.fill("", dtype, device, skip=(skeleton.stack, skeleton.head(), *skeleton.towers, *tables))
    for path in skeleton.towers:
        skeleton.fill_on_use(path, dtype, device)


@contextlib.contextmanager
def embedding_rows(skeleton: Skeleton, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Let the large embeddings read the rows that they need, each time they are used; their tables stay on disk."""
    hooks, before = [], {}
    for path in skeleton.embeddings():
        module: Any = skeleton.model.get_submodule(path)
        before[path] = (module.weight, module.padding_idx)
        module.padding_idx = None
        # models read the device of the weight
        module.weight = nn.Parameter(torch.zeros(1, module.weight.shape[1], device=device), requires_grad=False)
        hooks.append(module.register_forward_pre_hook(_row_reader(skeleton, path, dtype, device)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for path, (weight, padding) in before.items():
            module = skeleton.model.get_submodule(path)
            module.weight, module.padding_idx = weight, padding


def _row_reader(
    skeleton: Skeleton, path: str, dtype: torch.dtype, device: torch.device
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    key = skeleton.checkpoint_name(f"{path}.weight")
    assert key is not None

    def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        used, index = torch.unique(args[0], return_inverse=True)
        rows = skeleton.store.rows(key, used.cpu()).to(device, dtype)
        module.weight = nn.Parameter(rows, requires_grad=False)
        return (index, *args[1:])

    return hook


@contextlib.contextmanager
def _zero_embeddings(skeleton: Skeleton, device: torch.device) -> Iterator[None]:
    """Replace every embedding outside the blocks by one of zeros, whose result is not used."""

    def forward(ids: Tensor, width: int) -> Tensor:
        return torch.zeros(*ids.shape, width, device=ids.device)

    modules: list[Any] = [skeleton.model.get_submodule(path) for path in skeleton.embeddings()]
    weights = [module.weight for module in modules]
    for module in modules:
        width = module.weight.shape[1]
        module.weight = nn.Parameter(torch.zeros(1, width, device=device), requires_grad=False)
        module.forward = lambda ids, width=width, **_: forward(ids, width)
    try:
        yield
    finally:
        for module, weight in zip(modules, weights, strict=True):
            del module.forward
            module.weight = weight


def tensors_differ(one: Any, other: Any) -> bool:
    """Return whether two nested arguments contain different tensors."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape != other.shape or not torch.equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return any(tensors_differ(a, b) for a, b in zip(one, other, strict=False))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return any(tensors_differ(value, other.get(key)) for key, value in one.items())
    return False


def unsupported(skeleton: Skeleton, what: str) -> UnsupportedModel:
    """Return the error for a model that cannot be run block by block."""
    name = skeleton.tree.architecture or type(skeleton.model).__name__
    return UnsupportedModel(f"{name} {what}.", "This architecture is not supported yet.")


def arguments_of(
    skeleton: Skeleton,
    block: int,
    tokens: Tensor,
    layouts: Any,
    stored: Callable[[int], list[Tensor]],
    language: LanguageCall | None = None,
) -> tuple[Tensor, BlockCall]:
    """Run the model up to a block, whose predecessors return `stored` outputs, and return its input."""
    caught: list[tuple[Tensor, BlockCall]] = []

    def stand_in(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if number == block:
            caught.append(split_call(skeleton.blocks[number], args, kwargs))
            raise _Reached
        return hand_on(layouts[number], stored(number), args, kwargs)

    with stand_ins(skeleton, stand_in), contextlib.suppress(_Reached):
        if language is None:
            run_base(skeleton, tokens)
        else:
            language(skeleton)
    if not caught:
        raise unsupported(skeleton, f"does not run its block {block}")
    return caught[0]


def _calls(chain: BlockChain, tokens: Tensor) -> list[BlockCall]:
    """Return the calls of all blocks for `tokens` (int64 [batch, tokens]); the blocks return their input unchanged."""
    seen: list[BlockCall] = []

    def stand_in(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, call = split_call(chain.skeleton.blocks[number], args, kwargs)
        seen.append(call)
        empty = hidden.new_empty(0)
        leaves = [hidden, *(empty for _ in chain.layouts[number].shapes[1:])]
        return hand_on(chain.layouts[number], leaves, args, kwargs)

    with stand_ins(chain.skeleton, stand_in), torch.no_grad():
        run_base(chain.skeleton, tokens)
    return seen


@contextlib.contextmanager
def stand_ins(skeleton: Skeleton, stand_in: _StandIn) -> Iterator[None]:
    """Replace the forward of every block. The modules stay, since models read attributes of their layers."""
    blocks = list(skeleton.blocks)
    for number, block in enumerate(blocks):
        block.forward = lambda *args, number=number, **kwargs: stand_in(number, args, kwargs)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def split_call(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, BlockCall]:
    """Return the hidden states and the other arguments of a block, without those of the KV cache."""
    name = ""
    if not args:
        names = [key for key in inspect.signature(type(block).forward).parameters if key in kwargs]
        name = "hidden_states" if "hidden_states" in kwargs else names[0]
    hidden = kwargs[name] if name else args[0]
    left = {key: value for key, value in kwargs.items() if key not in _CACHES and key != name}
    return hidden, BlockCall(args[1:], left, name)


def run_base(skeleton: Skeleton, tokens: Tensor) -> Tensor:
    """Return the last hidden states [batch, tokens, hidden_size] of the model without its head."""
    last: Tensor = skeleton.model.base_model(input_ids=tokens, use_cache=False)[0]
    return last


def _with_repeated(call: BlockCall, twice: BlockCall) -> BlockCall:
    """Return a call with the arguments that grow with the batch; `twice` is the same call for a batch of two."""
    found: dict[int | str, int | None] = {n: _growing(arg, twice.args[n]) for n, arg in enumerate(call.args)}
    found |= {key: _growing(arg, twice.kwargs[key]) for key, arg in call.kwargs.items()}
    repeated = replace(call, repeated={place: dim for place, dim in found.items() if dim is not None})
    if tensors_differ(repeated.arguments(2), twice.arguments(1)):
        raise ValueError("an argument of a block for two sequences does not consist of those for one")
    return repeated


def _growing(one: Any, two: Any) -> int | None:
    """Return the dimension of an argument that is twice as long for a batch of two; None if there is none.

    Examples are a mask [batch, 1, tokens, tokens], ALiBi biases [batch * heads, 1, tokens] and the positions [3, batch,
    tokens] of models with rotary embeddings for pictures.
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.dim() == two.dim():
        other = [dim for dim in range(one.dim()) if one.shape[dim] != two.shape[dim]]
        return other[0] if len(other) == 1 and two.shape[other[0]] == 2 * one.shape[other[0]] else None
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        dims = (_growing(a, b) for a, b in zip(one, two, strict=False))
        return next((dim for dim in dims if dim is not None), None)
    return None


def _repeat(arg: Any, rows: int, dim: int | None) -> Any:
    """Expand the dimension of an argument for one sequence to a batch of `rows` equal sequences."""
    if dim is None:
        return arg
    if isinstance(arg, Tensor):
        sizes = [1] * arg.dim()
        sizes[dim] = rows
        return arg.repeat(sizes) if arg.shape[dim] > 1 else arg.expand(*arg.shape[:dim], rows, *arg.shape[dim + 1 :])
    return type(arg)(_repeat(part, rows, dim) for part in arg)
