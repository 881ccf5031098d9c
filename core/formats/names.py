"""The names of the output formats, as users and job files write them, and what families they belong to. No torch."""

from __future__ import annotations

GGUF_MIXES = (
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
)  # fmt: skip
"""What can follow `gguf:`, named as llama.cpp names its file types; a mix gives some layers more bits than others."""

AUTO_ROUND = ("auto_round", "auto_round:auto_gptq", "auto_round:auto_awq", "auto_round:gptqmodel", "auto_round:plain")
"""`auto_round` chooses among its packings as AutoRound does; the others name one."""

GPTQ = ("auto_gptq", "gptqmodel")
"""GPTQ with zero points less one (version 1), and as they are (version 2)."""

AWQ = ("auto_awq",)
GGUF = ("gguf", *(f"gguf:{mix}" for mix in GGUF_MIXES))
"""`gguf` holds the integers of a map exactly, in whatever types can; the others are tuned on the type's own grid."""

FORMATS = (*AUTO_ROUND, *GPTQ, *AWQ, *GGUF)
"""What a run can write."""

PLAIN = ("bf16", "f16", "f32")
"""What a conversion can write besides: the weights as floating-point numbers."""


def mix_of(format_name: str) -> str:
    """What follows `gguf:`, or ""."""
    family, _, mix = format_name.partition(":")
    return mix if family == "gguf" else ""


def is_gguf(format_name: str) -> bool:
    """Whether the format is one GGUF file instead of a folder of safetensors."""
    return format_name.partition(":")[0] == "gguf"


def folder_name(format_name: str) -> str:
    """The folder of this format where several are written; `:` cannot be in a file name on Windows."""
    return format_name.replace(":", "-")
