"""A linear layer whose weight the tuner rewrites between steps. Stands in for nn.Linear and GPT-2's Conv1D."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class TunedLinear(nn.Module):
    """y = x W^T + b with W [out, in] a leaf that autograd gives a gradient to.

    With `gather` on, the mean square of every input is collected (opt-RTN's weights; the field calls it imatrix).
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
        """Mean square of every input seen while gathering, fp32 [in], and forget it; None if none was seen."""
        squares, count = self._squares, self._count
        self._squares, self._count = None, 0
        return None if squares is None else squares / count
