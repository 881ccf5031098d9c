"""Compatibility of a planned checkpoint with inference engines: layers that they reject or run without a fast kernel.

Taken from the sources of vLLM 0.32.0, GPTQModel 7.7.0 and AutoRound 0.16.1, so other versions may differ. Files of vLLM
are below vllm/model_executor/layers/quantization. tests/benchmarks/readers_table.py verifies the cases that run on a
CPU. Assumes one GPU or one CPU that fits the whole model. Does not import torch.
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
from core.model.fused_experts import EXPERT
from core.model.plans import LayerPlan, Plans, grouped
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

Severity = Literal["cannot", "slow"]

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
# GPTQModel: SUPPORTS_GROUP_SIZE of MarlinLinear, ExllamaV2Linear and their AWQ versions, gptqmodel/nn_modules/qlinear/.
_FAST_GROUPS = (-1, 32, 64, 128)
# GPTQModel: SUPPORTS_GROUP_SIZE of the fallbacks TorchLinear and TritonV2Linear; one group per row works as well.
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
_WRONG_IN_AUTO_ROUND = ("gpt_oss", "kimi_linear")
_FUSED_IN_AUTO_ROUND = ("dbrx", "jetmoe", "llama4", "llama4_text")
_FUSED_IN_VLLM = ("dbrx", "gpt_oss", "granitemoe", "granitemoehybrid", "granitemoeshared", "jetmoe")
"""Model types whose experts an engine loads from tensors with all experts, or under other names."""
_ONE_LESS = ("gptq", "auto_round:auto_gptq")
"""Packings that store zero points minus 1."""


@dataclass(frozen=True)
class EngineIssue:
    """A problem of an engine with a layer, or with the whole checkpoint.

    Attributes:
        layer: name of the layer; "" for the whole checkpoint.
        severity: `cannot` if the engine rejects the checkpoint, `slow` if it has no fast kernel.
        reason: a sentence without its full stop.
        repair: a scheme without the problem; None if there is none.
    """

    layer: str
    severity: Severity
    reason: str
    repair: LayerScheme | None

    @property
    def cannot(self) -> bool:
        """True if the engine rejects the checkpoint."""
        return self.severity == "cannot"

    def sentence(self) -> str:
        """Return the reason with the name of the layer."""
        return f"{self.layer}: {self.reason}." if self.layer else f"{self.reason}."


@dataclass(frozen=True)
class _Verdict:
    severity: Severity
    reason: str
    repair: LayerScheme | None = None


def title(engine: str) -> str:
    """Return the display name of an engine.

    Raises:
        BadInput: the engine is unknown.
    """
    if engine not in _TITLES:
        raise BadInput(f"Unknown engine {engine!r}.", f"Choose from {', '.join(ENGINES)}.")
    return _TITLES[engine]


def check(engine: str, tree: ModelTree, plans: Sequence[LayerPlan], format_name: str) -> list[EngineIssue]:
    """Return all problems of an engine: first of the whole checkpoint, then of layers in the order of the model."""
    title(engine)
    plans = grouped(tree, plans)
    used = Counter[LayerScheme]()
    for case, count in plans.counts:
        if case.scheme.quantized:
            used[case.scheme] += count
    packing = _packing(format_name, used)
    issues = _whole(engine, packing) or _of_experts(engine, packing, tree, plans)
    verdicts = [_verdict(engine, packing, case.scheme, case.in_features, case.out_features) for case in plans.cases]
    found: dict[int, _Verdict] = {}
    if any(verdicts):
        found = {place: verdict for place, kind in enumerate(plans.kinds) if (verdict := verdicts[kind])}
    if needs_fused_modules(engine, format_name):
        schemes = [plans.cases[kind].scheme for kind in plans.kinds]
        found |= _disagreeing(tree, schemes, verdicts, plans.kinds)
    linears = tree.nameable  # plans include a tied head if the map lists it
    return issues + [
        EngineIssue(linears[place].name, verdict.severity, verdict.reason, verdict.repair)
        for place, verdict in sorted(found.items())
    ]


def rejections(tree: ModelTree, plans: Sequence[LayerPlan], format_name: str) -> dict[str, str]:
    """Return the engines that reject a checkpoint, and the first reason of each as a sentence."""
    found = {}
    for engine in ENGINES:
        issue = next((issue for issue in check(engine, tree, plans, format_name) if issue.cannot), None)
        if issue is not None:
            found[engine] = issue.sentence()
    return found


def repaired(engine: str, tree: ModelTree, bits_map: BitsMap, format_name: str) -> BitsMap:
    """Return the bits map with the smallest changes after which the engine rejects no layer.

    Bits are only increased. Problems of the whole checkpoint remain.
    """
    for _ in range(8):  # a repair of fused layers can require another repair, so repeat until there is none
        issues = check(engine, tree, resolve_schemes(tree, bits_map), format_name)
        repairs: dict[LayerScheme, list[str]] = {}
        for issue in issues:
            if issue.cannot and issue.layer and issue.repair:
                repairs.setdefault(issue.repair, []).append(issue.layer)
        if not repairs:
            break
        for scheme, names in repairs.items():
            group, sym = (scheme.group_size, scheme.sym) if scheme.quantized else (None, None)
            bits_map = with_layers(
                bits_map, names, bits=scheme.bits, group_size=group, sym=sym, exact_only=tree.only_by_name
            )
    return bits_map


def allowed(engine: str, format_name: str) -> Callable[[LayerScheme, int, int], bool]:
    """Return a function (scheme, in_features, out_features) -> whether the engine runs such a layer.

    For the engine "", it is true for every layer.
    """
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


def needs_fused_modules(engine: str, format_name: str) -> bool:
    """Return whether the engine requires the same scheme for fused layers of a block: q, k, v; gate, up; its experts.

    vLLM fuses them when loading, and computes all experts of a block with one method. With auto_round, INCConfigParser
    looks up each part and rejects differences (inc/config_parser.py). With auto_awq, `is_layer_skipped` rejects fused
    layers of which only some are quantized (utils/quant_utils.py). With GPTQ, `dynamic` is matched only with the name
    of the fused module (utils/gptq_utils.py), for which `core.formats.gptq` therefore writes a rule.
    """
    return engine.startswith("vllm") and not is_gguf(format_name)


def fused_modules(engine: str, format_name: str, wanted: FusedModules) -> FusedModules:
    """Return the modules to fuse: those that are wanted and those that the engine needs."""
    return (
        replace(wanted, fuse_qkv=True, fuse_gate_up=True, experts=True, block_experts=True)
        if engine and needs_fused_modules(engine, format_name)
        else wanted
    )


_FUSED = FusedModules(block_experts=True)


def _packing(format_name: str, schemes: Iterable[LayerScheme]) -> str:
    """Return the name of the packing of a format; for auto_round as in `core.formats.auto_round.choose_packing`."""
    if is_gguf(format_name):
        return "gguf"
    if format_name in _PACKINGS:
        return _PACKINGS[format_name]
    schemes = set(schemes)
    if all(scheme.sym for scheme in schemes):
        return "auto_round:auto_gptq"
    return "auto_round:auto_awq" if len(schemes) == 1 and next(iter(schemes)).bits == 4 else "auto_round"


def _whole(engine: str, packing: str) -> list[EngineIssue]:
    """Return the problems that do not depend on the layers."""
    problem = _of_gguf(engine) if packing == "gguf" else _of_packing(engine, packing)
    return [EngineIssue("", problem.severity, problem.reason, None)] if problem else []


def _of_experts(engine: str, packing: str, tree: ModelTree, plans: Plans) -> list[EngineIssue]:
    """Return the problem of an engine with a mixture of experts.

    AutoRound's reader joins the outputs of gate and up, and the class of gpt-oss in transformers expects them to
    alternate (GptOssExperts._apply_gate), quantized or not. It replaces the modules for experts of classes with
    `use_experts_implementation` only (modeling/fused_moe/moe_experts_interface.py), and for kimi_linear transformers
    then no longer joins the convolutions of q, k and v.

    vLLM loads the experts of some classes under the names of their original checkpoints only (`ckpt_gate_proj_name` and
    `load_weights` in vllm/model_executor/models/), which differ from those that AutoRound writes.
    """
    if packing == "gguf":
        return []
    auto_round = engine == "transformers-auto-round"
    if auto_round and tree.model_type in _WRONG_IN_AUTO_ROUND:
        return [EngineIssue("", "cannot", f"auto-round computes wrong results for {tree.model_type}", None)]
    first = next(
        (
            linear
            for linear, kind in zip(tree.nameable, plans.kinds, strict=False)
            if plans.cases[kind].scheme.quantized and EXPERT.search(linear.kind)
        ),
        None,
    )
    if first is None:
        return []
    reason = ""
    if auto_round and tree.model_type in _FUSED_IN_AUTO_ROUND:
        reason = f"auto-round does not load quantized experts of {tree.model_type}"
    elif engine.startswith("vllm") and (
        tree.model_type in _FUSED_IN_VLLM or (first.part is not None and first.part.expert is None)
    ):
        reason = f"vLLM loads the experts of {tree.model_type} under other names only"
    return [EngineIssue("", "cannot", reason, None)] if reason else []


def _of_gguf(engine: str) -> _Verdict | None:
    if engine == "transformers-auto-round":
        # integrations/ggml.py of transformers; auto-round itself has no GGUF reader.
        return _Verdict("slow", "transformers dequantizes GGUF files when it loads them (gguf_file=...)")
    if engine.startswith("vllm"):
        # 0.32.0 no longer has gguf.py; the extra `extra-quant` of its package lists the plugin.
        return _Verdict("cannot", "vLLM supports GGUF only with the plugin vllm-gguf-plugin")
    return _Verdict("cannot", "GPTQModel does not support GGUF files") if engine == "gptqmodel" else None


def _of_packing(engine: str, packing: str) -> _Verdict | None:
    if engine == "llama-cpp":
        # Its converter reads safetensors with floating-point weights, and GPTQ, which it rounds again.
        return _Verdict("cannot", "llama.cpp supports GGUF only; choose gguf")
    if engine == "gptqmodel" and packing.startswith("auto_round"):
        # gptqmodel/ does not contain `quant_method: auto-round`.
        return _Verdict("cannot", "GPTQModel does not support the auto_round format; choose auto_gptq")
    if engine == "transformers-auto-round" and packing == "gptq_v2":
        # inference/convert_model.py treats any `quant_method: gptq` as version 1, and adds 1 to each zero point.
        return _Verdict("cannot", "auto-round reads GPTQ version 2 as version 1 and computes wrong results")
    if engine.startswith("vllm") and packing not in _VLLM_PACKINGS:
        # INCConfig.SUPPORTED_FORMATS (inc/inc.py).
        which = "the packing auto_round:gptqmodel" if packing.endswith("gptqmodel") else "AutoRound's own packing"
        return _Verdict("cannot", f"vLLM does not support {which}")
    return None


def _verdict(engine: str, packing: str, scheme: LayerScheme, inputs: int, outputs: int) -> _Verdict | None:
    """Return the problem of an engine with a single layer; None also if it does not support the packing at all."""
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
    """Return the problem of vLLM with a layer in GPTQ's layout.

    Supported are 4 and 8 bits, symmetric, with groups of 32, 64, 128 or a row: AutoGPTQConfig.TYPE_MAP and
    verify_marlin_supported (auto_gptq.py), INCWNA16LinearScheme._build_gptq_method (inc/schemes/inc_wna16_linear.py).
    A CPU supports only 4 bits (kernels/linear/mixed_precision/cpu.py). The package humming adds 2 and 3 bits on GPUs
    for auto_round (inc/schemes/inc_wna16_scheme.py); it is not part of vLLM and not considered here. Shapes that are
    not multiples of Marlin's tiles are padded.
    """
    if packing.endswith("awq"):
        return _vllm_awq(cpu, packing, scheme)
    bits = (4,) if cpu else (4, 8)
    reasons = []
    if scheme.bits not in bits:
        reasons.append(f"no kernel for {scheme.bits} bits")
    if not scheme.sym:
        reasons.append("no kernel for asymmetric layers in this layout")
    if scheme.group_size not in _FAST_GROUPS:
        reasons.append(f"no kernel for groups of {scheme.group_size}")
    if not reasons:
        return None
    more = [width for width in bits if width >= scheme.bits]
    if not more:
        return _Verdict("cannot", reasons[0], replace(scheme, bits=UNTOUCHED))
    return _Verdict("cannot", "; ".join(reasons), LayerScheme(more[0], _group(scheme, inputs), True))


def _vllm_awq(cpu: bool, packing: str, scheme: LayerScheme) -> _Verdict | None:
    """Return the problem of vLLM with a layer in AWQ's layout, which has 4 bits.

    On a GPU, AutoAWQLinearMethod is the fallback for layers that Marlin does not support: other group sizes, and
    AutoRound's symmetric layers, for which INCWNA16LinearScheme._build_awq_method sets that there are no zero points. A
    CPU has no such fallback, but its kernel supports any group size of the auto_awq format (auto_awq.py).
    """
    own = packing != "awq"
    if own and scheme.sym:
        if cpu:
            return _Verdict("cannot", "no kernel for symmetric layers in this layout", replace(scheme, sym=False))
        return _Verdict("slow", "no fast kernel for symmetric layers in this layout")
    if scheme.group_size in _FAST_GROUPS or (cpu and not own):
        return None
    if cpu:
        return _Verdict("cannot", f"no kernel for groups of {scheme.group_size}", replace(scheme, group_size=32))
    return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")


def _gptqmodel(packing: str, scheme: LayerScheme, inputs: int) -> _Verdict | None:
    """Return the problem of GPTQModel with a layer.

    It can choose a kernel per layer (gptqmodel/utils/importer.py, `_iter_dynamic_contracts`). TorchLinear supports 2 to
    8 bits, symmetric and asymmetric. MarlinLinear (4 and 8 bits, symmetric) and ExllamaV2Linear (4 bits) are fast;
    TritonV2Linear does not support 3 bits. AWQ kernels support 4 bits and groups of up to 128. GPTQ version 1 with
    asymmetric layers is accepted only if `meta` names GPTQModel as the quantizer (models/loader.py), which would be
    false, and transformers' AutoRoundConfig rejects that key.
    """
    if packing == "gptq" and not scheme.sym:
        why = "version 1 with asymmetric layers is supported only in its own files; the format gptqmodel is version 2"
        return _Verdict("cannot", why, replace(scheme, sym=True))
    known = _FAST_GROUPS if packing == "awq" else _GPTQMODEL_GROUPS
    if scheme.group_size not in known and scheme.group_size != inputs:
        return _Verdict(
            "cannot",
            f"no kernel for groups of {scheme.group_size}",
            replace(scheme, group_size=_group(scheme, inputs, known)),
        )
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each matrix product")
    if scheme.group_size not in _FAST_GROUPS:
        return _Verdict("slow", f"no fast kernel for groups of {scheme.group_size}")
    if scheme.bits == 2:
        return _Verdict("slow", "only a Triton kernel for 2 bits")
    if scheme.bits == 8 and not scheme.sym:
        return _Verdict("slow", "no fast kernel for asymmetric layers of 8 bits")
    return None


def _auto_round(packing: str, scheme: LayerScheme) -> _Verdict | None:
    """Return the problem of AutoRound's reader with a layer (BackendInfos in auto_round/inference/backend.py, 0.16.1).

    Its torch kernels support any bits: symmetric layers in GPTQ's layout, and all layers in packings that do not
    subtract 1 from zero points. Asymmetric layers in GPTQ's layout, and all layers in AWQ's, need kernels of other
    packages: auto-round-lib (CPU; 2, 4, 8 bits) or gptqmodel (GPU; 4 bits).
    """
    if packing.endswith("awq"):
        return _Verdict("slow", "AWQ's layout needs auto-round-lib (CPU) or gptqmodel (graphics card)")
    elsewhere = not scheme.sym and packing in _ONE_LESS
    if elsewhere and scheme.bits == 3:
        return _Verdict("cannot", "no kernel for asymmetric layers of 3 bits in this format", replace(scheme, bits=4))
    if scheme.bits == 3:
        return _Verdict("slow", "3 bits are unpacked for each matrix product")
    if elsewhere:
        return _Verdict(
            "slow", "asymmetric layers in this layout need auto-round-lib (CPU) or gptqmodel (graphics card)"
        )
    return None


def _group(scheme: LayerScheme, inputs: int, known: Sequence[int] = _FAST_GROUPS) -> int:
    """Return the group size of the scheme, or the next smaller that the engine supports and that divides the inputs."""
    size = scheme.group_size
    if size in known:
        return size
    return max(group for group in known if 0 < group < size and inputs % group == 0)


def _disagreeing(
    tree: ModelTree, schemes: Sequence[LayerScheme], verdicts: Sequence[_Verdict | None], kinds: Sequence[int]
) -> dict[int, _Verdict]:
    """Return the problems of fused layers whose schemes differ; the repair is the (repaired) scheme with most bits."""
    found = {}
    for members in group_positions(tree, _FUSED):
        first = schemes[members[0]]
        if all(schemes[place] == first or not (schemes[place].quantized or first.quantized) for place in members):
            continue
        repairs = []
        for place in members:
            verdict = verdicts[kinds[place]]
            repairs.append(verdict.repair if verdict and verdict.repair else schemes[place])
        # With equal bits, prefer smaller groups, then symmetric schemes.
        best = max(repairs, key=lambda scheme: (scheme.bits, -scheme.group_size % 4096, scheme.sym))
        lasts = ", ".join(dict.fromkeys(tree.linears[place].kind.rpartition(".")[2] for place in members))
        fused = f"{lasts} are fused into one matrix"
        if EXPERT.search(tree.linears[members[0]].kind):
            fused = f"{lasts} of all experts of a block are computed together"
        verdict = _Verdict("cannot", f"{fused} and must have the same scheme", best)
        found.update(dict.fromkeys(members, verdict))
    return found
