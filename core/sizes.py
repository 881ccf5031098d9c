"""Bytes of a layer and of a whole output, and effective bits per weight, from shapes alone.

Knows how many bytes the formats spend (GPTQ's and AutoRound's layouts hold the same tensors: integers, scales
in 16 bits, zero points packed like the integers; GPTQ adds an index of groups). Reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.model.plans import LayerPlan, grouped
from core.model.tree import ModelTree
from core.schemes import LayerScheme

_WITH_INDEX = ("auto_gptq",)


@dataclass(frozen=True)
class OutputSize:
    """Bytes of one output.

    Attributes:
        total: all tensors.
        quantized: integers, scales and zero points of the quantized linears.
        index: tables that a format adds and that hold no information (GPTQ's g_idx).
        kept: tensors that stay as they are in the source.
        weights: number of quantized weights.
        source: all tensors of the source.
    """

    total: int
    quantized: int
    index: int
    kept: int
    weights: int
    source: int

    @property
    def effective_bits(self) -> float:
        """Bits that a quantized weight costs with its share of scales and zero points; 0 if nothing is quantized."""
        return 8 * self.quantized / self.weights if self.weights else 0.0


def quantized_bytes(in_features: int, out_features: int, scheme: LayerScheme) -> int:
    """`LayerScheme.weight_bytes`: integers, scales and zero points of a quantized linear."""
    return scheme.weight_bytes(in_features, out_features)


def layer_bytes(in_features: int, out_features: int, scheme: LayerScheme, format_name: str, kept: int) -> int:
    """Bytes of a linear's weight in a file of `format_name`; `kept` where it stays as it is."""
    if not scheme.quantized:
        return kept
    return quantized_bytes(in_features, out_features, scheme) + _index_bytes(in_features, format_name)


def output_size(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> OutputSize:
    """Bytes of the whole checkpoint that `plans` make of `tree`; biases and all other tensors stay.

    A quantized head that was tied takes nothing away but a copy that the source may have: the embedding stays.
    """
    source = tree.nbytes
    kept, quantized, index, weights = source, 0, 0, 0
    for case, count in grouped(tree, plans).counts:
        if not case.scheme.quantized:
            continue
        kept -= count * case.stored
        quantized += count * quantized_bytes(case.in_features, case.out_features, case.scheme)
        index += count * _index_bytes(case.in_features, format_name)
        weights += count * case.in_features * case.out_features
    return OutputSize(kept + quantized + index, quantized, index, kept, weights, source)


def effective_bits(plans: Sequence[LayerPlan]) -> float:
    """Effective bits per weight of the quantized linears of a map; 0 if there are none."""
    linears = [(plan.linear, plan.scheme) for plan in plans if plan.scheme.quantized]
    chosen = [(linear.in_features, linear.out_features, scheme) for linear, scheme in linears]
    weights = sum(rows * columns for rows, columns, _ in chosen)
    return 8 * sum(quantized_bytes(*layer) for layer in chosen) / weights if weights else 0.0


def _index_bytes(in_features: int, format_name: str) -> int:
    return 4 * in_features if format_name in _WITH_INDEX else 0
