"""What other programs make of a checkpoint before it is made: what they refuse, what runs without a fast kernel.

Read from their sources: vLLM 0.32.0, GPTQModel 7.7.0, AutoRound 0.16.1; files of vLLM are below
vllm/model_executor/layers/quantization. tests/benchmarks/readers_table.py tries what a CPU can try. One graphics
card or one CPU that holds the whole model; an engine that changes its mind is not noticed here. Knows no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.bitsmap import BitsMap, with_layers
from core.errors import BadInput
from core.formats.names import is_gguf
from core.model.fused import FusedModules, group_positions
from core.model.plans import LayerPlan, grouped
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

Severity = Literal["cannot", "slow"]
Binding = Literal["", "joined"]
JOINED: Binding = "joined"

_TITLES = {
    "bitwright": "Bitwright",
    "transformers-auto-round": "transformers with auto-round",
    "vllm-cuda": "vLLM on a graphics card",
    "vllm-cpu": "vLLM on a CPU",
    "gptqmodel": "GPTQModel",
    "llama-cpp": "llama.cpp",
}
ENGINES = tuple(_TITLES)

# vLLM: MARLIN_SUPPORTED_GROUP_SIZES in utils/marlin_utils.py.
# GPTQModel: SUPPORTS_GROUP_SIZE of MarlinLinear, ExllamaV2Linear and their AWQ kin, gptqmodel/nn_modules/qlinear/.
_FAST_GROUPS = (-1, 32, 64, 128)
# GPTQModel: SUPPORTS_GROUP_SIZE of TorchLinear and TritonV2Linear, the last resorts; one group a row is taken as well.
_GPTQMODEL_GROUPS = (-1, 32, 64, 128, 256, 512, 1024)

_PACKINGS = {
    "auto_round:auto_gptq": "auto_round:auto_gptq",
    "auto_round:auto_awq": "auto_round:auto_awq",
    "auto_round:gptqmodel": "auto_round:gptqmodel",
    "auto_round:plain": "auto_round",
    "auto_gptq": "gptq",
    "gptqmodel": "gptq_v2",
    "auto_awq": "awq",
}
_VLLM_PACKINGS = ("auto_round:auto_gptq", "auto_round:auto_awq", "gptq", "gptq_v2", "awq")
_ONE_LESS = ("gptq", "auto_round:auto_gptq")
"""Packings that store zero points less one."""


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
    packing = _packing(format_name, used)
    marks = _whole(engine, packing)
    verdicts = [_verdict(engine, packing, case.scheme, case.in_features, case.out_features) for case in plans.cases]
    found: dict[int, _Verdict] = {}
    if any(verdicts):
        found = {place: verdict for place, kind in enumerate(plans.kinds) if (verdict := verdicts[kind])}
    if binding(engine, format_name):
        schemes = [plans.cases[kind].scheme for kind in plans.kinds]
        found |= _disagreeing(tree, schemes, verdicts, plans.kinds)
    linears = tree.nameable  # plans have a tied head where the map names it
    return marks + [
        Mark(linears[place].name, verdict.severity, verdict.reason, verdict.repair)
        for place, verdict in sorted(found.items())
    ]


def repaired(engine: str, tree: ModelTree, bits_map: BitsMap, format_name: str) -> BitsMap:
    """The map with the least change after which the engine refuses no layer; the same map if it refuses none now.

    Bits go up, never down. What is wrong with the checkpoint as a whole stays wrong.
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
    """Whether the engine needs joined layers (q, k, v; gate, up) of a block to agree.

    vLLM joins them on loading. With auto_round, INCConfigParser looks each part up and refuses what differs
    (inc/config_parser.py); with auto_awq `is_layer_skipped` refuses joined layers of which some are left out
    (utils/quant_utils.py). With GPTQ, `dynamic` is matched against the joined name alone (utils/gptq_utils.py), so
    that `core.formats.gptq` writes a rule for that name too.
    """
    return JOINED if engine.startswith("vllm") and not is_gguf(format_name) else ""


