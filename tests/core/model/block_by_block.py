"""Execution of the blocks of a model one by one, without a run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from core.model.block_runner import (
    OutputKey,
    block_input,
    capture,
    embedding_rows,
    fill_outside,
    first_inputs,
    logits,
)
from core.model.chain_finder import find_chain
from core.model.skeleton import Skeleton


def run_blocks(skeleton: Skeleton, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the input and the output of each block, and last the output of the last block and the logits.

    Args:
        tokens: int64 [batch, tokens].
    """
    cpu = torch.device("cpu")
    chain = find_chain(skeleton, tokens[:2], cpu)
    fill_outside(skeleton, torch.float32, cpu)
    kept: dict[OutputKey, Tensor] = {}
    with embedding_rows(skeleton, torch.float32, cpu):
        calls = [] if chain.varies else capture(chain, tokens[:1], cpu)
        hidden = first_inputs(skeleton, tokens, cpu)
        for block in range(skeleton.tree.blocks):
            call = calls[block] if calls else None
            if call is None:
                needed = {key: kept[key] for key in chain.needs[block]}
                hidden, call = block_input(chain, block, tokens, hidden, needed)
            path = f"{skeleton.stack}.{block}"
            with torch.no_grad():
                leaves = call.outputs(skeleton.fill(path, torch.float32, cpu), hidden)
            skeleton.unload(path)
            kept |= {OutputKey(block, number): leaf for number, leaf in enumerate(leaves)}
            yield hidden, leaves[0]
            hidden = leaves[0]
        skeleton.fill(skeleton.head(), torch.float32, cpu)
        yield hidden, logits(chain, hidden, tokens, {key: kept[key] for key in chain.needs[-1]})
