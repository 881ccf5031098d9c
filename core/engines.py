"""What other programs make of a checkpoint before it is made: what they refuse, what runs without a fast kernel.

Read from their sources, not tried: vLLM as of August 2026, GPTQModel 7.3.4 (f4c327a1), AutoRound 0.16.1. Files of vLLM
are named with their commit, from vllm/model_executor/layers/quantization. One graphics card or one CPU that holds the
whole model; an engine that changes its mind is not noticed here. Knows no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.allocation.ties import Ties, tied
from core.bitsmap import BitsMap, with_layers
from core.errors import BadInput
from core.model.plans import LayerPlan, grouped
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

Severity = Literal["cannot", "slow"]
Binding = Literal["", "joined", "alike"]
JOINED: Binding = "joined"
ALIKE: Binding = "alike"
ALIKE_NOTE = (
    "In this format vLLM needs one scheme for all of q, k, v, gate and up; auto_round lets them differ by block."
)

_TITLES = {
    "bitwright": "Bitwright",
    "transformers-auto-round": "transformers with auto-round",
    "vllm-cuda": "vLLM on a graphics card",
    "vllm-cpu": "vLLM on a CPU",
    "gptqmodel": "GPTQModel",
    "llama-cpp": "llama.cpp",
}
ENGINES = tuple(_TITLES)

# vLLM: MARLIN_SUPPORTED_GROUP_SIZES in utils/marlin_utils.py (007d5005).
# GPTQModel: SUPPORTS_GROUP_SIZE of MarlinLinear and ExllamaV2Linear, gptqmodel/nn_modules/qlinear/.
_FAST_GROUPS = (-1, 32, 64, 128)
# GPTQModel: SUPPORTS_GROUP_SIZE of TorchLinear and TritonV2Linear, the last resorts; one group a row is taken as well.
_GPTQMODEL_GROUPS = (-1, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Mark:
    """What is wrong with a layer, or with the whole checkpoint where `layer` is "".

    Attributes:
        severity: `cannot`: the engine refuses the checkpoint. `slow`: it loads but without a fast kernel.
        repair: the scheme that would cure it; None where none does.
    """

    layer: str
    severity: Severity
    reason: str
    repair: LayerScheme | None

    @property
    def cannot(self) -> bool:
        return self.severity == "cannot"

    def sentence(self) -> str:
        """The reason with the layer's name."""
        return f"{self.layer}: {self.reason}." if self.layer else f"{self.reason}."


@dataclass(frozen=True)
class _Verdict:
    severity: Severity
    reason: str
    repair: LayerScheme | None = None


def title(engine: str) -> str:
    """The engine's name for people.

    Raises:
        BadInput: there is no such engine.
    """
    if engine not in _TITLES:
        raise BadInput(f"There is no engine {engine!r}.", f"Choose from {', '.join(ENGINES)}.")
    return _TITLES[engine]


def check(engine: str, tree: ModelTree, plans: Sequence[LayerPlan], format_name: str) -> list[Mark]:
    """All that an engine would object to, the whole checkpoint first, then layers in the order of the model."""
    title(engine)
    plans = grouped(tree, plans)
    used = Counter[LayerScheme]()
    for case, count in plans.counts:
        if case.scheme.quantized:
            used[case.scheme] += count
    marks = _whole(engine, format_name, used)
    packing = _packing(format_name, used)
    verdicts = [_verdict(engine, packing, case.scheme, case.in_features, case.out_features) for case in plans.cases]
    found: dict[int, _Verdict] = {}
    if any(verdicts):
        found = {place: verdict for place, kind in enumerate(plans.kinds) if (verdict := verdicts[kind])}
    bound = binding(engine, format_name)
    schemes = [plans.cases[kind].scheme for kind in plans.kinds]
    if bound == ALIKE:
        found |= _unlike(tree, schemes, found)
    elif bound == JOINED:
        found |= _disagreeing(tree, schemes, verdicts, plans.kinds)
    linears = tree.nameable  # plans have a tied head where the map names it
    return marks + [
        Mark(linears[place].name, verdict.severity, verdict.reason, verdict.repair)
        for place, verdict in sorted(found.items())
    ]


