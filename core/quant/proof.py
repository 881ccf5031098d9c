"""Check, before tuning, that the model computes the same when its blocks are run one by one.

The forward pass of the model runs in float32 on two rows of text, with one block in memory at a time: hooks load each
block before it runs and unload it afterwards. After its run in the model, each block is run again as in a job: with the
arguments captured from the first row, with its linear layers replaced, row by row and as a batch. A block whose outputs
differ is reported by its number. Blocks can depend on more than the captured arguments (a table indexed by token, keys
of an earlier block, persistent states), which only this comparison detects.

The same pass over the weights hashes each tensor and finds values that are not finite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import BitwrightError, CorruptFile, UnsupportedModel, no_memory
from core.model.block_outputs import outputs, snapshot
from core.model.block_runner import (
    BlockChain,
    OutputKey,
    block_input,
    embedding_rows,
    fill_outside,
    first_inputs,
    logits,
)
from core.model.chain_finder import ChainFinder
from core.model.fingerprint import FingerprintedStore
from core.model.skeleton import Skeleton
from core.quant.picture_rows import PictureRow, language_calls

LENGTH = 64
"""Tokens per row."""
SHARED = 8
"""Tokens at the start that both rows share: in a causal model their hidden states do not depend on later tokens."""
TOLERANCE = 1e-3
"""Maximum relative difference of the hidden state of a token.

