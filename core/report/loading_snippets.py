"""How to load a finished checkpoint in other programs: code to copy, and what to know before it is tried.

Pure: report and folder in, text out. Says what Bitwright's own tests load, what other programs' documentation
promises, and what does not work; an engine that changes its mind is not noticed here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from core.formats.names import AUTO_ROUND, AWQ, GPTQ, folder_name, is_gguf

Support = Literal["tested", "documented", "partly", "no"]

_SERVED_FIRST = (*GPTQ, *AWQ, *AUTO_ROUND)
"""Of several formats of one run, the one that servers most probably have a kernel for."""
_UNPACKED = ("auto_round:plain", "auto_round:gptqmodel")
_LABEL = re.compile(r"W(\d+) (row|g\d+) (sym|asym)")


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
    formats = _formats(report)

    def folder(name: str) -> str:
        return str(Path(output) / folder_name(name)) if len(formats) > 1 else output

    found = [_bitwright(folder(formats[0]))]
    for names, ways in ((AUTO_ROUND, _auto_round), (GPTQ, _gptq), (AWQ, _awq)):
        written = next((name for name in formats if name in names), None)
        if written:
            found += ways(written, folder(written), _layers(report, written))
    packed = [name for name in _SERVED_FIRST if name in formats]
    if packed:
        found += [_served("vLLM", packed, report, folder), _served("SGLang", packed, report, folder)]
    ggufs = [name for name in formats if is_gguf(name)]
    return (*found, *(_of_gguf(report, ggufs[0], folder(ggufs[0])) if ggufs else [_no_gguf()]))


def folder_to_open(report: Mapping[str, Any], output: str) -> str:
    """The checkpoint in `output` that one would load first: itself, or the folder of its first format."""
    formats = _formats(report)
    return str(PurePath(output) / folder_name(formats[0])) if len(formats) > 1 else output


def _formats(report: Mapping[str, Any]) -> list[str]:
    return list(_mapping(report.get("output_bytes"))) or ["auto_round"]


def _bitwright(folder: str) -> Snippet:
    return Snippet(
        "Bitwright",
        "sh",
        f"bitwright chat {shlex.quote(folder)}",
        "Reads all that it writes, on a CPU too.",
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
    """auto-round's torch layers read all but AWQ's layout, and asymmetric layers where zero points are less one."""
    first = "import auto_round  # registers the reader\n"
    awq = format_name == "auto_round" and layers.bits == {4} and not layers.mixed and not layers.symmetric
    if awq or format_name == "auto_round:auto_awq" or (format_name == "auto_round:auto_gptq" and not layers.symmetric):
        note = "On a graphics card gptqmodel takes the place of auto-round-lib."
        code = _transformers(folder, "auto-round auto-round-lib", first)
        return [Snippet("transformers", "python", code, note, "documented")]
    note = "Bitwright's tests load outputs this way, on a CPU."
    return [Snippet("transformers", "python", _transformers(folder, "auto-round", first), note, "tested")]


def _gptq(format_name: str, folder: str, layers: _Layers) -> list[Snippet]:
    """GPTQModel reads all but asymmetric layers of version 1; optimum reads one scheme, and `dynamic` not at all."""
    mine: tuple[Support, str] = "documented", "Reads 2, 3, 4 and 8 bits, mixed ones too. Tried by hand on a CPU."
    if format_name == "auto_gptq" and not layers.symmetric:
        mine = "no", "GPTQModel reads asymmetric layers in the format gptqmodel only."
    theirs: tuple[Support, str] = (
        "partly",
        "Needs gptqmodel. Does not see layers that were left in 16 bits in some blocks only.",
    )
    if layers.mixed:
        theirs = "no", "transformers reads GPTQ with one scheme for all layers only."
    code = (
        "# pip install gptqmodel\n"
        "from gptqmodel import GPTQModel\n\n"
        f"model = GPTQModel.load({folder!r})\n"
        'print(model.tokenizer.decode(model.generate("The capital of France is")[0]))\n'
    )
    other = _transformers(folder, "gptqmodel optimum")
    return [
        Snippet("GPTQModel", "python", "" if mine[0] == "no" else code, mine[1], mine[0]),
        Snippet("transformers (GPTQ)", "python", "" if theirs[0] == "no" else other, theirs[1], theirs[0]),
    ]


def _awq(format_name: str, folder: str, layers: _Layers) -> list[Snippet]:
    note = "Needs gptqmodel. Tried by hand on a CPU, not part of Bitwright's tests."
    return [Snippet("transformers (AWQ)", "python", _transformers(folder, "gptqmodel"), note, "documented")]


def _served(engine: str, packed: list[str], report: Mapping[str, Any], folder: Any) -> Snippet:
    """What a server for graphics cards makes of the best of several formats."""
    order = ("documented", "partly", "no")
    judged = [(*_judged(engine, name, _layers(report, name)), name) for name in packed]
    support, note, name = min(judged, key=lambda item: order.index(item[0]))
    where = shlex.quote(folder(name))
    code = f"# pip install vllm\nvllm serve {where}\n"
    if engine == "SGLang":
        code = f"# pip install sglang\npython -m sglang.launch_server --model-path {where}\n"
    return Snippet(engine, "sh", "" if support == "no" else code, note, support)


def _judged(engine: str, format_name: str, layers: _Layers) -> tuple[Support, str]:
    """What engines for graphics cards make of a checkpoint, by their documentation; of vLLM by its source."""
    refused = _refused_by_vllm(format_name, layers)
    if engine == "vLLM" and refused:
        return "no", f"vLLM does not load this: {refused}. 4 bits, symmetric, in groups of 128 load nearly everywhere."
    if layers.usual or (format_name in AWQ and not layers.mixed):
        note = f"{engine} documents this kind of checkpoint. Needs a supported graphics card. Not part of our tests."
        return "documented", note
    reasons = []
    if layers.mixed:
        reasons.append("it fuses q, k, v and gate, up, which must then have the same bits")
    if not layers.symmetric:
        reasons.append("its fastest kernels are for symmetric layers")
    if layers.bits & {2, 3}:
        reasons.append("2 and 3 bits have slow kernels or none")
    why = f": {'; '.join(reasons)}" if reasons else ""
    usual = "4 bits, symmetric, in groups of 128 load nearly everywhere."
    return "partly", f"May not load, or be slow, in {engine}{why}. {usual}"


def _refused_by_vllm(format_name: str, layers: _Layers) -> str:
    """Why vLLM refuses a checkpoint, as `core.formats.engines` has it; "" if nothing is known against it."""
    if layers.bits & {2, 3}:
        return "it has no kernels for 2 and 3 bits"
    if format_name in _UNPACKED:
        return "it reads two of AutoRound's packings, and this is another one"
    if not layers.symmetric and format_name in GPTQ:
        return "it reads GPTQ with symmetric layers only"
    if not layers.symmetric and format_name == "auto_round" and (layers.bits != {4} or layers.mixed):
        return "it does not read AutoRound's own packing, which these asymmetric layers have"
    return ""


def _of_gguf(report: Mapping[str, Any], format_name: str, folder: str) -> list[Snippet]:
    """llama.cpp and what is built on it."""
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
        Snippet("LM Studio", "sh", f"lms import --copy {quoted}\n", "Or put it into LM Studio's models.", "documented"),
        Snippet("llama-cpp-python", "python", python, "llama.cpp from Python.", "tested"),
        Snippet(
            "transformers (GGUF)",
            "python",
            _transformers(folder, "gguf", options=options),
            "Unpacks the file to full weights, and knows fewer architectures than llama.cpp.",
            "partly",
        ),
        Snippet("vLLM", "sh", "", "vLLM reads GGUF with its plugin vllm-gguf-plugin only.", "no"),
    ]


def _gguf_file(report: Mapping[str, Any], format_name: str, folder: str) -> str:
    """The file in the folder, as the report's list of files has it."""
    files = [PurePath(path) for path in _mapping(report.get("files")) if path.endswith(".gguf")]
    inside = [path.name for path in files if len(path.parts) == 1 or path.parts[0] == folder_name(format_name)]
    return str(Path(folder) / (inside[0] if inside else "model.gguf"))


def _no_gguf() -> Snippet:
    note = "llama.cpp, Ollama and LM Studio read GGUF files only: choose the format gguf, or convert to it."
    return Snippet("llama.cpp", "sh", "", note, "no")


def _layers(report: Mapping[str, Any], format_name: str) -> _Layers:
    """The schemes as the report counts them; of older reports those of the map."""
    labels = [_LABEL.fullmatch(label) for label in _mapping(_mapping(report.get("tensors")).get(format_name))]
    found = [label.groups() for label in labels if label]
    if not found:
        return _of_map(report)
    return _Layers(
        frozenset(int(bits) for bits, _, _ in found),
        frozenset(-1 if group == "row" else int(group[1:]) for _, group, _ in found),
        all(sym == "sym" for _, _, sym in found),
    )


def _of_map(report: Mapping[str, Any]) -> _Layers:
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