def repaired(engine: str, tree: ModelTree, bits_map: BitsMap, format_name: str) -> BitsMap:
    """The map with the least change after which the engine refuses no layer; the same map if it refuses none now.

    Bits go up, never down, with one exception: where an engine needs one scheme for all joined layers of the model
    (`ALIKE`), those in the minority follow the most. What is wrong with the checkpoint as a whole stays wrong.
    """
    heads = [linear.name for linear in tree.nameable if linear.block < 0]
    for _ in range(8):  # bits, then agreement, then what agreement changed; each round settles more
        marks = check(engine, tree, resolve_schemes(tree, bits_map), format_name)
        repairs: dict[LayerScheme, list[str]] = {}
        for mark in marks:
            if mark.cannot and mark.layer and mark.repair:
                repairs.setdefault(mark.repair, []).append(mark.layer)
        if not repairs:
            break
        for scheme, names in repairs.items():
            group, sym = (scheme.group_size, scheme.sym) if scheme.quantized else (None, None)
            bits_map = with_layers(bits_map, names, bits=scheme.bits, group_size=group, sym=sym, exact_only=heads)
    return bits_map


def allowed(engine: str, format_name: str) -> Callable[[LayerScheme, int, int], bool]:
    """Whether the engine runs a layer of a scheme with so many inputs and outputs; any for the engine ""."""
    if not engine:
        return lambda scheme, inputs, outputs: True
    title(engine)

    def runs(scheme: LayerScheme, inputs: int, outputs: int) -> bool:
        if not scheme.quantized:
            return True
        packing = _packing(format_name, {scheme})
        verdict = _verdict(engine, packing, scheme, inputs, outputs)
        return verdict is None or verdict.severity != "cannot"

    return runs


def binding(engine: str, format_name: str) -> Binding:
    """Whether the engine needs joined layers (q, k, v; gate, up) to agree: in each block, or in the whole model.

    vLLM joins them on loading. With auto_round, INCConfigParser looks each part up and refuses what differs
    (inc/config_parser.py, 07d580a6). With auto_gptq, `dynamic` is matched against the joined name alone, which no rule
    of ours names, so that joined layers get the default (utils/gptq_utils.py, 93e5a576; still so in main at ca90b9e7 of
    2026-08-27, where pull request 50214, which looks the parts up, was not in).
    """
    if not engine.startswith("vllm"):
        return ""
    return ALIKE if format_name == "auto_gptq" else JOINED


def ties(engine: str, format_name: str, wanted: Ties) -> Ties:
    """What must be tied for an engine, beside what is wanted."""
    return replace(wanted, fuse_qkv=True, fuse_gate_up=True) if engine and binding(engine, format_name) else wanted


def alike(engine: str, tree: ModelTree, format_name: str) -> list[int]:
    """Positions of linears that the engine needs alike: the joined ones, or all in the blocks if those are few."""
    if binding(engine, format_name) != ALIKE:
        return []
    joined = [place for group in tied(tree, _FUSED) for place in group]
    inside = len(tree.block_linears)
    return joined if 2 * len(joined) > inside or not joined else list(range(inside))


_FUSED = Ties(experts=False)


def _packing(format_name: str, schemes: Iterable[LayerScheme]) -> str:
    """How the quantized layers will lie in the file; for auto_round as in `core.formats.auto_round.choose_packing`."""
    if format_name != "auto_round":
        return "gptq"
    schemes = set(schemes)
    if all(scheme.sym for scheme in schemes):
        return "auto_round:auto_gptq"
    return "auto_round:auto_awq" if len(schemes) == 1 and next(iter(schemes)).bits == 4 else "auto_round"


def _whole(engine: str, format_name: str, used: Counter[LayerScheme]) -> list[Mark]:
    """What is wrong whatever the layers have."""
    if engine == "llama-cpp":
        # It reads GGUF alone; its converter takes safetensors with floating-point weights.
        return [Mark("", "cannot", "llama.cpp reads GGUF only, and GGUF is not written yet", None)]
    if engine == "gptqmodel" and format_name == "auto_round":
        # Nothing in gptqmodel/ knows `quant_method: auto-round` (7.3.4).
        return [Mark("", "cannot", "GPTQModel does not read the auto_round format; write auto_gptq", None)]
    if engine.startswith("vllm") and _packing(format_name, used) == "auto_round":
        # INCConfig.SUPPORTED_FORMATS has auto_round:auto_gptq and auto_round:auto_awq only (inc/inc.py, 07d580a6).
        return [
            Mark("", "cannot", "vLLM does not read AutoRound's own packing, which asymmetric layers need here", None)
        ]
    return []


