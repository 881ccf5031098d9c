"""What a model on disk can become: which formats hold it to the bit, which only nearly, which not at all, and why.

Decided from headers and configs alone, before anything is written. Knows schemes and formats, no tensor's values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from core.bitsmap import BitsMap, Rule
from core.conversion import regrid
from core.conversion.survey import ConversionOption, Verdict
from core.errors import BadInput, BitwrightError, UnsupportedModel
from core.formats.gguf.mixes import tuned_as
from core.formats.gguf.types import linear_type, other_type
from core.formats.grids import plan_layers
from core.formats.names import AWQ, FORMATS, GPTQ, PLAIN, is_gguf, mix_of
from core.formats.plain import CODES, DIGITS, plan_plain
from core.formats.registry import plan
from core.formats.stored import Checkpoint, FormatPlan
from core.model.headers import TensorInfo
from core.model.plans import LayerPlan
from core.model.tree import ModelTree, build_tree
from core.schemes import UNTOUCHED, LayerScheme

_LEFT: Final = LayerScheme(bits=UNTOUCHED)
_FLOATS: Final = ("BF16", "F16", "F32")
_AGAIN = "Quantize the original model to this format instead."


@dataclass(frozen=True)
class Conversion:
    """How one source becomes one format.

    Attributes:
        plan: of the output.
        cost: why weights change, one sentence; "" where none does.
        dense: quantized linears of the source that become 32-bit floats, which hold them exactly.
        notes: what else should be known.
    """

    plan: FormatPlan
    cost: str = ""
    dense: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return not self.cost

    @property
    def is_plain(self) -> bool:
        return self.plan.name in PLAIN

    @property
    def hint(self) -> str:
        """What to do where the cost is not wanted, or is."""
        return "Ask for an inexact conversion (--inexact) to have it all the same, or choose another format."


@dataclass(frozen=True)
class Subject:
    """A source, looked at once for all formats.

    Attributes:
        table: of its tensors, as if nothing were quantized.
        tree: what they make.
        config: of the original.
        act_order: layers with act-order (`desc_act`).
        foreign: linears whose block type is only read as floats -> that type.
        label: what the source is called.
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


@dataclass
class _Targets:
    """What becomes of each linear of a source in one format; grows while they are looked at."""

    schemes: dict[str, LayerScheme] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)
    costs: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def cost(self) -> str:
        """The commonest reason why weights change; the others are told by how many there are."""
        if not self.costs:
            return ""
        return " ".join(why for why, _ in self.costs.most_common(2))


def look_at(checkpoint: Checkpoint, label: str = "") -> Subject:
    """What all formats need to know of a source.

    Raises:
        BadInput: layers are quantized that lie outside of what can be converted.
    """
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    table = checkpoint.dense_table()
    tree = build_tree(config, table)
    lost = set(checkpoint.schemes) - {linear.name for linear in tree.linears}
    if lost:
        raise BadInput(f"{min(lost)} is quantized and outside the decoder blocks.", "This cannot be converted yet.")
    act_order = frozenset(getattr(checkpoint, "act_order", ()))
    return Subject(checkpoint, table, tree, tree.config, act_order, _foreign(checkpoint, tree), label)


def conversions(subject: Subject) -> list[ConversionOption]:
    """Every format that there is, and what it would do to the model."""
    found, refused = [], ""
    for name in (*FORMATS, *PLAIN):
        if is_gguf(name) and refused:
            found.append(ConversionOption(name, "no", refused, 0))
            continue
        try:
            found.append(_possible(subject, name))
        except UnsupportedModel as error:
            # an architecture or a tokenizer without a place in GGUF is that for every type, and takes long to look at
            refused = error.message if is_gguf(name) else refused
            found.append(ConversionOption(name, "no", error.message, 0))
    return found


def kind_of(checkpoint: Checkpoint) -> str:
    """What a checkpoint is, for people: `GPTQ`, `GGUF`, or the floating-point types that it has."""
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
    """How a source becomes `format_name`.

    Raises:
        BadInput: it cannot, or there is no such format.
        UnsupportedModel: the format has no place for models of this kind.
    """
    if format_name in PLAIN:
        return _to_plain(subject, format_name)
    if format_name not in FORMATS:
        raise BadInput(f"There is no output format {format_name!r}.", f"Choose from {', '.join((*FORMATS, *PLAIN))}.")
    _refuse_foreign(subject, format_name)
    found = _gguf_targets(subject, format_name) if is_gguf(format_name) else _integer_targets(subject, format_name)
    tree = _with_dense(subject, found.dense) if found.dense else subject.tree
    plans = [
        LayerPlan(linear, found.schemes.get(linear.name, _LEFT), "as in the source", "") for linear in tree.linears
    ]
    settings = getattr(subject.checkpoint, "settings", None)
    module_name: Callable[[str], str] = settings.module_names(list(subject.schemes)) if settings is not None else str
    made = plan(
        format_name, tree, plans, dict(subject.config), module_name, subject.checkpoint.folder, subject.label,
        act_order=bool(subject.act_order) and not is_gguf(format_name), embedding_type=_embedding_type(subject),
    )  # fmt: skip
    if made.min_zero and any(scheme.quantized and not scheme.sym for scheme in found.schemes.values()):
        found.notes.append("A zero point of 0 is stored by counting its group from the other end: the same weights.")
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
    plans = [LayerPlan(linear, subject.schemes.get(linear.name, _LEFT), "as in the source", "") for linear in
             subject.tree.linears]  # fmt: skip
    code = CODES[name]
    costs: list[str] = []
    digits = max((_digits(scheme) for scheme in set(subject.schemes.values())), default=0)
    if digits > DIGITS[code]:
        costs.append(f"Its weights have up to {digits} significant bits, and {code} has {DIGITS[code]}.")
    others = {subject.table[item].dtype for item in subject.checkpoint.plain if item in subject.table}
    for other in sorted(others & set(_FLOATS)):
        if DIGITS[other] > DIGITS[code]:
            costs.append(f"Tensors in {other} have {DIGITS[other]} significant bits, and {code} has {DIGITS[code]}.")
        elif (other, code) == ("BF16", "F16"):
            costs.append("Numbers of BF16 that are very small or very large are out of the range of F16.")
    return Conversion(plan_plain(name, subject.tree, plans, subject.config), " ".join(costs[:2]))


