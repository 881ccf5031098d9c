"""Texts of the output formats: families, titles and descriptions. Depends on QtCore only."""

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
    """A group of formats with a common name.

    Attributes:
        id: identifier; title: name for display.
        about: programs that load it.
        groups: its formats; related ones side by side, the usual ones first.
    """

    id: str
    title: str
    about: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def formats(self) -> tuple[str, ...]:
        """Return all formats of the family, in the order of display."""
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
    "gguf": "As in the bits map",
}
_MIXES: Final = {
    "q4_k_m": "the usual choice",
    "q5_k_m": "closer to the original",
    "q6_k": "very close to the original",
    "q8_0": "nearly lossless",
    "q3_k_m": "small",
    "q2_k": "smallest, with a noticeable loss",
    "q4_0": "simple and fast",
    "iq4_nl": "levels closer together near zero",
    "iq4_xs": "as IQ4_NL, but smaller",
}
_NAMES: Final = re.compile(rf"\b({'|'.join(sorted(FORMATS, key=len, reverse=True))})\b(?![:-])")
"""Pattern of format names in a message of core."""
_PLAINS: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_NOTES: Final = {
    "auto_round": "Chosen as in AutoRound: GPTQ packing for symmetric layers, another one where that cannot hold them.",
    "auto_round:auto_gptq": "Also loads in vLLM and SGLang. Cannot hold zero points of 0.",
    "auto_round:auto_awq": "One 4-bit scheme for all layers. Also loads in vLLM.",
    "auto_round:gptqmodel": "Same as GPTQ version 2. Holds every zero point.",
    "auto_round:plain": "Holds every scheme. Loads only with AutoRound's own kernels and in Bitwright.",
    "auto_gptq": "Stores zero points minus one, as AutoGPTQ did. Cannot hold zero points of 0.",
    "gptqmodel": "Stores zero points unchanged. Loads in GPTQModel; older programs may not support it.",
    "auto_awq": "Loads in vLLM, SGLang and transformers with AWQ kernels.",
    "gguf": "Keeps all tuned integers and scales, in the smallest GGUF type that can hold them.",
    "bf16": "Loads in every program. As large as the original.",
    "f16": "Loads in every program. As large as the original.",
    "f32": "The exact values of the quantized weights. Twice as large as the original.",
}


def families() -> tuple[Family, ...]:
    """Return the families that a run can write, in the order of display."""
    rest = tuple(name for name in GGUF if name != "gguf" and name not in _USUAL)
    return (
        Family(
            "auto_round",
            "AutoRound",
            _tr("Formats", "For transformers with auto-round; most variants also load in vLLM and SGLang."),
            (AUTO_ROUND,),
        ),
        Family("gptq", "GPTQ", _tr("Formats", "For vLLM, SGLang, and transformers with gptqmodel."), (GPTQ,)),
        Family("awq", "AWQ", _tr("Formats", "For vLLM, SGLang, and transformers with AWQ kernels."), (AWQ,)),
        Family("gguf", "GGUF", _tr("Formats", "For llama.cpp, Ollama and LM Studio."), (("gguf",), _USUAL, rest)),
    )


def all_families() -> tuple[Family, ...]:
    """Return the families that a conversion can write: those of a run, and unquantized weights."""
    plain = Family(PLAIN_FAMILY, _tr("Formats", "Not quantized"), _tr("Formats", "For every program."), (PLAIN,))
    return (*families(), plain)


def family_of(name: str) -> Family:
    """Return the family of a format; an unknown format is a family of its own."""
    known = next((family for family in all_families() if name in family.formats), None)
    return known or Family(name, name, "", ((name,),))


def title(name: str) -> str:
    """Return the display name of a format: `AutoRound`, `GPTQ version 2`, `GGUF Q4_K_M`."""
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
    """Return the name of a format in the list of its family: `Q4_K_M: the usual choice`."""
    mix = mix_of(name)
    if mix:
        return f"{mix.upper()}: {_MIXES[mix]}" if mix in _MIXES else mix.upper()
    return _PACKINGS.get(name, name)


def about(name: str) -> str:
    """Return one or two sentences about the storage of the weights in a format; "" for none."""
    mix = mix_of(name)
    if mix and mix not in ("q4_0", "q8_0"):
        return _tr(
            "Formats",
            "Tuned on the grid of this type, mixed by layer as in llama.cpp. No other format can hold it.",
        )
    if mix:
        return _tr("Formats", "Tuned with group size 32, the grid of this type. Other formats can hold it too.")
    return _NOTES.get(name, "")


def obstacle(fit: FormatFit, rival: str) -> str:
    """Return the reason why a format cannot be written, as a sentence; "" if it can.

    Args:
        rival: a format of the same run that prescribes the quantization grid; "" for none.
    """
    if not fit.problems:
        return ""
    if rival:
        return _tr("Formats", "Not in one run with {}, which is tuned on a different grid.").format(title(rival))
    more, first = len(fit.problems) - 1, _NAMES.sub(lambda found: title(found[0]), fit.problems[0])
    return first if not more else _tr("Formats", "{0} And {1} more.").format(first, more)


def conflict(name: str, rival: str) -> str:
    """Return the same as a short phrase."""
    if rival:
        return _tr("Formats", "{0} and {1} need separate runs").format(title(name), title(rival))
    return _tr("Formats", "{} cannot hold this bits map; see Recipe").format(title(name))
