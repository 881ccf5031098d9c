"""Weights of a transformers model that are computed by several layers of a checkpoint.

`ExpertWeights` takes the place of a parameter with the matrices of all experts. The code of transformers is unchanged:
it takes the matrix of one expert by its index and multiplies with it (`linear`, `matmul`), or multiplies with all
(`bmm`). Such products are computed by the layers of the experts, through PyTorch's `__torch_function__` protocol. Any
other operation gets unpacked weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.model.slices import Rows

_MATMUL: Final = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
_BMM: Final = (torch.bmm, torch.matmul, Tensor.bmm, Tensor.matmul, Tensor.__matmul__)


class JoinedLinear(nn.Module):
    """A linear layer whose rows of the weight belong to several layers, such as gate and up of an expert.

    Args:
        layers: the layers, without biases.
        rows: rows of the output that each of the layers computes.
        out_features: number of all rows.
        bias: [out] or None.
    """

    def __init__(
        self, layers: Sequence[nn.Module], rows: Sequence[Rows], out_features: int, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.layers, self.rows, self.out_features = nn.ModuleList(layers), list(rows), out_features
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_empty(*x.shape[:-1], self.out_features)
        for rows, layer in zip(self.rows, self.layers, strict=True):
            y[..., rows] = layer(x)
        return y if self.bias is None else y.add_(self.bias)


class ExpertMatrix:
    """The matrix of one expert.

    Attributes:
        layer: computes x W^T.
        shape: of the matrix.
        transposed: the matrix is W^T [in, out] instead of W [out, in].
    """

    def __init__(self, layer: nn.Module, shape: Sequence[int], transposed: bool, weights: ExpertWeights) -> None:
        self.layer, self.shape, self.transposed, self._weights = layer, torch.Size(shape), transposed, weights

    @property
    def T(self) -> ExpertMatrix:  # noqa: N802
        """The transposed matrix."""
        return ExpertMatrix(self.layer, self.shape[::-1], not self.transposed, self._weights)

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T."""
        outputs = self.shape[1 if self.transposed else 0]
        return self.layer(x) if x.numel() else x.new_empty(*x.shape[:-1], outputs)

    def unpack(self) -> Tensor:
        """Return the matrix in the compute dtype."""
        inputs = self.shape[0 if self.transposed else 1]
        identity = torch.eye(inputs, dtype=self._weights.dtype, device=self._weights.device)
        product: Tensor = self.layer(identity)  # W^T
        return product if self.transposed else product.T

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class ExpertStack:
    """The matrices of all experts.

    Attributes:
        shape: [experts, out, in], or [experts, in, out] if transposed.
        transposed: the matrices are W^T [in, out] instead of W [out, in].
    """

    def __init__(self, weights: ExpertWeights, shape: Sequence[int], transposed: bool) -> None:
        self._weights, self.shape, self.transposed = weights, torch.Size(shape), transposed

    def __getitem__(self, expert: Any) -> ExpertMatrix:
        return ExpertMatrix(self._weights.experts[int(expert)], self.shape[1:], self.transposed, self._weights)

    def transpose(self, first: int, second: int) -> ExpertStack:
        """Return the stack with transposed matrices.

        Raises:
            NotImplementedError: the dimensions are others than those of the matrices.
        """
        if {first % 3, second % 3} != {1, 2}:
            raise NotImplementedError("only the dimensions of the matrices of experts can be transposed")
        return ExpertStack(self._weights, (self.shape[0], *self.shape[:0:-1]), not self.transposed)

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T of each expert for inputs [experts, n, in].

        An expert without inputs other than 0 is not computed: Llama 4 sets the inputs of the experts that a token does
        not use to 0.
        """
        y = x.new_zeros(*x.shape[:-1], self.shape[2])
        for expert in range(self.shape[0]):
            if bool(x[expert].any()):
                y[expert] = self[expert].product(x[expert])
        return y

    def unpack(self) -> Tensor:
        """Return the matrices in the compute dtype."""
        return torch.stack([self[expert].unpack() for expert in range(self.shape[0])])

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class ExpertWeights(nn.Module):
    """The weights of all experts of a block, in place of a parameter.

    Args:
        experts: a layer for each expert that computes x W^T.
        shape: of the parameter: [experts, out, in]; [experts, in, out] if transposed; or with the first two dimensions
            joined (DBRX).
        transposed: the matrix of an expert is W^T [in, out] instead of W [out, in].
        dtype: of the products.
    """

    def __init__(
        self, experts: Sequence[nn.Module], shape: Sequence[int], transposed: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.experts, self.shape = nn.ModuleList(experts), torch.Size(shape)
        self.dtype, self._transposed = dtype, transposed

    @property
    def device(self) -> torch.device:
        """Device of the layers."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def stack(self) -> ExpertStack:
        """The matrices of all experts."""
        count = len(self.experts)
        shape = self.shape if len(self.shape) == 3 else (count, self.shape[0] // count, self.shape[1])
        return ExpertStack(self, shape, self._transposed)

    def __getitem__(self, expert: Any) -> ExpertMatrix:
        return self.stack[expert]

    def transpose(self, first: int, second: int) -> ExpertStack:
        """See `ExpertStack.transpose`."""
        return self.stack.transpose(first, second)

    def view(self, shape: Sequence[int]) -> ExpertStack:
        """Return the matrices of all experts (DBRX).

        Raises:
            NotImplementedError: the shape is another one.
        """
        if tuple(shape[1:]) != tuple(self.stack.shape[1:]):
            raise NotImplementedError(f"the weights of experts cannot be viewed as {list(shape)}")
        return self.stack

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Compute a function of PyTorch with weights of experts among its arguments."""
    args = [value.stack if isinstance(value, ExpertWeights) else value for value in args]
    weight = args[1] if len(args) > 1 else None
    if isinstance(weight, ExpertMatrix):
        if func is functional.linear and not weight.transposed:
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            y = weight.product(args[0])
            return y if bias is None else y + bias
        if func in _MATMUL and weight.transposed:
            return weight.product(args[0])
    if isinstance(weight, ExpertStack) and func in _BMM and weight.transposed and args[0].dim() == 3:
        return weight.product(args[0])
    lazy = (ExpertMatrix, ExpertStack)
    return func(
        *(value.unpack() if isinstance(value, lazy) else value for value in args),
        **{name: value.unpack() if isinstance(value, lazy) else value for name, value in kwargs.items()},
    )
