"""Detection of the weights of a checkpoint that are stored in 8 bits or less, from its tensor table and config.

A weight is recognized by its dtype and by the names of the tensors beside it; for a layer X these are

    FP8, INT8                X.weight, X.weight_scale_inv | X.weight_scale | X.scale | X.qscale_weight
    ModelOpt's FP4           X.weight U8, X.weight_scale, X.weight_scale_2 (multiplied)
    compressed-tensors' FP4  X.weight_packed U8, X.weight_scale, X.weight_global_scale (divides the scales)
    packed integers          X.weight_packed I32, X.weight_scale, X.weight_zero_point, X.weight_g_idx
    MXFP4 of gpt-oss         X_blocks U8 [experts, out, groups, 16], X_scales [experts, out, groups]

All scales are multiplied, also `weight_scale_inv`, which is named after the inverse of the factor that was used to
quantize. Scales are used as they are stored: `scale_fmt: ue8m0` describes the scales of activations as well, so scales
that are stored as floats must not be rounded to powers of two. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core.errors import CorruptFile, UnsupportedModel
from core.formats.dequantized.settings import SourceSettings, WeightSettings
from core.formats.dequantized.stored_weight import EXPONENTS, FLOAT8, Encoding, StoredWeight
from core.model.corrections import PACKED
from core.model.headers import TensorInfo, short

_AGAIN: Final = "Download the model again."
_ORIGINAL: Final = "Use the original model in 16 bits."
_SCALES: Final = ("_scale_inv", "_scale")
"""Appended to the name of a weight."""
_SCALES_OF_LAYER: Final = (".scale", ".qscale_weight")
"""Appended to the name of a layer (DeepSeek V4, Mistral Large)."""
_DROPPED: Final = (
    ".input_scale", ".input_global_scale", ".input_zero_point", ".input_scale_ub", ".activation_scale",
    ".output_scale", ".output_zero_point", ".q_scale", ".k_scale", ".v_scale", ".k_zero_point", ".v_zero_point",
    ".prob_scale", ".prob_output_scale", ".qscale_act", ".weight_zero_point", ".weight_shape", ".weight_g_idx",
)  # fmt: skip
"""Name suffixes of scales of activations and of the KV cache, and of tensors that add nothing to a weight."""
_UNREADABLE: Final = (".pre_quant_scale", ".weight_scale_and_zero", ".svdquant_lora_a")
"""Name suffixes of tensors by which activations are changed as well, so that weights alone are another model."""
_FLOAT_SCALES: Final = ("F32", "BF16", "F16")
_MATRIX: Final = 2
_GROUP: Final = {"MXFP4": 32, "NVFP4": 16}


@dataclass
class _Search:
    """The state of a search; mutable, since it is filled tensor by tensor.

    Attributes:
        found: name in the original model -> weight.
        used: names of the tensors of these weights.
    """

    table: Mapping[str, TensorInfo]
    settings: SourceSettings
    found: dict[str, StoredWeight] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def add(self, weight: StoredWeight) -> None:
        name = weight.info.name
        if name in self.found or (name in self.table and name != weight.values.name):
            raise CorruptFile(f"{short(name)} is stored both quantized and unquantized.", _AGAIN)
        self.found[name] = weight
        parts = (weight.values, weight.scales, weight.factor, weight.zeros, weight.order)
        self.used.update(part.name for part in parts if part is not None)

    def scale_of(self, weight: str) -> TensorInfo:
        """Return the scales of the tensor `weight`, such as `X.weight`.

        Raises:
            CorruptFile: there are none.
        """
        found = self.optional_scale(weight)
        if found is None:
            raise CorruptFile(f"{short(weight)} is stored as {self.table[weight].dtype} without a scale.", _AGAIN)
        return found

    def optional_scale(self, weight: str) -> TensorInfo | None:
        layer = weight.removesuffix(".weight")
        names = [weight + ending for ending in _SCALES]
        names += [layer + ending for ending in _SCALES_OF_LAYER if layer != weight]
        return next((self.table[name] for name in names if name in self.table), None)


def find_weights(
    table: Mapping[str, TensorInfo], settings: SourceSettings
) -> tuple[dict[str, StoredWeight], dict[str, TensorInfo]]:
    """Return the weights that are stored in 8 bits or less by name, and the tensor table of the original model.

    Args:
        table: of the checkpoint.
        settings: from its config.

    Raises:
        CorruptFile: scales are missing, or shapes contradict each other or the config.
        UnsupportedModel: the weights are stored in an unknown way.
    """
    odd = next((name for name in table if name.endswith(_UNREADABLE)), None)
    if odd is not None:
        raise UnsupportedModel(
            f"The checkpoint scales the inputs of its layers ({short(odd)}), which cannot be read.", _ORIGINAL
        )
    search = _Search(table, settings)
    for name, info in table.items():
        if name.endswith("_blocks") and info.dtype == "U8":
            search.add(_of_blocks(search, info))
        elif name.endswith("_packed") and info.dtype in ("U8", "I32"):
            search.add(_of_packed(search, info))
        elif info.dtype in FLOAT8 and name not in search.used and not _is_scale(search, name):
            search.add(_of_bytes(search, info, "float8"))
        elif info.dtype in ("I8", "U8") and search.optional_scale(name) is not None:
            search.add(_of_bytes(search, info, "int8"))
    return search.found, _original(search)


def _is_scale(search: _Search, name: str) -> bool:
    """Return whether an 8-bit tensor contains scales of another tensor, such as those of NVFP4."""
    return name.endswith((*_SCALES, *_SCALES_OF_LAYER, "_scales", *_DROPPED))


def _original(search: _Search) -> dict[str, TensorInfo]:
    """Return the tensor table of the original model, in the order of the checkpoint."""
    by_values = {weight.values.name: weight.info for weight in search.found.values()}
    table: dict[str, TensorInfo] = {}
    for name, info in search.table.items():
        if name in by_values:
            table[by_values[name].name] = by_values[name]
        elif name not in search.used and not name.endswith(_DROPPED):
            if name.endswith((*PACKED, "_scale_inv", "_scales")) and info.name not in search.found:
                raise CorruptFile(f"The quantized weights that belong to {short(name)} are missing.", _AGAIN)
            table[name] = info
    return table


def _of_bytes(search: _Search, values: TensorInfo, encoding: Encoding) -> StoredWeight:
    """Return a weight with one value, or two FP4 values, for each byte."""
    scales = search.scale_of(values.name)
    # Integers in 8 bits have scales in 16 or 32 bits; ModelOpt and DeepSeek store two FP4 values as U8 or I8.
    if encoding == "int8" and (values.dtype == "U8" or scales.dtype in EXPONENTS):
        factor = search.table.get(f"{values.name}_scale_2")
        return _of_nibbles(search, values, values.name, scales, factor, divides=False)
    settings = search.settings.of(values.name.removesuffix(".weight")) or WeightSettings()
    allowed = _FLOAT_SCALES if encoding == "int8" else (*_FLOAT_SCALES, *EXPONENTS)
    zeros = search.table.get(f"{values.name}_zero_point") if encoding == "int8" and not settings.symmetric else None
    return _weight(values.name, values, encoding, values.shape, scales, allowed, settings, zeros=zeros)


def _of_packed(search: _Search, values: TensorInfo) -> StoredWeight:
    """Return a weight of compressed-tensors with FP4 values or integers."""
    name = values.name.removesuffix("_packed")
    scales = search.table.get(f"{name}_scale")
    if scales is None:
        raise CorruptFile(f"{short(values.name)} has no scale.", _AGAIN)
    if values.dtype == "U8":
        factor = search.table.get(f"{name}_global_scale")
        return _of_nibbles(search, values, name, scales, factor, divides=True)
    settings = search.settings.of(name.removesuffix(".weight"))
    if settings is None:
        raise CorruptFile(f"The quantization config has no group for {short(name)}.", _AGAIN)
    zeros = None if settings.symmetric else search.table.get(f"{name}_zero_point")
    if not settings.symmetric and zeros is None:
        raise CorruptFile(f"{short(name)} has no zero points, but its config is not symmetric.", _AGAIN)
    words = values.shape[-1] if values.shape else 0
    # the last word may be incomplete; the stored shape is compared when the weight is read
    columns = _columns(words * 32 // settings.bits, settings, scales)
    shape = (*values.shape[:-1], columns)
    order = search.table.get(f"{name}_g_idx")
    return _weight(
        name, values, "packed", shape, scales, _FLOAT_SCALES, settings, bits=settings.bits, zeros=zeros, order=order
    )


def _columns(most: int, settings: WeightSettings, scales: TensorInfo) -> int:
    """Return the number of columns of packed integers, of which `most` fit into the words."""
    width = settings.block[1] if settings.block else 0
    grouped = width * scales.shape[-1] if width and scales.shape else most
    return grouped if most - 32 < grouped <= most else most


def _of_nibbles(
    search: _Search, values: TensorInfo, name: str, scales: TensorInfo, factor: TensorInfo | None, *, divides: bool
) -> StoredWeight:
    """Return a weight with two FP4 values for each byte: MXFP4 with powers of two, or NVFP4 with FP8 scales."""
    kind = "MXFP4" if scales.dtype in EXPONENTS else "NVFP4"
    if kind == "NVFP4" and scales.dtype != "F8_E4M3":
        raise UnsupportedModel(
            f"{short(name)} is packed as {values.dtype} with scales in {scales.dtype}, which cannot be read.", _ORIGINAL
        )
    if (factor is None) == (kind == "NVFP4"):
        problem = "no global scale" if factor is None else "a global scale beside scales that are powers of two"
        raise CorruptFile(f"{short(name)} has {problem}.", _AGAIN)
    shape = (*values.shape[:-1], 2 * values.shape[-1]) if values.shape else ()
    settings = WeightSettings(4, (1, _GROUP[kind]))
    allowed = EXPONENTS if kind == "MXFP4" else ("F8_E4M3",)
    return _weight(
        name, values, "float4", shape, scales, allowed, settings, bits=4, factor=factor, divides=divides, only=True
    )


def _of_blocks(search: _Search, values: TensorInfo) -> StoredWeight:
    """Return an expert weight of gpt-oss, which the model stores transposed: [experts, in, out]."""
    name = values.name.removesuffix("_blocks")
    scales = search.table.get(f"{name}_scales")
    if scales is None:
        raise CorruptFile(f"{short(values.name)} has no scales.", _AGAIN)
    if len(values.shape) != 4 or values.shape[-1] != _GROUP["MXFP4"] // 2 or scales.shape != values.shape[:-1]:
        raise _mismatch(name, values.shape, scales, (1, _GROUP["MXFP4"]))
    experts, rows, groups, half = values.shape
    shape = (experts, rows, groups * half * 2)
    settings = WeightSettings(4, (1, _GROUP["MXFP4"]))
    return _weight(name, values, "float4", shape, scales, EXPONENTS, settings, bits=4, transposed=True, only=True)


def _weight(
    name: str,
    values: TensorInfo,
    encoding: Encoding,
    shape: tuple[int, ...],
    scales: TensorInfo,
    allowed: tuple[str, ...],
    settings: WeightSettings,
    *,
    bits: int = 8,
    factor: TensorInfo | None = None,
    divides: bool = False,
    zeros: TensorInfo | None = None,
    order: TensorInfo | None = None,
    transposed: bool = False,
    only: bool = False,
) -> StoredWeight:
    """Return the weight of a tensor `shape` as stored, after finding the blocks that its scales are for.

    Args:
        allowed: dtype codes of the scales.
        only: allow no other blocks than those of the settings.
    """
    if len(shape) not in (_MATRIX, _MATRIX + 1) or 0 in shape:
        raise UnsupportedModel(
            f"{short(values.name)} has the shape {list(values.shape)}; only quantized matrices can be read.", _ORIGINAL
        )
    if scales.dtype not in allowed:
        raise UnsupportedModel(f"{short(scales.name)} is stored as {scales.dtype}, which cannot be read.", _ORIGINAL)
    matrices = shape[0] if len(shape) > _MATRIX else 1
    rows, columns = shape[-2:]
    grid, block = _blocks(name, shape, scales, settings, only=only)
    dtype = "F16" if encoding in ("int8", "packed") else "BF16"
    original = (*shape[:-2], columns, rows) if transposed else shape
    info = TensorInfo(name, dtype, original, values.file, 0, 2 * matrices * rows * columns)
    weight = StoredWeight(
        info, values, encoding, matrices, rows, columns, scales, grid, block,
        factor, divides, bits, zeros, order, transposed,
    )  # fmt: skip
    _check_parts(weight)
    return weight


def _check_parts(weight: StoredWeight) -> None:
    """Check the dtypes and shapes of the tensors beside the values and scales.

    Raises:
        CorruptFile: a shape or a dtype is invalid.
    """
    factor, zeros, order = weight.factor, weight.zeros, weight.order
    wrong = None
    if factor is not None and (factor.numel not in (1, weight.matrices) or factor.dtype not in _FLOAT_SCALES):
        wrong = factor
    if zeros is not None:
        height, groups = weight.grid
        words = (-(-height * weight.bits // 32), groups)
        packed = zeros.dtype == "I32" and weight.encoding == "packed" and zeros.shape == words
        if weight.matrices > 1 or not (packed or (zeros.dtype == "I8" and zeros.numel == height * groups)):
            wrong = zeros
    if order is not None and (order.dtype not in ("I32", "I64") or order.shape != (weight.columns,)):
        wrong = order
    if wrong is not None:
        raise CorruptFile(
            f"{short(wrong.name)} is {wrong.dtype} {list(wrong.shape)}, which does not fit {short(weight.info.name)}.",
            _AGAIN,
        )


def _blocks(
    name: str, shape: tuple[int, ...], scales: TensorInfo, settings: WeightSettings, *, only: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the number of scales of a matrix along its rows and columns, and the size of their blocks.

    Raises:
        CorruptFile: the scales do not fit the weight.
    """
    matrices, (rows, columns) = shape[0] if len(shape) > _MATRIX else 1, shape[-2:]
    if scales.numel == 1 and not only:
        return ((0, 0) if matrices > 1 else (1, 1)), (rows, columns)
    # one scale for each block, group of 32 (MX), row, or matrix; the config decides between the first ones
    sizes = [settings.block] if settings.block else []
    if not only:
        sizes += [(1, 32)] if scales.dtype in EXPONENTS else []
        sizes += [(1, 0), (0, 0)]
    for height, width in sizes:
        block = (height or rows, width or columns)
        grid = (-(-rows // block[0]), -(-columns // block[1]))
        if _is_grid(scales.shape, matrices if len(shape) > _MATRIX else 0, grid):
            return grid, block
    raise _mismatch(name, shape, scales, settings.block)


def _is_grid(found: tuple[int, ...], matrices: int, grid: tuple[int, int]) -> bool:
    """Return whether a shape is that of scales: `grid`, preceded by `matrices` if not 0.

    If the shape has another number of dimensions, such as that of one scale for each row, lengths of 1 do not count.
    """
    wanted = ((matrices,) if matrices else ()) + grid
    if len(found) == len(wanted):
        return found == wanted
    return [length for length in found if length != 1] == [length for length in wanted if length != 1]


def _mismatch(name: str, shape: tuple[int, ...], scales: TensorInfo, block: tuple[int, int] | None) -> CorruptFile:
    size = " x ".join(str(length) if length else "all" for length in block) if block else ""
    blocks = f" in blocks of {size}" if size else ""
    return CorruptFile(
        f"{short(scales.name)} has the shape {list(scales.shape)}, which does not fit the weights {list(shape)} of "
        f"{short(name)}{blocks}.",
        _AGAIN,
    )
