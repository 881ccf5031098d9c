"""The KL divergence between the logits of the original and of the quantized model, and its gradient.

Logits are computed for some tokens at a time, since the vocabulary can be much larger than a block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.control import check_stop
from core.formats.stored import StoredLayer
from core.model.block_runner import logits
from core.quant.blocks import BlockJob, precision
from core.quant.end_to_end.norms import LearnedNorm, norms_in_place
from core.quant.streamed_head import StreamedHead, streamed_head

_CHUNK_BYTES = 1 << 25
"""Size of a chunk of float32 logits, of which about six copies are in memory."""


@dataclass(frozen=True)
class Heads:
    """The output heads of both models, and the norms before them.

    Attributes:
        job: settings of the run, and the model.
        original, quantized: modules of the output head.
        norms: learned norms outside the blocks; the model has the weights of the original.
    """

    job: BlockJob
    original: nn.Module
    quantized: nn.Module
    norms: list[LearnedNorm]

    def divergence(self, original: Tensor, quantized: Tensor, tokens: Tensor) -> float:
        """Return the sum over all tokens of the KL divergence, in nats.

        Args:
            original, quantized: outputs of the last block, as the blocks return them.
            tokens: int64 [batch, tokens].
        """
        return sum(self._chunk(original, quantized, tokens, part, None) for part in self._parts(tokens))

    def backward(self, original: Tensor, quantized: Tensor, tokens: Tensor) -> tuple[float, Tensor, list[Tensor]]:
        """Return the divergence, its gradient by `quantized`, and those by the norms; arguments as in `divergence`."""
        slope = torch.zeros_like(quantized)
        sums = [torch.zeros_like(norm.value) for norm in self.norms]
        total = sum(self._chunk(original, quantized, tokens, part, (slope, sums)) for part in self._parts(tokens))
        return total, slope, sums

    def _parts(self, tokens: Tensor) -> Iterator[slice]:
        tree = self.job.skeleton.tree
        vocabulary = tree.tensors[f"{tree.embedding}.weight"].shape[0]
        step = max(1, _CHUNK_BYTES // (4 * vocabulary * len(tokens)))
        return (slice(start, min(tokens.shape[1], start + step)) for start in range(0, tokens.shape[1], step))

    def _chunk(
        self,
        original: Tensor,
        quantized: Tensor,
        tokens: Tensor,
        part: slice,
        sums: tuple[Tensor, list[Tensor]] | None,
    ) -> float:
        """Return the divergence for some tokens, and add its gradients to `sums`."""
        check_stop(self.job.should_stop)
        chain, ids = self.job.chain, tokens[:, part]
        expected = self._log_probabilities(self.original, chain.some_tokens(original, part), ids)[1]
        hidden = chain.some_tokens(quantized, part).detach().clone().requires_grad_(sums is not None)
        values = {norm.parameter: norm.stored for norm in self.norms}
        with norms_in_place(self.job.skeleton, values):
            weights = [self.job.skeleton.model.get_parameter(name) for name in values]
            for weight in weights:
                weight.requires_grad_(sums is not None)
            scores, found = self._log_probabilities(self.quantized, hidden, ids)
        # sum p (log p - log q), and its gradient by the logits of q, which is q - p
        likely = expected.exp()
        total = float((likely * expected.sub_(found)).sum(dtype=torch.float64))
        if sums is not None:
            scores.backward(found.exp_().sub_(likely).to(scores.dtype))
            assert hidden.grad is not None
            chain.some_tokens(sums[0], part).copy_(hidden.grad)
            for place, weight in zip(sums[1], weights, strict=True):
                if weight.grad is not None:
                    place += weight.grad
        return total

    def _log_probabilities(self, head: nn.Module, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [batch, tokens, vocab_size], and their log-softmax in float32 without a gradient."""
        skeleton = self.job.skeleton
        skeleton.model.set_submodule(skeleton.head(), head)
        with precision(self.job.resolved):
            scores = logits(self.job.chain, hidden, tokens)
        with torch.no_grad():
            return scores, torch.log_softmax(scores.detach().float(), -1)


@contextlib.contextmanager
def open_heads(job: BlockJob, layer: StoredLayer | None, norms: list[LearnedNorm], resident: bool) -> Iterator[Heads]:
    """Load both heads for the duration of the context.

    Args:
        layer: the quantized head; None if the quantized model has that of the original.
        norms: learned norms outside the blocks.
        resident: the heads stay in memory in the dtype of the products.
    """
    skeleton, path = job.skeleton, job.skeleton.head()

    def loaded() -> nn.Module:
        head = skeleton.model.get_submodule(path)
        return head.in_memory() if resident and isinstance(head, StreamedHead) else head

    with streamed_head(job):
        original = loaded()
        if layer is None:
            yield Heads(job, original, original, norms)
            return
        with streamed_head(job, layer):
            yield Heads(job, original, loaded(), norms)