def _verdict(engine: str, packing: str, scheme: LayerScheme, inputs: int, outputs: int) -> _Verdict | None:
    """What an engine makes of one layer by itself."""
    if not scheme.quantized:
        return None
    if engine in ("vllm-cuda", "vllm-cpu"):
        return _vllm(engine == "vllm-cpu", packing, scheme, inputs)
    if engine == "gptqmodel" and packing == "gptq":
        return _gptqmodel(scheme, inputs, outputs)
    if engine == "transformers-auto-round":
        return _auto_round(packing, scheme)
    return None


def _vllm(cpu: bool, packing: str, scheme: LayerScheme, inputs: int) -> _Verdict | None:
    """vLLM.

    4 and 8 bits, symmetric, groups of 32, 64, 128 or a row: AutoGPTQConfig.TYPE_MAP and verify_marlin_supported
    (auto_gptq.py, 055e47c2), INCWNA16LinearScheme._build_gptq_method (inc/schemes/inc_wna16_linear.py, 032d126e). The
    kernels for 2 and 3 bits went with gptq.py (pull request 38288, June 2026; issue 45051 asks for them back).
    A CPU: 4 bits alone (inc_wna16_scheme.py, 014bdcba; kernels/linear/mixed_precision/cpu.py, 00358600), and AWQ's
    layout is refused there ("AWQ is not supported in CPUWNA16LinearKernel"). A graphics card takes AWQ's layout with
    any group, by AutoAWQLinearMethod where Marlin's groups do not fit. Shapes that Marlin's tiles do not divide are
    padded (pull request 45295, June 2026; before, slower kernels took them).
    """
    bits = (4,) if cpu else (4, 8)
    if packing == "auto_round:auto_awq" and not cpu:
        if scheme.group_size in _FAST_GROUPS:
            return None
        return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")
    reasons = []
    if scheme.bits not in bits:
        reasons.append(f"{scheme.bits} bits have no kernel")
    if not scheme.sym:
        reasons.append("asymmetric layers in this layout have no kernel")
    if scheme.group_size not in _FAST_GROUPS:
        reasons.append(f"groups of {scheme.group_size} have no kernel")
    if not reasons:
        return None
    more = [width for width in bits if width >= scheme.bits]
    if not more:
        return _Verdict("cannot", reasons[0], replace(scheme, bits=UNTOUCHED))
    return _Verdict("cannot", "; ".join(reasons), LayerScheme(more[0], _group(scheme, inputs), True))


def _gptqmodel(scheme: LayerScheme, inputs: int, outputs: int) -> _Verdict | None:
    """GPTQModel, which may take a kernel for each layer (gptqmodel/utils/importer.py, `_iter_dynamic_contracts`).

    TorchLinear takes 2 to 8 bits of any symmetry. Fast are MarlinLinear (4 and 8 bits, symmetric, outputs divisible by
    64) and ExllamaV2Linear (4 bits); TritonV2Linear has no 3 bits.
    """
    if scheme.group_size not in _GPTQMODEL_GROUPS and scheme.group_size != inputs:
        return _Verdict(
            "cannot",
            f"groups of {scheme.group_size} have no kernel",
            replace(scheme, group_size=_group(scheme, inputs, _GPTQMODEL_GROUPS)),
        )
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each product")
    if scheme.group_size not in _FAST_GROUPS:
        return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")
    if scheme.bits == 2:
        return _Verdict("slow", "2 bits have a Triton kernel only")
    if scheme.bits == 8 and (not scheme.sym or outputs % 64):
        what = "outputs that 64 does not divide" if scheme.sym else "asymmetric layers"
        return _Verdict("slow", f"8 bits have no fast kernel for {what}")
    return None