Rounding in float32 causes 1e-6 to 2e-5 (see the tests); an argument of the wrong row causes 0.1 to 2."""
_HEAD_ROWS = 512
"""Rows of the head that are compared; the whole head in float32 can be larger than a block."""
_UNSUPPORTED = "This architecture is not supported yet."


@dataclass(frozen=True)
class SourceProof:
    """Inputs of the check.

    Attributes:
        skeleton: the model without weights; store: the store from which it reads.
        tokens: int64 [2, tokens], see `two_rows`.
        device: device of the computation.
        batched: the run passes more than one row through a block at once.
        step: called regularly; raises after a request to stop.
        pictures: samples with pictures that are checked as well.
    """

    skeleton: Skeleton
    store: FingerprintedStore
    tokens: Tensor
    device: torch.device
    batched: bool
    step: Callable[[], None]
    pictures: Sequence[PictureRow] = ()

    @property
    def parts(self) -> list[slice]:
        """Slices of the rows that are run: each row, and both as a batch."""
        return [slice(0, 1), slice(1, 2), *([slice(0, 2)] if self.batched else [])]


def two_rows(tokens: Tensor, vocabulary: int) -> Tensor:
    """Return two different rows of a text [samples, tokens] with the same first tokens, int64 [2, tokens]."""
    rows = tokens[:, :LENGTH]
    first = rows[0]
    other = next((row for row in rows[1:] if not torch.equal(row, first)), (first + 1) % vocabulary)
    shared = min(SHARED, len(first) // 4)
    return torch.stack([first, torch.cat([first[:shared], other[shared:]])])


def prove(proof: SourceProof) -> BlockChain:
    """Compare execution block by block with the whole model, and read each tensor of the checkpoint once.

    Memory: one block in float32, and the modules outside the blocks except embedding and head.

    Returns:
        What each block needs besides the output of the previous one.

    Raises:
        UnsupportedModel: a block computes other values when it is run separately, or cannot be run separately.
        CorruptFile: a tensor or a hidden state is not finite.
        Cancelled: a stop was requested.
    """
    skeleton, device = proof.skeleton, proof.device
    # Embedding and head are used in part below, so check them for values that are not finite first.
    paths = [skeleton.head(), *skeleton.embeddings()]
    ends = {skeleton.checkpoint_name(f"{path}.weight") for path in paths}
    proof.store.scan(sorted(name for name in ends if name is not None), proof.step)
    with _translated(skeleton, "cannot be run"):
        fill_outside(skeleton, torch.float32, device)
        try:
            with embedding_rows(skeleton, torch.float32, device), _few_outputs(skeleton, device):
                chain = _compare(proof)
                for row in proof.pictures:
                    _compare_pictures(proof, chain, row)
        finally:
            skeleton.unload("")
    proof.store.scan(proof.store.table, proof.step)
    return chain


def check_range(store: FingerprintedStore, names: Sequence[str], dtype: torch.dtype) -> None:
    """Reject weights that exceed the range of the dtype of the matrix products; all must have been read before.

    Raises:
        UnsupportedModel: a weight exceeds the range.
    """
    limit = torch.finfo(dtype).max
    for name in names:
        if store.largest[name] > limit:
            kind = str(dtype).removeprefix("torch.")
            raise UnsupportedModel(
                f"{name} contains {store.largest[name]:.3g}, which exceeds the range of {kind}, the dtype used on this "
                "device.",
                "Use another device, such as --device cpu.",
            )


class _Differs(Exception):  # noqa: N818 - control flow: the reason is determined after the forward pass
    """Raised when the output of a block that is run separately differs from its output in the model."""

    def __init__(self, block: int, by: float) -> None:
        super().__init__()
        self.block = block
        self.by = by


def _compare(proof: SourceProof) -> BlockChain:
    skeleton = proof.skeleton
    replay = _BlockReplay(proof)
    scores = replay.run_model()
    chain = replay.finder.chain()
    last = len(chain.layouts) - 1
    hidden = replay.finder.leaves[last][0]
    half = max(1, proof.tokens.shape[1] // 2)
    for part in proof.parts:
        for place in (slice(0, half), slice(half, None)):
            carried = {
                key: replay.finder.rows(replay.finder.leaves[key.block][key.leaf], part, place)
                for key in chain.needs[-1]
            }
            found = logits(chain, replay.finder.rows(hidden, part, place), proof.tokens[part, place], carried)
            what = "processes the output of its last block in a way that depends on all tokens"
            _same(skeleton, found, scores[part, place], what)
    _check_causal(proof, scores, "its output")
    return chain


def _compare_pictures(proof: SourceProof, chain: BlockChain, row: PictureRow) -> None:
    """Run the language model on a sample with pictures, and compare each block with its separate run."""
    skeleton, device = proof.skeleton, proof.device
    (language,) = language_calls(skeleton, [row], device, proof.step)
    state: dict[OutputKey, Tensor] = {}
    hidden = first_inputs(skeleton, row.tokens, device, language)

    def before(block: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            proof.step()
            skeleton.fill(f"{skeleton.stack}.{block}", torch.float32, device)

        return hook

    ran: list[list[Tensor]] = []

    def after(block: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
            leaves = outputs(returned, args, kwargs, snapshot(args, kwargs))[0]
            ran.append([leaf.detach().clone() for leaf in leaves])
            skeleton.unload(f"{skeleton.stack}.{block}")

        return hook

    hooks = []
    for block, module in enumerate(skeleton.blocks):
        hooks.append(module.register_forward_pre_hook(before(block)))
        hooks.append(module.register_forward_hook(after(block), with_kwargs=True))
    try:
        with torch.no_grad():
            language(skeleton)
    finally:
        for handle in hooks:
            handle.remove()
    for block, module in enumerate(skeleton.blocks):
        proof.step()
        skeleton.fill(f"{skeleton.stack}.{block}", torch.float32, device)
        with torch.no_grad():
            entering, call = block_input(chain, block, row.tokens, hidden, state, language)
            found = call.outputs(module, entering)
        skeleton.unload(f"{skeleton.stack}.{block}")
        by = difference(found[0], ran[block][0])
        if not by <= TOLERANCE:
            raise _Differs(block, by)
        hidden = found[0]
        state |= {OutputKey(block, leaf): value for leaf, value in enumerate(ran[block])}


class _BlockReplay:
    """A run of the model in which each block is run a second time, separately.

    Attributes:
        finder: layouts and outputs of the blocks that ran.
    """

    def __init__(self, proof: SourceProof) -> None:
        self._proof = proof
        self.finder = ChainFinder(proof.skeleton, proof.tokens, proof.device)

    def run_model(self) -> Tensor:
        """Run the whole model and compare each block; return the logits."""
        return self.finder.run(self._load, self._compare)

    def _load(self, block: int) -> None:
        self._proof.step()
        self._proof.skeleton.fill(self._path(block), torch.float32, self._proof.device)

    def _compare(self, block: int, module: nn.Module) -> None:
        state, rows = self.finder.leaves[block][0], self.finder.batch_dim
        if not torch.isfinite(state).all():
            raise CorruptFile(
                f"Block {block} of this model computes values that are not finite, but its weights are finite.",
                "Download the model again, or use another one.",
            )
        _check_causal(self._proof, state.movedim((rows, rows + 1), (0, 1)), f"block {block}")
        for part in self._proof.parts:
            self._replay(block, module, part)
        self._proof.skeleton.unload(self._path(block))

    def _replay(self, block: int, module: nn.Module, part: slice) -> None:
        with _translated(self._proof.skeleton, f"has a block {block} that cannot be run separately"), torch.no_grad():
            hidden, call = self.finder.call(block, part)
            found = call(module, hidden.clone())
        by = difference(found, self.finder.rows(self.finder.leaves[block][0], part))
        if not by <= TOLERANCE:
            raise _Differs(block, by)

    def _path(self, block: int) -> str:
        return f"{self._proof.skeleton.stack}.{block}"


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative difference of the vectors of tokens; infinity if the shapes differ.

    The norm in the denominator is at least a thousandth of the mean norm.
    """
    if found.shape != expected.shape:
        return float("inf")
    apart = (found.float() - expected.float()).norm(dim=-1)
    size = expected.float().norm(dim=-1)
    share = apart / size.clamp(min=1e-3 * float(size.mean()) + 1e-30)
    return float("inf") if share.isnan().any() else float(share.max())