def fused_modules(engine: str, format_name: str, wanted: FusedModules) -> FusedModules:
    """Return the modules to fuse: those that are wanted and those that the engine needs."""
    return replace(wanted, fuse_qkv=True, fuse_gate_up=True) if engine and binding(engine, format_name) else wanted


_FUSED = FusedModules(experts=False)


def _packing(format_name: str, schemes: Iterable[LayerScheme]) -> str:
    """How the quantized layers will lie in the file; for auto_round as in `core.formats.auto_round.choose_packing`."""
    if is_gguf(format_name):
        return "gguf"
    if format_name in _PACKINGS:
        return _PACKINGS[format_name]
    schemes = set(schemes)
    if all(scheme.sym for scheme in schemes):
        return "auto_round:auto_gptq"
    return "auto_round:auto_awq" if len(schemes) == 1 and next(iter(schemes)).bits == 4 else "auto_round"


def _whole(engine: str, packing: str) -> list[Mark]:
    """What is wrong whatever the layers have."""
    problem = _of_gguf(engine) if packing == "gguf" else _of_packing(engine, packing)
    return [Mark("", problem.severity, problem.reason, None)] if problem else []


def _of_gguf(engine: str) -> _Verdict | None:
    if engine == "transformers-auto-round":
        # integrations/ggml.py of transformers; auto-round itself has no reader of such files.
        return _Verdict("slow", "transformers unpacks GGUF to full weights when it loads it (gguf_file=...)")
    if engine.startswith("vllm"):
        # 0.32.0 has no gguf.py any more; the extra `extra-quant` of its package names the plugin.
        return _Verdict("cannot", "vLLM reads GGUF with its plugin vllm-gguf-plugin only")
    return _Verdict("cannot", "GPTQModel does not read GGUF files") if engine == "gptqmodel" else None


def _of_packing(engine: str, packing: str) -> _Verdict | None:
    if engine == "llama-cpp":
        # Its converter takes safetensors with floating-point weights, and GPTQ's, which it rounds again.
        return _Verdict("cannot", "llama.cpp reads GGUF only; write gguf")
    if engine == "gptqmodel" and packing.startswith("auto_round"):
        # Nothing in gptqmodel/ knows `quant_method: auto-round`.
        return _Verdict("cannot", "GPTQModel does not read the auto_round format; write auto_gptq")
    if engine == "transformers-auto-round" and packing == "gptq_v2":
        # inference/convert_model.py takes any `quant_method: gptq` for version 1, and adds 1 to each zero point.
        return _Verdict("cannot", "auto-round takes version 2 of GPTQ for version 1 and computes something else")
    if engine.startswith("vllm") and packing not in _VLLM_PACKINGS:
        # INCConfig.SUPPORTED_FORMATS (inc/inc.py).
        which = "the packing auto_round:gptqmodel" if packing.endswith("gptqmodel") else "AutoRound's own packing"
        return _Verdict("cannot", f"vLLM does not read {which}")
    return None


def _verdict(engine: str, packing: str, scheme: LayerScheme, inputs: int, outputs: int) -> _Verdict | None:
    """What an engine makes of one layer by itself; nothing where it does not read the packing at all."""
    if not scheme.quantized or packing == "gguf":
        return None
    if engine in ("vllm-cuda", "vllm-cpu"):
        return _vllm(engine == "vllm-cpu", packing, scheme, inputs)
    if engine == "gptqmodel" and packing in ("gptq", "gptq_v2", "awq"):
        return _gptqmodel(packing, scheme, inputs)
    if engine == "transformers-auto-round" and packing != "gptq_v2":
        return _auto_round(packing, scheme)
    return None