def _auto_round(packing: str, scheme: LayerScheme) -> _Verdict | None:
    """AutoRound's own reader, by the table BackendInfos of auto_round/inference/backend.py (0.16.1).

    Its torch kernels take any bits, symmetric ones in every layout. Asymmetric ones in GPTQ's and AWQ's layouts are
    read by kernels of other packages alone: auto-round-lib (CPU; 2, 4, 8 bits), gptqmodel (graphics card; 4 bits).
    """
    if not scheme.sym and packing == "gptq" and scheme.bits == 3:
        return _Verdict("cannot", "3 bits asymmetric have no kernel in this format", replace(scheme, bits=4))
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each product")
    if not scheme.sym and packing != "auto_round":
        return _Verdict(
            "slow", "asymmetric layers in this layout need auto-round-lib (CPU) or gptqmodel (graphics card)"
        )
    return None


def _group(scheme: LayerScheme, inputs: int, known: Sequence[int] = _FAST_GROUPS) -> int:
    """The scheme's group size, or the next smaller that the engine knows and that divides the inputs."""
    size = scheme.group_size
    if size in known:
        return size
    return max(group for group in known if 0 < group < size and inputs % group == 0)


def _disagreeing(
    tree: ModelTree, schemes: Sequence[LayerScheme], verdicts: Sequence[_Verdict | None], kinds: Sequence[int]
) -> dict[int, _Verdict]:
    """Joined layers of a block that differ; all follow the one with most bits, once that one can be run."""
    found = {}
    for members in tied(tree, _FUSED):
        first = schemes[members[0]]
        if all(schemes[place] == first or not (schemes[place].quantized or first.quantized) for place in members):
            continue
        repairs = []
        for place in members:
            verdict = verdicts[kinds[place]]
            repairs.append(verdict.repair if verdict and verdict.repair else schemes[place])
        # Of the same bits the finer groups; a symmetric one before one that is not.
        best = max(repairs, key=lambda scheme: (scheme.bits, -scheme.group_size % 4096, scheme.sym))
        lasts = ", ".join(tree.linears[place].kind.rpartition(".")[2] for place in members)
        verdict = _Verdict("cannot", f"{lasts} become one matrix and must have the same scheme", best)
        found.update(dict.fromkeys(members, verdict))
    return found


def _unlike(tree: ModelTree, schemes: Sequence[LayerScheme], found: dict[int, _Verdict]) -> dict[int, _Verdict]:
    """Joined layers that have another scheme than the default, which is that of most layers; and a head left out.

    Layers that are marked already count with their repair. The one way to leave joined layers alone is for their kinds
    to be left alone in every block: those are not in `modules_in_block_to_quantize`. That list has no head in it either
    (`is_layer_gptq_quantized`).
    """
    later = [found[place].repair or scheme if place in found else scheme for place, scheme in enumerate(schemes)]
    used = Counter(scheme for scheme in later if scheme.quantized)
    if not used:
        return {}
    default = used.most_common(1)[0][0]
    inside = [place for place, linear in enumerate(tree.linears) if linear.block >= 0]
    kinds = {tree.linears[place].kind for place in inside if later[place].quantized}
    fits = {weight: default.fit(*weight[:2])[0].quantized for weight in set(tree.weights)}
    marked = {}
    for members in tied(tree, _FUSED):
        if not kinds.intersection(tree.linears[place].kind for place in members):
            continue
        fitting = all(fits[tree.weights[place]] for place in members)
        needed = default if fitting else replace(default, bits=UNTOUCHED)
        reason = "q, k, v, gate and up get the default in this format and must have it"
        for place in members:
            if later[place] != needed and (needed.quantized or later[place].quantized) and place not in found:
                marked[place] = _Verdict("cannot", reason, needed)
    if any(not schemes[place].quantized for place in inside):
        for place, linear in enumerate(tree.nameable[: len(schemes)]):
            if linear.block < 0 and schemes[place].quantized:
                reason = "the head is not read as quantized where layers of the blocks are left in 16 bits"
                marked[place] = _Verdict("cannot", reason, replace(schemes[place], bits=UNTOUCHED))
    return marked