def _same(skeleton: Skeleton, found: Tensor, expected: Tensor, what: str) -> None:
    if not difference(found, expected) <= TOLERANCE:
        raise UnsupportedModel(f"{_name(skeleton)} {what}, so it cannot be run block by block.", _UNSUPPORTED)


def _check_causal(proof: SourceProof, states: Tensor, what: str) -> None:
    """Reject a model whose results for the first tokens depend on later tokens."""
    shared = int((proof.tokens[0] == proof.tokens[1]).long().cumprod(0).sum())
    if not difference(states[1, :shared], states[0, :shared]) <= TOLERANCE:
        raise UnsupportedModel(
            f"With this config {_name(proof.skeleton)} is not a causal language model: {what} depends on later tokens.",
            "Use a model that predicts the next token.",
        )


@contextlib.contextmanager
def _few_outputs(skeleton: Skeleton, device: torch.device) -> Iterator[None]:
    """Load only rows of the head, spread over its vocabulary; a head that is not a plain layer is loaded whole."""
    path = skeleton.head()
    head = skeleton.model.get_submodule(path)
    key = skeleton.checkpoint_name(f"{path}.weight")
    if type(head) is not nn.Linear or key is None:
        skeleton.fill(path, torch.float32, device)
        yield
        return
    index = torch.linspace(0, head.out_features - 1, min(_HEAD_ROWS, head.out_features)).long().unique()
    bias = skeleton.checkpoint_name(f"{path}.bias") if head.bias is not None else None
    few = nn.Linear(head.in_features, len(index), bias=bias is not None, device="meta")
    few.weight = nn.Parameter(skeleton.store.rows(key, index).to(device, torch.float32), requires_grad=False)
    if bias is not None:
        few.bias = nn.Parameter(skeleton.store.get(bias)[index].to(device, torch.float32), requires_grad=False)
    skeleton.model.set_submodule(path, few)
    try:
        yield
    finally:
        skeleton.model.set_submodule(path, head)


@contextlib.contextmanager
def _translated(skeleton: Skeleton, what: str) -> Iterator[None]:
    """Convert errors of the model's code to UnsupportedModel, except for a lack of memory."""
    try:
        yield
    except BitwrightError:
        raise
    except _Differs as differs:
        apart = "" if differs.by == float("inf") else f" (by {100 * differs.by:.2g} %)"
        raise UnsupportedModel(
            f"The output of block {differs.block} of {_name(skeleton)} differs when it is run separately{apart}.",
            _UNSUPPORTED,
        ) from None
    except Exception as error:
        if no_memory(error) or isinstance(error, OSError):
            raise
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise UnsupportedModel(
            f"{_name(skeleton)} {what} ({type(error).__name__}{': ' if line else ''}{line}).", _UNSUPPORTED
        ) from error


def _name(skeleton: Skeleton) -> str:
    return skeleton.tree.architecture or type(skeleton.model).__name__
