"""Size of a layer and of a whole output, and effective bits per weight, computed from shapes.

The layouts of GPTQ, AWQ and AutoRound hold the same tensors: integers, scales in 16 bits, and zero points packed like
the integers. GPTQ adds an index of groups; GGUF has blocks. Reads no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.bitsmap import BitsMap
from core.errors import BitwrightError
from core.formats.gguf.types import linear_type, other_type, type_bytes
from core.formats.grids import plan_layers
from core.formats.names import is_gguf, mix_of
from core.model.plans import LayerPlan, grouped
from core.model.towers import tower_of
from core.model.tree import ModelTree
from core.schemes import LayerScheme
from core.wording import human

_OFFERED = "q4_k_m"
"""The GGUF type suggested for outputs in which the embedding should be quantized, too."""
_WITH_INDEX = ("auto_gptq", "gptqmodel", "auto_round:gptqmodel")


@dataclass(frozen=True)
class OutputSize:
    """Size of one output.

    Attributes:
        total: bytes of all tensors.
        quantized: bytes of integers, scales and zero points of the quantized linears.
        index: bytes of redundant tables of a format (GPTQ's g_idx).
        kept: bytes of all other tensors in this format.
        weights: number of quantized weights.
        source: bytes of all tensors of the source.
    """

    total: int
    quantized: int
    index: int
    kept: int
    weights: int
    source: int

    @property
    def effective_bits(self) -> float:
        """Bits per quantized weight, scales and zero points included; 0 if nothing is quantized."""
        return 8 * self.quantized / self.weights if self.weights else 0.0


def quantized_bytes(in_features: int, out_features: int, scheme: LayerScheme, format_name: str = "auto_round") -> int:
    """Return the bytes of integers, scales and zero points of a quantized linear, without redundant tables.

    A scheme that the format does not support counts with its own size.
    """
    if is_gguf(format_name):
        name = linear_type(scheme)
        if name:
            return type_bytes(name, (out_features, in_features))
    return scheme.weight_bytes(in_features, out_features)


def layer_bytes(in_features: int, out_features: int, scheme: LayerScheme, format_name: str, kept: int) -> int:
    """Return the bytes of a linear's weight in the format `format_name`; `kept` if it is not quantized."""
    if not scheme.quantized:
        return kept
    return quantized_bytes(in_features, out_features, scheme, format_name) + _index_bytes(in_features, format_name)


def output_size(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> OutputSize:
    """Return the size of the output of `plans`; biases and all other tensors are kept.

    The embedding is kept if a tied head is quantized; only a copy of the head in the source is removed.
    """
    source = tree.nbytes
    kept, quantized, index, weights = source + _grown(tree, format_name), 0, 0, 0
    for case, count in grouped(tree, plans).counts:
        if not case.scheme.quantized:
            continue
        kept -= count * case.stored
        quantized += count * quantized_bytes(case.in_features, case.out_features, case.scheme, format_name)
        index += count * _index_bytes(case.in_features, format_name)
        weights += count * case.in_features * case.out_features
    return OutputSize(kept + quantized + index, quantized, index, kept, weights, source)


def effective_bits(plans: Sequence[LayerPlan], format_name: str = "auto_round") -> float:
    """Return the effective bits per weight of the quantized linears, or 0 if there are none."""
    linears = [(plan.linear, plan.scheme) for plan in plans if plan.scheme.quantized]
    chosen = [(linear.in_features, linear.out_features, scheme) for linear, scheme in linears]
    weights = sum(rows * columns for rows, columns, _ in chosen)
    return 8 * sum(quantized_bytes(*layer, format_name) for layer in chosen) / weights if weights else 0.0


def larger_than_source(source_bytes: int, tree: ModelTree, total: int, format_name: str) -> str:
    """Return a warning, with a remedy, if an output of `total` bytes is larger than its source; else "".

    This happens for small models with a large vocabulary whose source is quantized: the source has a quantized
    embedding, which stays in 16 bits in all formats except the named GGUF types.

    Args:
        source_bytes: size of the files of the source.
        tree: module tree of the model.
        total: size of the output.
        format_name: format of the output.
    """
    if not source_bytes or total <= source_bytes:
        return ""
    words = f"The output will be larger than its source: {human(total)} instead of {human(source_bytes)}."
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    if embedding is None or mix_of(format_name):
        return words
    kept = type_bytes(other_type(format_name, tree, embedding), embedding.shape)
    offered = f"gguf:{_OFFERED}"
    try:
        plans = plan_layers(tree, BitsMap(LayerScheme()), (offered,))
        smaller = output_size(tree, plans, offered).total
    except (BitwrightError, ValueError):
        return f"{words} The embedding, which stays in 16 bits, takes {human(kept)} of it."
    if smaller >= total:
        return words
    return (
        f"{words} The embedding, which stays in 16 bits, takes {human(kept)} of it; --format {offered} also quantizes "
        f"the embedding and gives about {human(smaller)}."
    )


def _grown(tree: ModelTree, format_name: str) -> int:
    """Return the bytes by which a format changes the size of the tensors that are not quantized layers.

    GGUF files leave towers out.
    """
    if not is_gguf(format_name):
        return 0
    linears = {tree.weight_of(linear) for linear in tree.linears}
    grown = 0
    for info in tree.tensors.values():
        if tower_of(tree.towers, info.name) is not None:
            grown -= info.nbytes
        elif info.name not in linears:
            grown += type_bytes(other_type(format_name, tree, info), info.shape) - info.nbytes
        elif info.dtype not in ("F16", "BF16", "F32"):
            grown += 4 * info.numel - info.nbytes
    return grown


def _index_bytes(in_features: int, format_name: str) -> int:
    return 4 * in_features if format_name in _WITH_INDEX else 0
