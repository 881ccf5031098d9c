"""Planning of conversions: whether each format can store a model exactly, with rounding, or not at all, and why.

Uses headers and configs only, so that the result is known before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from core.bitsmap import BitsMap, Rule
from core.conversion import regrid
from core.conversion.survey import ConversionOption, Verdict
from core.errors import BadInput, BitwrightError, UnsupportedModel
from core.formats.dense_store import DenseStore
from core.formats.gguf.mixes import tuned_as
from core.formats.gguf.types import linear_type, other_type
from core.formats.grids import plan_layers
from core.formats.names import AUTO_ROUND, AWQ, FORMATS, GPTQ, PLAIN, is_gguf, mix_of
from core.formats.plain import CODES, DIGITS, PlainCheckpoint, plan_plain
from core.formats.registry import plan
from core.formats.stored import Checkpoint, FormatPlan
from core.model.fused_experts import EXPERT
from core.model.headers import TensorInfo
from core.model.plans import LayerPlan
from core.model.tree import HEAD, TOWER, ModelTree, build_tree
from core.model.weights import TensorStore
from core.schemes import UNTOUCHED, LayerScheme

if TYPE_CHECKING:
    from core.model.skeleton import Skeleton

_LEFT: Final = LayerScheme(bits=UNTOUCHED)
_FLOATS: Final = ("BF16", "F16", "F32")
_AGAIN = "Quantize the original model to this format instead."


@dataclass(frozen=True)
class Conversion:
    """The plan of a conversion of one source to one format.

    Attributes:
        plan: of the output.
        cost: the reason why weights change; "" if the conversion is exact.
        dense: quantized linear layers of the source that become 32-bit floats, which represent them exactly.
        notes: remarks for the user.
        joined: store with the experts in the tensors that transformers loads; None if the source's store is used.
    """

    plan: FormatPlan
    cost: str = ""
    dense: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    joined: TensorStore | None = None

    @property
    def exact(self) -> bool:
        """True if no weight changes."""
        return not self.cost

    @property
    def is_plain(self) -> bool:
        """True if the output consists of floating-point numbers."""
        return self.plan.name in PLAIN

    @property
    def hint(self) -> str:
        """Advice for the case that the conversion is not exact."""
        return "Allow an inexact conversion (--inexact), or choose another format."


@dataclass(frozen=True)
class Subject:
    """The properties of a source that all formats need.

    Attributes:
        checkpoint: the source.
        table: its tensors, as if it were not quantized.
        tree: layer tree of these tensors.
        config: config.json without `quantization_config`.
        act_order: layers with act-order (GPTQ's `desc_act`).
        foreign: linear layers in GGUF block types that can only be dequantized -> block type.
        label: display name of the source.
    """

    checkpoint: Checkpoint
    table: Mapping[str, TensorInfo]
    tree: ModelTree
    config: Mapping[str, Any]
    act_order: frozenset[str]
    foreign: Mapping[str, str]
    label: str

    @property
    def schemes(self) -> Mapping[str, LayerScheme]:
        return self.checkpoint.schemes

    @cached_property
    def skeleton(self) -> Skeleton | None:
        """The model of transformers for a mixture of experts, whose names differ from those of the tensors; else None.

        Raises:
            UnsupportedModel: transformers does not implement the model.
        """
        if not any(EXPERT.search(linear.kind) for linear in self.tree.linears):
            return None
        # imported here, since transformers is not needed for other models
        from core.model.skeleton import build_skeleton

        return build_skeleton(self.tree, DenseStore(self.checkpoint))

    @property
    def module_name(self) -> Callable[[str], str]:
        """Function from the name of a linear layer to the name of its module in the transformers model."""
        if self.skeleton is not None:
            return self.skeleton.module_name
        settings = getattr(self.checkpoint, "settings", None)
        return str if settings is None else settings.module_names(list(self.schemes))


@dataclass
class _Targets:
    """The target scheme of each linear layer of a source in one format; mutable, since it is filled layer by layer."""

    schemes: dict[str, LayerScheme] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)
    costs: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def cost(self) -> str:
        """The two most frequent reasons why weights change."""
        if not self.costs:
            return ""
        return " ".join(why for why, _ in self.costs.most_common(2))


def look_at(checkpoint: Checkpoint, label: str = "") -> Subject:
    """Analyze a source for conversions to any format.

    Raises:
        BadInput: a quantized layer cannot be converted.
    """
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    table = checkpoint.dense_table()
    tree = build_tree(config, table)
    lost = set(checkpoint.schemes) - {linear.name for linear in tree.linears}
    if lost:
        raise BadInput(
            f"{min(lost)} is quantized but outside the decoder blocks.", "Conversion of such layers is not supported."
        )
    act_order = frozenset(getattr(checkpoint, "act_order", ()))
    return Subject(checkpoint, table, tree, tree.config, act_order, _foreign(checkpoint, tree), label)


def conversions(subject: Subject) -> list[ConversionOption]:
    """Return an option for every output format."""
    found, refused = [], ""
    for name in (*FORMATS, *PLAIN):
        if is_gguf(name) and refused:
            found.append(ConversionOption(name, "no", refused, 0))
            continue
        try:
            found.append(_possible(subject, name))
        except UnsupportedModel as error:
            # an architecture or a tokenizer that GGUF does not support fails for every type, and checks take long
            refused = error.message if is_gguf(name) else refused
            found.append(ConversionOption(name, "no", error.message, 0))
    return found


def is_unpacked(checkpoint: Checkpoint) -> TypeGuard[PlainCheckpoint]:
    """Return whether the weights of a checkpoint are quantized in a format that is unpacked to 16 bits."""
    return isinstance(checkpoint, PlainCheckpoint) and checkpoint.source.quantized


def kind_of(checkpoint: Checkpoint) -> str:
    """Return the display name of a checkpoint's format: `GPTQ`, `GGUF`, `FP8`, or the dtype with the most bytes."""
    if is_unpacked(checkpoint):
        return checkpoint.source.kind
    settings = getattr(checkpoint, "settings", None)
    if settings is not None:
        return {"auto-round": "AutoRound", "gptq": "GPTQ", "awq": "AWQ"}.get(settings.method, settings.method)
    if hasattr(checkpoint, "model"):
        return "GGUF"
    dtypes = Counter[str]()
    for info in checkpoint.store.table.values():
        dtypes[info.dtype] += info.nbytes
    return max(dtypes, key=lambda code: dtypes[code], default="")


def plan_subject(subject: Subject, format_name: str) -> Conversion:
    """Plan the conversion of a source to `format_name`.

    Raises:
        BadInput: the format cannot store the source, or does not exist.
        UnsupportedModel: the format does not support the architecture or the tokenizer.
    """
    found = _plan(subject, format_name)
    return replace(found, cost=" ".join(filter(None, (unpacking_error(subject.checkpoint), found.cost))))


def unpacking_error(checkpoint: Checkpoint) -> str:
    """Return the reason why weights change when they are read as 16-bit floats; "" if they do not."""
    if not isinstance(checkpoint, PlainCheckpoint) or checkpoint.source.exact:
        return ""
    return f"The weights are stored as {checkpoint.source.kind}, and are rounded when they are unpacked to 16 bits."


def _plan(subject: Subject, format_name: str) -> Conversion:
    if format_name in PLAIN:
        return _to_plain(subject, format_name)
    if format_name not in FORMATS:
        raise BadInput(f"Unknown output format {format_name!r}.", f"Choose from {', '.join((*FORMATS, *PLAIN))}.")
    _refuse_foreign(subject, format_name)
    found = _gguf_targets(subject, format_name) if is_gguf(format_name) else _integer_targets(subject, format_name)
    tree = _with_dense(subject, found.dense) if found.dense else subject.tree
    plans = [
        LayerPlan(linear, found.schemes.get(linear.name, _LEFT), "as in the source", "") for linear in tree.linears
    ]
    module_name = str if is_gguf(format_name) else subject.module_name
    made = plan(
        format_name, tree, plans, dict(subject.config), module_name, subject.checkpoint.folder, subject.label,
        act_order=bool(subject.act_order) and not is_gguf(format_name), embedding_type=_embedding_type(subject),
    )  # fmt: skip
    if made.min_zero and any(scheme.quantized and not scheme.sym for scheme in found.schemes.values()):
        found.notes.append("Groups with a zero point of 0 are stored with mirrored levels; the weights are the same.")
    if is_gguf(format_name):
        found.notes += made.notes
    return Conversion(made, found.cost, tuple(found.dense), tuple(found.notes))


def _possible(subject: Subject, name: str) -> ConversionOption:
    try:
        found = plan_subject(subject, name)
    except UnsupportedModel:
        raise
    except BitwrightError as error:
        return ConversionOption(name, "no", error.message, 0)
    verdict: Verdict = "exact" if found.exact else "inexact"
    return ConversionOption(name, verdict, " ".join((*filter(None, [found.cost]), *found.notes)), found.plan.nbytes)


def _to_plain(subject: Subject, name: str) -> Conversion:
    tree, joined = subject.tree, None
    if subject.skeleton is not None:
        from core.conversion.joined_experts import join_experts

        tree, joined = join_experts(subject.skeleton.model, tree, DenseStore(subject.checkpoint))
    # experts in a tensor of another name or with other experts are written with the rest of the model
    schemes = {linear.name: subject.schemes.get(linear.name, _LEFT) for linear in tree.linears if linear.part is None}
    plans = [LayerPlan(linear, schemes.get(linear.name, _LEFT), "as in the source", "") for linear in tree.linears]
    code = CODES[name]
    costs: list[str] = []
    digits = max((_digits(scheme) for scheme in set(subject.schemes.values())), default=0)
    if digits > DIGITS[code]:
        costs.append(f"The weights have up to {digits} significant bits, but {code} has {DIGITS[code]}.")
    others = {subject.table[item].dtype for item in subject.checkpoint.plain if item in subject.table}
    for other in sorted(others & set(_FLOATS)):
        if DIGITS[other] > DIGITS[code]:
            costs.append(f"Tensors in {other} have {DIGITS[other]} significant bits, but {code} has {DIGITS[code]}.")
        elif (other, code) == ("BF16", "F16"):
            costs.append("Very small and very large BF16 values are outside the range of F16.")
    return Conversion(plan_plain(name, tree, plans, subject.config), " ".join(costs[:2]), joined=joined)


def _digits(scheme: LayerScheme) -> int:
    """Return the maximum number of significant bits of a weight: 11 of a float16 scale plus those of an integer.

    Symmetric levels of b bits are in -2^(b-1) to 2^(b-1)-1 and have b-1 bits; at 2 bits they are powers of two, which
    add none. Types with more than one scale need the precision of float32.
    """
    if scheme.type:
        scheme = tuned_as(scheme.type)
    if scheme.type not in ("", "q5_0"):
        return DIGITS["F32"]
    bits = scheme.bits - 1 if scheme.sym else scheme.bits
    return 11 + bits if bits > 1 else 11


def _integer_targets(subject: Subject, name: str) -> _Targets:
    """Return the targets in a format of integers with float16 scales: the source's own, and those of Q4_0 and Q8_0."""
    if not subject.schemes:
        raise BadInput(
            f"The model is not quantized, and {name} stores tuned integers.", "Use `bitwright quantize` instead."
        )
    if subject.act_order and name not in GPTQ:
        raise BadInput(
            f"{_listed(subject.act_order)} has act-order (desc_act), which only {' and '.join(GPTQ)} can store.",
            f"Choose {' or '.join(GPTQ)}, or a floating-point format.",
        )
    found = _Targets()
    stuck: dict[str, list[str]] = {}
    for linear in subject.tree.linears:
        scheme = subject.schemes.get(linear.name)
        if scheme is None:
            continue
        plain = tuned_as(scheme.type) if scheme.type else scheme
        unread = name in AWQ if linear.block == HEAD else linear.block == TOWER and name not in AUTO_ROUND
        if not plain.type and not unread:
            found.schemes[linear.name] = plain
        elif linear.block < 0:
            found.dense.append(linear.name)
        else:
            stuck.setdefault(scheme.label(), []).append(linear.name)
    for label, names in stuck.items():
        raise BadInput(
            f"{_listed(names)} is in {label}, whose scales {name} cannot store.",
            "Choose gguf or a floating-point format, or quantize the original model again.",
        )
    if found.dense:
        found.notes.append(f"{_listed(found.dense)} is stored as 32-bit floats, which represent it exactly.")
    return found


def _gguf_targets(subject: Subject, name: str) -> _Targets:
    """Return the targets in GGUF: types that store the source exactly, or the types of a mix."""
    if mix_of(name):
        return _mix_targets(subject, name)
    found = _Targets()
    if subject.act_order:
        raise BadInput(
            f"{_listed(subject.act_order)} has its inputs grouped in order of activation (desc_act), and GGUF blocks "
            "hold consecutive inputs.",
            "Choose auto_gptq, floating-point numbers, or a GGUF type by name, such as gguf:q8_0.",
        )
    towers = {linear.name for linear in subject.tree.of_block(TOWER)}
    for linear_name, scheme in subject.schemes.items():
        if linear_name in towers:
            continue
        found.schemes[linear_name] = scheme
        if not linear_type(scheme):
            found.schemes[linear_name] = tuned_as("q8_0")
            found.costs[
                f"No GGUF type can store {scheme.label()} (signed levels of 9 bits): it is rounded to Q8_0."
            ] += 1
    return found


def _mix_targets(subject: Subject, name: str) -> _Targets:
    """Return the types that llama.cpp's quantizer would choose; 16-bit layers of a quantized source stay in 16 bits."""
    tree, found = subject.tree, _Targets()
    left = [linear for linear in tree.linears if subject.schemes and linear.name not in subject.schemes]
    rules = tuple(Rule(linear.name, bits=UNTOUCHED) for linear in left if linear.block >= 0)
    rounded: Counter[str] = Counter()
    for item in plan_layers(tree, BitsMap(LayerScheme(), layers=rules), (name,)):
        layer, scheme = item.linear.name, item.scheme
        if not scheme.quantized:
            if layer in subject.schemes:
                found.dense.append(layer)
            continue
        found.schemes[layer] = scheme
        if not regrid.exact(subject.schemes.get(layer, _LEFT), scheme, act_order=layer in subject.act_order):
            rounded[linear_type(scheme).upper()] += 1
    if rounded:
        kinds = ", ".join(f"{count} to {kind}" for kind, count in rounded.most_common())
        found.costs[f"Layers are rounded again: {kinds}."] += 1
    info = tree.tensors.get(f"{tree.embedding}.weight")
    kind = other_type(name, tree, info) if info is not None else "f32"
    if info is not None and kind not in ("f32", "f16", "bf16", _embedding_type(subject)):
        found.costs[f"The embedding is rounded to {kind.upper()}."] += 1
    return found


def _embedding_type(subject: Subject) -> str:
    """Return the block type of the embedding in the source, which GGUF outputs can copy; "" if it has none."""
    kind: Callable[[str], str] | None = getattr(subject.checkpoint, "embedding_type", None)
    return kind(subject.tree.embedding) if kind is not None and subject.tree.embedding else ""


def _refuse_foreign(subject: Subject, name: str) -> None:
    for linear, kind in subject.foreign.items():
        raise BadInput(
            f"{linear} is in {kind}, which {name} cannot store and Bitwright cannot write.",
            "Choose a floating-point format.",
        )


def _foreign(checkpoint: Checkpoint, tree: ModelTree) -> dict[str, str]:
    """Return the linear layers of a GGUF file in block types that can only be dequantized."""
    model = getattr(checkpoint, "model", None)
    if model is None:
        return {}
    found = {}
    for linear in tree.linears:
        weight = tree.weight_of(linear)
        kind = model.tensors[weight].kind.name if weight in model.tensors else "F32"
        if kind not in _FLOATS and linear.name not in checkpoint.schemes:
            found[linear.name] = kind
    return found


def _with_dense(subject: Subject, names: list[str]) -> ModelTree:
    """Return the tree with these linear layers as 32-bit floats."""
    table = dict(subject.table)
    for name in names:
        info = table[f"{name}.weight"]
        table[info.name] = replace(info, dtype="F32", start=0, end=4 * info.numel)
    return build_tree(dict(subject.config), table)


def _listed(names: Any) -> str:
    """Return the first of some names and the number of the others, for a message."""
    first, *others = sorted(names)
    return f"{first} (and {len(others)} more)" if others else first
