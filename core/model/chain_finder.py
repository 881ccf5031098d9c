"""Search for what the blocks of a model need from each other, in one run of the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from core.model.block_outputs import OutputLayout, hand_on, outputs, snapshot
from core.model.block_runner import (
    BlockCall,
    BlockChain,
    OutputKey,
    arguments_of,
    embedding_rows,
    fill_outside,
    first_inputs,
    run_base,
    split_call,
    stand_ins,
    tensors_differ,
    unsupported,
)
from core.model.skeleton import Skeleton


@dataclass
class _RunState:
    """State of `ChainFinder.run` that its hooks share."""

    paused: bool = False
    before: dict[Any, dict[Any, int]] = field(default_factory=dict)


@dataclass
class ChainFinder:
    """Finds the `BlockChain` of a model while the model runs, with the real outputs of its blocks.

    Attributes:
        skeleton: the model.
        tokens: int64 [2, tokens], the text of the run.
        layouts, leaves: of the blocks that ran.
    """

    skeleton: Skeleton
    tokens: Tensor
    device: torch.device
    layouts: list[OutputLayout] = field(default_factory=list)
    leaves: list[list[Tensor]] = field(default_factory=list)

    def run(self, load: Callable[[int], None], done: Callable[[int, nn.Module], None]) -> Tensor:
        """Run the model and note the outputs of its blocks; return the logits [2, tokens, vocab_size].

        Args:
            load: called with the number of each block before it runs.
            done: called with the number and the module of each block after it ran; may run it again.

        Raises:
            UnsupportedModel: the model does not run its blocks one after the other, once each.
        """
        skeleton, hooks, state = self.skeleton, [], _RunState()
        _ = self.batch_dim  # runs the model up to block 0, without the hooks

        def before(block: int) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if state.paused:
                    return
                if len(self.layouts) != block:
                    raise unsupported(skeleton, "does not run its blocks one after the other, once each")
                state.before = snapshot(args, kwargs)
                load(block)

            return hook

        def after(block: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
                if state.paused:
                    return
                leaves, layout = outputs(returned, args, kwargs, state.before)
                if not leaves:
                    raise unsupported(skeleton, "has a block that returns no tensor")
                self.layouts.append(layout)
                self.leaves.append([leaf.detach().clone() for leaf in leaves])
                state.paused = True
                try:
                    done(block, module)
                finally:
                    state.paused = False

            return hook

        try:
            for block, module in enumerate(skeleton.blocks):
                hooks.append(module.register_forward_pre_hook(before(block), with_kwargs=True))
                hooks.append(module.register_forward_hook(after(block), with_kwargs=True))
            with torch.no_grad():
                scores: Tensor = skeleton.model(input_ids=self.tokens.to(self.device), use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
        if len(self.layouts) != len(skeleton.blocks):
            count = len(skeleton.blocks)
            raise unsupported(skeleton, f"ran {len(self.layouts)} blocks where {count} were expected")
        return scores

    @cached_property
    def batch_dim(self) -> int:
        """Dimension of the hidden states that grows with the batch."""
        one, two = (first_inputs(self.skeleton, self.tokens[:rows], self.device).shape for rows in (1, 2))
        grown = [place for place, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
        if len(grown) != 1:
            raise unsupported(self.skeleton, f"passes hidden states of shape {list(one)} to its blocks")
        return grown[0]

    def call(self, block: int, part: slice) -> tuple[Tensor, BlockCall]:
        """Return the hidden states and the arguments of a block for some rows of the text."""

        def stored(number: int) -> list[Tensor]:
            return [self.rows(leaf, part) for leaf in self.leaves[number]]

        with torch.no_grad():
            return arguments_of(self.skeleton, block, self.tokens[part].to(self.device), self.layouts, stored)

    def rows(self, leaf: Tensor, part: slice, place: slice = slice(None)) -> Tensor:
        """Return some rows and tokens of an output; unchanged if it has no rows."""
        rows = self.batch_dim if leaf.dim() > 2 and leaf.shape[0] != len(self.tokens) else 0
        if leaf.dim() <= rows or leaf.shape[rows] != len(self.tokens):
            return leaf
        leaf = leaf[(slice(None),) * rows + (part,)]
        if leaf.dim() > rows + 1 and leaf.shape[rows + 1] == self.tokens.shape[1]:
            leaf = leaf[(slice(None),) * (rows + 1) + (place,)]
        return leaf

    def chain(self) -> BlockChain:
        """Return the chain, after all blocks ran."""
        needs, direct = _dependencies(self.skeleton, self.tokens.to(self.device), self.layouts)
        varies = bool(self.batch_dim) or not direct or any(needs) or self._differs()
        return BlockChain(self.skeleton, tuple(self.layouts), tuple(needs), varies, self.batch_dim)

    def _differs(self) -> bool:
        """Return whether the arguments of a block differ between the rows of the text."""
        return tensors_differ(self._seen(slice(0, 1)), self._seen(slice(1, 2)))

    def _seen(self, row: slice) -> list[Any]:
        """Return the arguments of all blocks for some rows of the text."""
        seen = []

        def stand_in(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = split_call(self.skeleton.blocks[number], args, kwargs)[1]
            seen.append((call.args, call.kwargs))
            return hand_on(self.layouts[number], [self.rows(leaf, row) for leaf in self.leaves[number]], args, kwargs)

        with stand_ins(self.skeleton, stand_in), torch.no_grad():
            run_base(self.skeleton, self.tokens[row].to(self.device))
        return seen


def find_chain(skeleton: Skeleton, tokens: Tensor, device: torch.device) -> BlockChain:
    """Return the chain of a model, by one run of it with one block in memory at a time.

    Args:
        tokens: int64 [2, tokens], two different rows of text.
    """
    finder = ChainFinder(skeleton, tokens, device)
    head = skeleton.head()
    fill_outside(skeleton, torch.float32, device)
    skeleton.fill(head, torch.float32, device)

    def path(block: int) -> str:
        return f"{skeleton.stack}.{block}"

    def load(block: int) -> None:
        skeleton.fill(path(block), torch.float32, device)

    with embedding_rows(skeleton, torch.float32, device):
        finder.run(load, lambda block, _: skeleton.unload(path(block)))
        chain = finder.chain()
    skeleton.unload(head)
    return chain


def _dependencies(
    skeleton: Skeleton, tokens: Tensor, layouts: list[OutputLayout]
) -> tuple[list[frozenset[OutputKey]], bool]:
    """Return `BlockChain.needs`, and whether every block gets exactly the hidden states of the previous one.

    The stand-ins return fresh tensors. An argument depends on those that are part of it or, for floating-point tensors,
    that autograd finds.
    """
    tags: dict[int, OutputKey] = {}
    alive: list[Tensor] = []
    needs: list[frozenset[OutputKey]] = []
    direct = True

    def stand_in(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal direct
        hidden, _ = split_call(skeleton.blocks[number], args, kwargs)
        previous = OutputKey(number - 1, 0)
        direct = direct and (number == 0 or tags.get(id(hidden)) == previous)
        needs.append(frozenset(_tagged((args, kwargs), tags) - {previous}))
        leaves = []
        for leaf, (shape, dtype) in enumerate(layouts[number].shapes):
            value = torch.zeros(shape, dtype=dtype, device=tokens.device)
            made = [value]
            if dtype.is_floating_point:
                value.requires_grad_(True)
                made.append(value * 1)  # not a leaf, so that the model may change it in place
            tags.update({id(tensor): OutputKey(number, leaf) for tensor in made})
            alive.extend(made)
            leaves.append(made[-1])
        return hand_on(layouts[number], leaves, args, kwargs)

    with stand_ins(skeleton, stand_in), torch.enable_grad():
        result = run_base(skeleton, tokens)
    needs.append(frozenset(_tagged(result, tags) - {OutputKey(len(layouts) - 1, 0)}))
    return needs, direct


def _tagged(value: Any, tags: Mapping[int, OutputKey]) -> set[OutputKey]:
    """Return the tagged tensors that are part of nested arguments, or from which autograd computed one of them."""
    if isinstance(value, Tensor):
        found = {tags[id(value)]} if id(value) in tags else set()
        pending, seen = [value.grad_fn], set[Any]()
        while pending:
            node: Any = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) in tags:
                found.add(tags[id(leaf)])
            pending += [following for following, _ in node.next_functions]
        return found
    if isinstance(value, Mapping):
        return set().union(*(_tagged(part, tags) for part in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_tagged(part, tags) for part in value))
    return set()