def _vllm(cpu: bool, packing: str, scheme: LayerScheme, inputs: int) -> _Verdict | None:
    """vLLM.

    4 and 8 bits, symmetric, groups of 32, 64, 128 or a row: AutoGPTQConfig.TYPE_MAP and verify_marlin_supported
    (auto_gptq.py), INCWNA16LinearScheme._build_gptq_method (inc/schemes/inc_wna16_linear.py). A CPU: 4 bits alone
    (kernels/linear/mixed_precision/cpu.py). For 2 and 3 bits there is a package of others for graphics cards, humming,
    and for auto_round alone (inc/schemes/inc_wna16_scheme.py); it does not come with vLLM and does not count here.
    Shapes that Marlin's tiles do not divide are padded.
    """
    if packing.endswith("awq"):
        return _vllm_awq(cpu, packing, scheme)
    bits = (4,) if cpu else (4, 8)
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


def _vllm_awq(cpu: bool, packing: str, scheme: LayerScheme) -> _Verdict | None:
    """vLLM with AWQ's layout, which holds 4 bits.

    On a graphics card AutoAWQLinearMethod takes what Marlin does not: other groups, and AutoRound's symmetric layers,
    for which INCWNA16LinearScheme._build_awq_method says that there are no zero points. A CPU has no such last resort,
    but its kernel takes any group of the auto_awq format (auto_awq.py).
    """
    own = packing != "awq"
    if own and scheme.sym:
        if cpu:
            return _Verdict("cannot", "symmetric layers in this layout have no kernel", replace(scheme, sym=False))
        return _Verdict("slow", "symmetric layers in this layout have no fast kernel")
    if scheme.group_size in _FAST_GROUPS or (cpu and not own):
        return None
    if cpu:
        return _Verdict("cannot", f"groups of {scheme.group_size} have no kernel", replace(scheme, group_size=32))
    return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")


def _gptqmodel(packing: str, scheme: LayerScheme, inputs: int) -> _Verdict | None:
    """GPTQModel, which may take a kernel for each layer (gptqmodel/utils/importer.py, `_iter_dynamic_contracts`).

    TorchLinear takes 2 to 8 bits of any symmetry. Fast are MarlinLinear (4 and 8 bits, symmetric) and ExllamaV2Linear
    (4 bits); TritonV2Linear has no 3 bits. AWQ's kernels have 4 bits, and groups of no more than 128. Version 1 of GPTQ
    is read with asymmetric layers only if `meta` names GPTQModel as the maker (models/loader.py), which would be a lie
    and a key that transformers' AutoRoundConfig refuses.
    """
    if packing == "gptq" and not scheme.sym:
        why = "asymmetric layers are read from its own files only in version 1; gptqmodel writes version 2"
        return _Verdict("cannot", why, replace(scheme, sym=True))
    known = _FAST_GROUPS if packing == "awq" else _GPTQMODEL_GROUPS
    if scheme.group_size not in known and scheme.group_size != inputs:
        return _Verdict(
            "cannot",
            f"groups of {scheme.group_size} have no kernel",
            replace(scheme, group_size=_group(scheme, inputs, known)),
        )
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each product")
    if scheme.group_size not in _FAST_GROUPS:
        return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")
    if scheme.bits == 2:
        return _Verdict("slow", "2 bits have a Triton kernel only")
    if scheme.bits == 8 and not scheme.sym:
        return _Verdict("slow", "8 bits have no fast kernel for asymmetric layers")
    return None


def _auto_round(packing: str, scheme: LayerScheme) -> _Verdict | None:
    """AutoRound's own reader, by the table BackendInfos of auto_round/inference/backend.py (0.16.1).

    Its torch kernels take any bits: symmetric ones in GPTQ's layout, and any where zero points are stored as they are.
    Asymmetric ones in GPTQ's layout and all in AWQ's are read by kernels of other packages alone: auto-round-lib (CPU;
    2, 4, 8 bits), gptqmodel (graphics card; 4 bits).
    """
    if packing.endswith("awq"):
        return _Verdict("slow", "AWQ's layout needs auto-round-lib (CPU) or gptqmodel (graphics card)")
    elsewhere = not scheme.sym and packing in _ONE_LESS
    if elsewhere and scheme.bits == 3:
        return _Verdict("cannot", "3 bits asymmetric have no kernel in this format", replace(scheme, bits=4))
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each product")
    if elsewhere:
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
    for members in group_positions(tree, _FUSED):
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