def _digits(scheme: LayerScheme) -> int:
    """Significant bits that a weight of a scheme can have: those of a float16 scale, 11, and of an integer.

    Symmetric levels of b bits lie in -2^(b-1) to 2^(b-1)-1: b-1 bits, and at 2 bits only powers of two, which add none.
    Others are as long as float32 is.
    """
    if scheme.type:
        scheme = tuned_as(scheme.type)
    if scheme.type not in ("", "q5_0"):
        return DIGITS["F32"]
    bits = scheme.bits - 1 if scheme.sym else scheme.bits
    return 11 + bits if bits > 1 else 11


def _integer_targets(subject: Subject, name: str) -> _Targets:
    """For a format of integers with float16 scales: the source's own, and those of the two types that are the same."""
    if not subject.schemes:
        raise BadInput(
            f"The model is not quantized, and {name} holds integers that are tuned.", "Use `bitwright quantize` on it."
        )
    if subject.act_order and name not in GPTQ:
        raise BadInput(
            f"{_listed(subject.act_order)} has its inputs grouped in order of activation (desc_act), which only "
            f"{' and '.join(GPTQ)} can store.",
            f"Choose {' or '.join(GPTQ)}, or floating-point numbers.",
        )
    found = _Targets()
    stuck: dict[str, list[str]] = {}
    for linear in subject.tree.linears:
        scheme = subject.schemes.get(linear.name)
        if scheme is None:
            continue
        plain = tuned_as(scheme.type) if scheme.type else scheme
        if not plain.type and not (linear.block < 0 and name in AWQ):
            found.schemes[linear.name] = plain
        elif linear.block < 0:
            found.dense.append(linear.name)
        else:
            stuck.setdefault(scheme.label(), []).append(linear.name)
    for label, names in stuck.items():
        raise BadInput(
            f"{_listed(names)} is in {label}, whose scales are no multiples that {name} could store.",
            "Choose gguf or floating-point numbers, or quantize the model anew.",
        )
    if found.dense:
        found.notes.append(f"{_listed(found.dense)} becomes 32-bit floats, which hold it exactly.")
    return found


def _gguf_targets(subject: Subject, name: str) -> _Targets:
    """For GGUF: what holds the source exactly, or the types of a mix with everything else rounded to them."""
    if mix_of(name):
        return _mix_targets(subject, name)
    found = _Targets()
    if subject.act_order:
        raise BadInput(
            f"{_listed(subject.act_order)} has its inputs grouped in order of activation (desc_act), and GGUF blocks "
            "hold consecutive inputs.",
            "Choose auto_gptq, floating-point numbers, or a GGUF type by name, such as gguf:q8_0.",
        )
    for linear_name, scheme in subject.schemes.items():
        found.schemes[linear_name] = scheme
        if not linear_type(scheme):
            found.schemes[linear_name] = tuned_as("q8_0")
            found.costs[f"No GGUF type holds {scheme.label()} (9 bits with its sign): it is rounded to Q8_0."] += 1
    return found


def _mix_targets(subject: Subject, name: str) -> _Targets:
    """What llama.cpp's quantizer would give each layer; in a quantized source, layers in 16 bits stay there."""
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
        found.costs[f"Layers are rounded once more: {kinds}."] += 1
    info = tree.tensors.get(f"{tree.embedding}.weight")
    kind = other_type(name, tree, info) if info is not None else "f32"
    if info is not None and kind not in ("f32", "f16", "bf16", _embedding_type(subject)):
        found.costs[f"The embedding is rounded to {kind.upper()}."] += 1
    return found


def _embedding_type(subject: Subject) -> str:
    """The block type of the source's embedding, whose bytes another GGUF file can take over; "" if it has none."""
    kind: Callable[[str], str] | None = getattr(subject.checkpoint, "embedding_type", None)
    return kind(subject.tree.embedding) if kind is not None and subject.tree.embedding else ""


def _refuse_foreign(subject: Subject, name: str) -> None:
    for linear, kind in subject.foreign.items():
        raise BadInput(
            f"{linear} is in {kind}, which {name} cannot hold and Bitwright does not write.",
            "Choose floating-point numbers.",
        )


def _foreign(checkpoint: Checkpoint, tree: ModelTree) -> dict[str, str]:
    """Linears of a GGUF file in block types that are only dequantized."""
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
    """The tree in which these linears are 32-bit floats."""
    table = dict(subject.table)
    for name in names:
        info = table[f"{name}.weight"]
        table[info.name] = replace(info, dtype="F32", start=0, end=4 * info.numel)
    return build_tree(dict(subject.config), table)


def _listed(names: Any) -> str:
    """The first of some names, and how many more there are."""
    first, *others = sorted(names)
    return f"{first} (and {len(others)} more)" if others else first
