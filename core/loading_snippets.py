"""How to load a finished checkpoint in other programs: code to copy, and what to know before it is tried.

Pure: report and folder in, text out. Says what Bitwright's own tests load, what other programs' documentation
promises, and what does not work; an engine that changes its mind is not noticed here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

Support = Literal["tested", "documented", "partly", "no"]


@dataclass(frozen=True)
class Snippet:
    """One way to load a checkpoint.

    Attributes:
        name: the program; language: of the code (`python` or `sh`).
        code: what to copy, "" where there is no way.
        note: what must be installed, and what may go wrong.
        support: `tested` by Bitwright's tests, `documented` by the program, only `partly`, or `no`.
    """

    name: str
    language: str
    code: str
    note: str
    support: Support


@dataclass(frozen=True)
class _Layers:
    """What the quantized layers are like, as far as a report says it."""

    bits: frozenset[int]
    group_sizes: frozenset[int]
    symmetric: bool

    @property
    def mixed(self) -> bool:
        return len(self.bits) > 1 or len(self.group_sizes) > 1

    @property
    def usual(self) -> bool:
        """What fast kernels are written for first."""
        return not self.mixed and self.symmetric and self.bits <= {4, 8} and self.group_sizes <= {32, 64, 128, -1}


def snippets(report: Mapping[str, Any], output: str) -> tuple[Snippet, ...]:
    """Ways to load what a run wrote, the most certain first.

    Args:
        report: of the run.
        output: the folder that the run made; with several formats, each has a folder in it.
    """
    formats = list(_mapping(report.get("output_bytes"))) or ["auto_round"]
    layers = _layers(report)

    def folder(name: str) -> str:
        return str(Path(output) / name) if len(formats) > 1 else output

    found = [_bitwright(folder(formats[0]))]
    if "auto_round" in formats:
        found.append(_transformers_auto_round(folder("auto_round")))
    if "auto_gptq" in formats:
        found.append(_transformers_gptq(folder("auto_gptq")))
    best = next(name for name in ("auto_gptq", "auto_round", formats[0]) if name in formats)
    found.append(_vllm(folder(best), best, layers))
    found.append(_sglang(folder(best), best, layers))
    found.append(_llama_cpp())
    return tuple(found)


def folder_to_open(report: Mapping[str, Any], output: str) -> str:
    """The checkpoint in `output` that one would load first: itself, or the folder of its first format."""
    formats = list(_mapping(report.get("output_bytes")))
    return str(PurePath(output) / formats[0]) if len(formats) > 1 else output


def _bitwright(folder: str) -> Snippet:
    return Snippet(
        "Bitwright",
        "sh",
        f"bitwright chat {shlex.quote(folder)}",
        "Reads all that it writes, on a CPU too.",
        "tested",
    )


def _transformers_auto_round(folder: str) -> Snippet:
    code = (
        "# pip install auto-round transformers\n"
        "import auto_round  # registers the reader\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"folder = {folder!r}\n"
        'model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        'inputs = tokenizer("The capital of France is", return_tensors="pt").to(model.device)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))\n"
    )
    return Snippet("transformers", "python", code, "Bitwright's tests load outputs this way, on a CPU.", "tested")


def _transformers_gptq(folder: str) -> Snippet:
    code = (
        "# pip install gptqmodel optimum transformers\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"folder = {folder!r}\n"
        'model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    )
    note = "Needs gptqmodel, whose documentation promises 2, 3, 4 and 8 bits. Not part of Bitwright's tests."
    return Snippet("transformers (GPTQ)", "python", code, note, "documented")


def _vllm(folder: str, format_name: str, layers: _Layers) -> Snippet:
    code = f"# pip install vllm\nvllm serve {shlex.quote(folder)}\n"
    support, note = _served(format_name, layers, "vLLM")
    return Snippet("vLLM", "sh", code, note, support)


def _sglang(folder: str, format_name: str, layers: _Layers) -> Snippet:
    code = f"# pip install sglang\npython -m sglang.launch_server --model-path {shlex.quote(folder)}\n"
    support, note = _served(format_name, layers, "SGLang")
    return Snippet("SGLang", "sh", code, note, support)


def _served(format_name: str, layers: _Layers, engine: str) -> tuple[Support, str]:
    """What engines for graphics cards make of a checkpoint, by their documentation."""
    if layers.usual:
        note = f"{engine} documents this kind of checkpoint. Needs a supported graphics card. Not part of our tests."
        return "documented", note
    reasons = []
    if layers.mixed:
        reasons.append("it fuses q, k, v and gate, up, which must then have the same bits")
    if not layers.symmetric:
        if format_name == "auto_round" and layers.bits != {4}:
            reasons.append("it does not read AutoRound's own packing, which these asymmetric layers have")
        else:
            reasons.append("its fastest kernels are for symmetric layers")
    if layers.bits & {2, 3}:
        reasons.append("2 and 3 bits have slow kernels or none")
    why = f": {'; '.join(reasons)}" if reasons else ""
    usual = "4 bits, symmetric, in groups of 128 load nearly everywhere."
    return "partly", f"May not load, or be slow, in {engine}{why}. {usual}"


def _llama_cpp() -> Snippet:
    note = "llama.cpp, Ollama and LM Studio read GGUF files only. This version of Bitwright writes none."
    return Snippet("llama.cpp", "sh", "", note, "no")


def _layers(report: Mapping[str, Any]) -> _Layers:
    """Bits as they were counted; groups and symmetry from the default and from whatever the map names besides."""
    bits_map = _mapping(report.get("bits_map"))
    default = _mapping(bits_map.get("default"))
    schemes = [default]
    rules = bits_map.get("rules")
    schemes += [{**default, **_mapping(rule)} for rule in (rules if isinstance(rules, list) else [])]
    schemes += [{**default, **_mapping(scheme)} for scheme in _mapping(bits_map.get("layers")).values()]
    counted = frozenset(int(key) for key in _mapping(report.get("bits")) if key.isdecimal() and int(key) < 16)
    sizes = {scheme.get("group_size") for scheme in schemes if scheme.get("bits") != 16}
    if report.get("fallbacks"):
        sizes.add(0)  # some groups are smaller than asked for; which ones does not matter here
    return _Layers(
        counted,
        frozenset(size for size in sizes if isinstance(size, int)),
        all(scheme.get("sym") is not False for scheme in schemes),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
