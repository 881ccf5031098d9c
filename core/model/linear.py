"""A linear layer whose weight the tuner replaces between steps, in place of nn.Linear and GPT-2's Conv1D."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class TunedLinear(nn.Module):
    """A linear layer y = x W^T + b whose weight W [out, in] is a leaf of the autograd graph.

    While `gather` is set, the mean square of each input feature is accumulated: the importance matrix (imatrix), which
    weights the errors in opt-RTN.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]
        self.gather = False
        self._squares: Tensor | None = None
        self._count = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.gather:
            flat = x.detach().reshape(-1, x.shape[-1]).float()
            squares = flat.square().sum(0)
            self._squares = squares if self._squares is None else self._squares + squares
            self._count += len(flat)
        return functional.linear(x, self.weight, self.bias)

    def importance(self) -> Tensor | None:
        """Return the mean square of each input feature, fp32 [in], and reset it; None if no input was gathered."""
        squares, count = self._squares, self._count
        self._squares, self._count = None, 0
        return None if squares is None else squares / count
