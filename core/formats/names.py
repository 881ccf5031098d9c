"""Names of the output formats in job files and on the command line, and their families. Does not import torch."""

from __future__ import annotations

GGUF_MIXES = (
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs",
)  # fmt: skip
"""Types after `gguf:`, with llama.cpp's names of file types; a mix uses more bits for some layers."""

AUTO_ROUND = ("auto_round", "auto_round:auto_gptq", "auto_round:auto_awq", "auto_round:gptqmodel", "auto_round:plain")
"""`auto_round` chooses the packing as AutoRound does; the other names specify it."""

GPTQ = ("auto_gptq", "gptqmodel")
"""GPTQ version 1, which stores zero points minus 1, and version 2, which stores them unchanged."""

AWQ = ("auto_awq",)
GGUF = ("gguf", *(f"gguf:{mix}" for mix in GGUF_MIXES))
"""`gguf` stores the integers of a bits map exactly; with a type by name, layers are tuned on the grid of that type."""

FORMATS = (*AUTO_ROUND, *GPTQ, *AWQ, *GGUF)
"""Formats that a run can write."""

PLAIN = ("bf16", "f16", "f32")
"""Further formats of a conversion: the weights as floating-point numbers."""


def mix_of(format_name: str) -> str:
    """Return the type after `gguf:`, or ""."""
    family, _, mix = format_name.partition(":")
    return mix if family == "gguf" else ""


def is_gguf(format_name: str) -> bool:
    """Return whether the format is a GGUF file, not a folder of safetensors."""
    return format_name.partition(":")[0] == "gguf"


def folder_name(format_name: str) -> str:
    """Return the folder name of a format among several outputs; Windows does not permit `:` in file names."""
    return format_name.replace(":", "-")
