"""Code to load a finished checkpoint in other programs, with requirements and known limitations.

The support level is based on Bitwright's own tests and on the documentation of the programs, whose later changes are
not reflected here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from core.formats.names import AUTO_ROUND, AWQ, GPTQ, folder_name, is_gguf

Support = Literal["tested", "documented", "partly", "no"]

_SERVED_FIRST = (*GPTQ, *AWQ, *AUTO_ROUND)
"""Formats in the order in which servers are likely to have a kernel for them."""
_UNPACKED = ("auto_round:plain", "auto_round:gptqmodel")
_COMMON = "4 bits, symmetric, in groups of 128 are supported nearly everywhere."
_LABEL = re.compile(r"W(\d+) (row|g\d+) (sym|asym)")


@dataclass(frozen=True)
class Snippet:
    """Code to load a checkpoint in one program.

    Attributes:
        name: name of the program.
        language: language of the code, `python` or `sh`.
        code: the code, or "" if the program cannot load the checkpoint.
        note: requirements and limitations.
        support: `tested` (by Bitwright's tests), `documented` (by the program), `partly` or `no`.
    """

    name: str
    language: str
    code: str
    note: str
    support: Support


@dataclass(frozen=True)
class _Layers:
    """Schemes of the quantized layers according to a report."""

    bits: frozenset[int]
    group_sizes: frozenset[int]
    symmetric: bool

    @property
    def mixed(self) -> bool:
        return len(self.bits) > 1 or len(self.group_sizes) > 1

    @property
    def usual(self) -> bool:
        """True if the schemes are among those that most fast kernels support."""
        return not self.mixed and self.symmetric and self.bits <= {4, 8} and self.group_sizes <= {32, 64, 128, -1}


def snippets(report: Mapping[str, Any], output: str) -> tuple[Snippet, ...]:
    """Return the snippets for the output of a run, Bitwright first.

    Args:
        report: report of the run.
        output: output folder of the run; with several formats, each has a subfolder.
    """
    formats = _formats(report)

    def folder(name: str) -> str:
        return str(Path(output) / folder_name(name)) if len(formats) > 1 else output

    found = [_bitwright(folder(formats[0]))]
    for names, ways in ((AUTO_ROUND, _auto_round), (GPTQ, _gptq), (AWQ, _awq)):
        written = next((name for name in formats if name in names), None)
        if written:
            rejected = _mapping(_mapping(report.get("rejected_by")).get(written))
            of_format = ways(written, folder(written), _layers(report, written))
            found += [_checked(_of_class(item, report), rejected) for item in of_format]
    packed = [name for name in _SERVED_FIRST if name in formats]
    if packed:
        found += [_served("vLLM", packed, report, folder), _served("SGLang", packed, report, folder)]
    ggufs = [name for name in formats if is_gguf(name)]
    return (*found, *(_of_gguf(report, ggufs[0], folder(ggufs[0])) if ggufs else [_no_gguf()]))


def _of_class(snippet: Snippet, report: Mapping[str, Any]) -> Snippet:
    """Return the snippet with the auto class of transformers for the model: that of multimodal models has towers."""
    kinds = {_mapping(tower).get("kind") for tower in report.get("towers") or []}
    name = "ImageTextToText" if "vision" in kinds else "MultimodalLM" if "audio" in kinds else "CausalLM"
    return replace(snippet, code=snippet.code.replace("AutoModelForCausalLM", f"AutoModelFor{name}"))


def folder_to_open(report: Mapping[str, Any], output: str) -> str:
    """Return the folder of the first checkpoint in `output`: itself, or with several formats that of the first one."""
    formats = _formats(report)
    return str(PurePath(output) / folder_name(formats[0])) if len(formats) > 1 else output


def _checked(snippet: Snippet, rejected: Mapping[str, Any]) -> Snippet:
    """Return the snippet, without code if its program rejects the checkpoint (`core.formats.engines.rejections`)."""
    engine = {"transformers": "transformers-auto-round", "GPTQModel": "gptqmodel"}.get(snippet.name, "")
    if engine not in rejected or snippet.support == "no":
        return snippet
    return replace(snippet, code="", note=str(rejected[engine]), support="no")


def _formats(report: Mapping[str, Any]) -> list[str]:
    return list(_mapping(report.get("output_bytes"))) or ["auto_round"]


def _bitwright(folder: str) -> Snippet:
    return Snippet(
        "Bitwright",
        "sh",
        f"bitwright chat {shlex.quote(folder)}",
        "Loads all formats that it writes, also on a CPU.",
        "tested",
    )


def _transformers(folder: str, packages: str, first: str = "", options: str = "") -> str:
    return (
        f"# pip install {packages} transformers\n"
        f"{first}"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"folder = {folder!r}\n"
        f'model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto"{options})\n'
        f"tokenizer = AutoTokenizer.from_pretrained(folder{options})\n"
        'inputs = tokenizer("The capital of France is", return_tensors="pt").to(model.device)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))\n"
    )


def _auto_round(format_name: str, folder: str, layers: _Layers) -> list[Snippet]:
    """Return the snippet for transformers with auto-round.

    auto-round's torch layers support all layouts except AWQ's and asymmetric layers with zero points stored minus one.
    """
    first = "import auto_round  # registers the reader\n"
    awq = format_name == "auto_round" and layers.bits == {4} and not layers.mixed and not layers.symmetric
    if awq or format_name == "auto_round:auto_awq" or (format_name == "auto_round:auto_gptq" and not layers.symmetric):
        note = "On a graphics card, install gptqmodel instead of auto-round-lib."
        code = _transformers(folder, "auto-round auto-round-lib", first)
        return [Snippet("transformers", "python", code, note, "documented")]
    note = "Bitwright's tests load outputs this way on a CPU."
    return [Snippet("transformers", "python", _transformers(folder, "auto-round", first), note, "tested")]


def _gptq(format_name: str, folder: str, layers: _Layers) -> list[Snippet]:
    """Return the snippets for GPTQModel and for transformers with optimum.

    GPTQModel supports everything except asymmetric layers of version 1. optimum supports one scheme for all layers and
    ignores `dynamic`.
    """
    native: tuple[Support, str] = "documented", "Supports 2, 3, 4 and 8 bits, also mixed. Tried manually on a CPU."
    if format_name == "auto_gptq" and not layers.symmetric:
        native = "no", "GPTQModel supports asymmetric layers only in the format gptqmodel."
    optimum: tuple[Support, str] = (
        "partly",
        "Needs gptqmodel. Ignores that layers of single blocks were left in 16 bits.",
    )
    if layers.mixed:
        optimum = "no", "transformers supports GPTQ only with one scheme for all layers."
    code = (
        "# pip install gptqmodel\n"
        "from gptqmodel import GPTQModel\n\n"
        f"model = GPTQModel.load({folder!r})\n"
        'print(model.tokenizer.decode(model.generate("The capital of France is")[0]))\n'
    )
    other = _transformers(folder, "gptqmodel optimum")
    return [
        Snippet("GPTQModel", "python", "" if native[0] == "no" else code, native[1], native[0]),
        Snippet("transformers (GPTQ)", "python", "" if optimum[0] == "no" else other, optimum[1], optimum[0]),
    ]


def _awq(format_name: str, folder: str, layers: _Layers) -> list[Snippet]:
    note = "Needs gptqmodel. Tried manually on a CPU; not covered by Bitwright's tests."
    return [Snippet("transformers (AWQ)", "python", _transformers(folder, "gptqmodel"), note, "documented")]


def _served(engine: str, packed: list[str], report: Mapping[str, Any], folder: Any) -> Snippet:
    """Return the snippet of a server for graphics cards, for the best supported of several formats."""
    order = ("documented", "partly", "no")
    rejected = {name: _mapping(_mapping(report.get("rejected_by")).get(name)).get("vllm-cuda", "") for name in packed}
    judged = [(*_judged(engine, name, _layers(report, name), str(rejected[name])), name) for name in packed]
    support, note, name = min(judged, key=lambda item: order.index(item[0]))
    where = shlex.quote(folder(name))
    code = f"# pip install vllm\nvllm serve {where}\n"
    if engine == "SGLang":
        code = f"# pip install sglang\npython -m sglang.launch_server --model-path {where}\n"
    return Snippet(engine, "sh", "" if support == "no" else code, note, support)


def _judged(engine: str, format_name: str, layers: _Layers, rejected: str) -> tuple[Support, str]:
    """Return the support level and the note of an engine, from its documentation (for vLLM, from its source).

    `rejected` is the sentence of `core.formats.engines.rejections` for vLLM, or "".
    """
    if engine == "vLLM" and rejected:
        return "no", f"vLLM cannot load this checkpoint: {rejected} {_COMMON}"
    refused = _refused_by_vllm(format_name, layers)
    if engine == "vLLM" and refused:
        return "no", f"vLLM cannot load this checkpoint: {refused}. {_COMMON}"
    if layers.usual or (format_name in AWQ and not layers.mixed):
        note = f"{engine} documents this format. Needs a supported graphics card. Not covered by Bitwright's tests."
        return "documented", note
    reasons = []
    if layers.mixed:
        reasons.append("it fuses q, k, v and gate, up, which must have the same bits")
    if not layers.symmetric:
        reasons.append("its fastest kernels are for symmetric layers")
    if layers.bits & {2, 3}:
        reasons.append("its kernels for 2 and 3 bits are slow or missing")
    suffix = f": {'; '.join(reasons)}" if reasons else ""
    return "partly", f"{engine} may be slow or unable to load this checkpoint{suffix}. {_COMMON}"


def _refused_by_vllm(format_name: str, layers: _Layers) -> str:
    """Return the reason why vLLM cannot load a checkpoint, as in `core.formats.engines`, or ""."""
    if layers.bits & {2, 3}:
        return "it has no kernels for 2 and 3 bits"
    if format_name in _UNPACKED:
        return "it supports only two of AutoRound's packings, and this is another one"
    if not layers.symmetric and format_name in GPTQ:
        return "it supports GPTQ with symmetric layers only"
    if not layers.symmetric and format_name == "auto_round" and (layers.bits != {4} or layers.mixed):
        return "it does not support AutoRound's own packing, which these asymmetric layers use"
    return ""


def _of_gguf(report: Mapping[str, Any], format_name: str, folder: str) -> list[Snippet]:
    """Return the snippets for llama.cpp and programs that use it."""
    file = _gguf_file(report, format_name, folder)
    quoted, name = shlex.quote(file), PurePath(file).stem
    model = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"
    ollama = f"printf 'FROM %s\\n' {quoted} > Modelfile\nollama create {model} -f Modelfile\nollama run {model}\n"
    python = (
        "# pip install llama-cpp-python\n"
        "from llama_cpp import Llama\n\n"
        f"model = Llama({file!r})\n"
        'print(model("The capital of France is", max_tokens=20)["choices"][0]["text"])\n'
    )
    options = f", gguf_file={PurePath(file).name!r}"
    return [
        Snippet("llama.cpp", "sh", f"llama-cli -m {quoted}\n", "Bitwright's tests load such files.", "tested"),
        Snippet("Ollama", "sh", ollama, "Ollama copies the file into its own store.", "documented"),
        Snippet(
            "LM Studio", "sh", f"lms import --copy {quoted}\n", "Or copy the file to LM Studio's models.", "documented"
        ),
        Snippet("llama-cpp-python", "python", python, "llama.cpp from Python.", "tested"),
        Snippet(
            "transformers (GGUF)",
            "python",
            _transformers(folder, "gguf", options=options),
            "Dequantizes the whole file, and supports fewer architectures than llama.cpp.",
            "partly",
        ),
        Snippet("vLLM", "sh", "", "vLLM supports GGUF only with its plugin vllm-gguf-plugin.", "no"),
    ]


def _gguf_file(report: Mapping[str, Any], format_name: str, folder: str) -> str:
    """Return the path of the GGUF file in the folder, from the report's list of files."""
    files = [PurePath(path) for path in _mapping(report.get("files")) if path.endswith(".gguf")]
    inside = [path.name for path in files if len(path.parts) == 1 or path.parts[0] == folder_name(format_name)]
    return str(Path(folder) / (inside[0] if inside else "model.gguf"))


def _no_gguf() -> Snippet:
    note = "llama.cpp, Ollama and LM Studio support GGUF files only: choose the format gguf, or convert to it."
    return Snippet("llama.cpp", "sh", "", note, "no")


def _layers(report: Mapping[str, Any], format_name: str) -> _Layers:
    """Return the schemes counted in the report; for older reports, those of the bits map."""
    labels = [_LABEL.fullmatch(label) for label in _mapping(_mapping(report.get("layer_schemes")).get(format_name))]
    found = [label.groups() for label in labels if label]
    if not found:
        return _of_map(report)
    return _Layers(
        frozenset(int(bits) for bits, _, _ in found),
        frozenset(-1 if group == "row" else int(group[1:]) for _, group, _ in found),
        all(sym == "sym" for _, _, sym in found),
    )


def _of_map(report: Mapping[str, Any]) -> _Layers:
    """Return the counted bits, with the group sizes and symmetry of the bits map's default, rules and layers."""
    bits_map = _mapping(report.get("bits_map"))
    default = _mapping(bits_map.get("default"))
    schemes = [default]
    rules = bits_map.get("rules")
    schemes += [{**default, **_mapping(rule)} for rule in (rules if isinstance(rules, list) else [])]
    schemes += [{**default, **_mapping(scheme)} for scheme in _mapping(bits_map.get("layers")).values()]
    counted = frozenset(int(key) for key in _mapping(report.get("layers_by_bits")) if key.isdecimal() and int(key) < 16)
    sizes = {scheme.get("group_size") for scheme in schemes if scheme.get("bits") != 16}
    if report.get("fallbacks"):
        sizes.add(0)  # some groups are smaller than requested; their size does not matter here
    return _Layers(
        counted,
        frozenset(size for size in sizes if isinstance(size, int)),
        all(scheme.get("sym") is not False for scheme in schemes),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
