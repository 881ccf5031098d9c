"""The output formats in words: families, titles, and what each is for. A table and pure functions; knows no widget."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QCoreApplication

from app.shared.formats.fit import FormatFit
from core.formats.names import AUTO_ROUND, AWQ, FORMATS, GGUF, GPTQ, PLAIN, is_gguf, mix_of

_tr = QCoreApplication.translate

PLAIN_FAMILY: Final = "plain"


@dataclass(frozen=True)
class Family:
    """Formats that go by one name.

    Attributes:
        id: how the program calls it; title: how people do.
        about: which programs load it.
        groups: its formats, those that belong together side by side, the usual ones first.
    """

    id: str
    title: str
    about: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def formats(self) -> tuple[str, ...]:
        """All formats of the family, in the order in which they are offered."""
        return tuple(name for group in self.groups for name in group)


_USUAL: Final = ("gguf:q4_k_m", "gguf:q5_k_m", "gguf:q6_k", "gguf:q8_0", "gguf:q3_k_m", "gguf:q2_k")
_PACKINGS: Final = {
    "auto_round": "Packing chosen automatically",
    "auto_round:auto_gptq": "GPTQ packing",
    "auto_round:auto_awq": "AWQ packing",
    "auto_round:gptqmodel": "GPTQModel packing",
    "auto_round:plain": "AutoRound's own packing",
    "auto_gptq": "Version 1, for most programs",
    "gptqmodel": "Version 2, for GPTQModel",
    "auto_awq": "4 bits, one scheme for all layers",
    "gguf": "The map as it is",
}
_MIXES: Final = {
    "q4_k_m": "the usual choice",
    "q5_k_m": "closer to the original",
    "q6_k": "hardly a difference",
    "q8_0": "nearly the original",
    "q3_k_m": "small",
    "q2_k": "smallest, with a clear loss",
    "q4_0": "simple and fast",
}
_NAMES: Final = re.compile(rf"\b({'|'.join(sorted(FORMATS, key=len, reverse=True))})\b(?![:-])")
"""Names of formats in a sentence of core."""
_PLAINS: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_NOTES: Final = {
    "auto_round": "As AutoRound does: GPTQ's packing for symmetric layers, others where that does not hold them.",
    "auto_round:auto_gptq": "Read by vLLM and SGLang too; zero points of 0 do not fit.",
    "auto_round:auto_awq": "For one scheme of 4 bits; read by vLLM too.",
    "auto_round:gptqmodel": "As GPTQ version 2: every zero point fits.",
    "auto_round:plain": "Holds everything; only AutoRound's own kernels and Bitwright read it.",
    "auto_gptq": "Zero points are stored less one, as AutoGPTQ began it; a zero point of 0 does not fit.",
    "gptqmodel": "Zero points as they are; GPTQModel reads it, older programs may not.",
    "auto_awq": "Loads in vLLM, SGLang and transformers with AWQ kernels.",
    "gguf": "Every integer and scale of the map, in the smallest block type that holds them.",
    "bf16": "Every program loads it; as large as the original.",
    "f16": "Every program loads it; as large as the original.",
    "f32": "Exactly what the quantized weights stand for; twice as large as the original.",
}


def families() -> tuple[Family, ...]:
    """The families of what a run writes, in the order in which they are offered."""
    rest = tuple(name for name in GGUF if name != "gguf" and name not in _USUAL)
    return (
        Family(
            "auto_round",
            "AutoRound",
            _tr("Formats", "For transformers with auto-round; most also for vLLM and SGLang."),
            (AUTO_ROUND,),
        ),
        Family("gptq", "GPTQ", _tr("Formats", "For vLLM, SGLang, and transformers with gptqmodel."), (GPTQ,)),
        Family("awq", "AWQ", _tr("Formats", "For vLLM, SGLang, and transformers with AWQ kernels."), (AWQ,)),
        Family("gguf", "GGUF", _tr("Formats", "For llama.cpp, Ollama and LM Studio."), (("gguf",), _USUAL, rest)),
    )


def all_families() -> tuple[Family, ...]:
    """The same, and the plain weights that a conversion can write besides."""
    plain = Family(PLAIN_FAMILY, _tr("Formats", "Not quantized"), _tr("Formats", "For every program."), (PLAIN,))
    return (*families(), plain)


def family_of(name: str) -> Family:
    """The family of a format; one that nobody knows is its own."""
    known = next((family for family in all_families() if name in family.formats), None)
    return known or Family(name, name, "", ((name,),))


def title(name: str) -> str:
    """A format's name for people: `AutoRound`, `GPTQ version 2`, `GGUF Q4_K_M`."""
    if name in PLAIN:
        return _tr("Formats", "Not quantized, {}").format(_PLAINS[name])
    if is_gguf(name):
        mix = mix_of(name)
        return f"GGUF {mix.upper()}" if mix else "GGUF"
    titles = {"auto_round": "AutoRound", "auto_gptq": "GPTQ", "gptqmodel": "GPTQ version 2", "auto_awq": "AWQ"}
    if name in titles:
        return titles[name]
    packing = _PACKINGS.get(name, "").removesuffix(" packing").removeprefix("AutoRound's ")
    return f"AutoRound, {packing} packing" if packing else name


def variant(name: str) -> str:
    """What tells a format from the others of its family, for a list: `Q4_K_M: the usual choice`."""
    mix = mix_of(name)
    if mix:
        return f"{mix.upper()}: {_MIXES[mix]}" if mix in _MIXES else mix.upper()
    return _PACKINGS.get(name, name)


def about(name: str) -> str:
    """What a format does with the weights, in a sentence or two; "" where there is nothing to say."""
    mix = mix_of(name)
    if mix and mix not in ("q4_0", "q8_0"):
        return _tr("Formats", "On this type's own grid, mixed by layer as llama.cpp does; no other format holds it.")
    if mix:
        return _tr(
            "Formats", "Tuned in groups of 32, which is exactly this type's grid; other formats can hold it too."
        )
    return _NOTES.get(name, "")


def obstacle(fit: FormatFit, rival: str) -> str:
    """Why a format cannot be written, in a sentence; "" where it can.

    Args:
        rival: a format of the same run that tunes the layers on a grid of its own, "" for none.
    """
    if not fit.problems:
        return ""
    if rival:
        return _tr("Formats", "Not in one run with {}, which is tuned on a grid of its own.").format(title(rival))
    more, first = len(fit.problems) - 1, _NAMES.sub(lambda found: title(found[0]), fit.problems[0])
    return first if not more else _tr("Formats", "{0} And {1} more.").format(first, more)


def conflict(name: str, rival: str) -> str:
    """The same in a few words, for a place where there is no room for a reason."""
    if rival:
        return _tr("Formats", "{0} and {1} need a run each").format(title(name), title(rival))
    return _tr("Formats", "{} cannot hold this map; see Recipe").format(title(name))
