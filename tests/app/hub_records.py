"""Recorded results of a search of the Hub."""

from __future__ import annotations

from core.hub.records import FoundModel, SearchResults

QWEN = FoundModel(
    id="Qwen/Qwen3-0.6B", author="Qwen", downloads=12_480_000, likes=812, gated=False,
    license="apache-2.0", parameters=751_632_384, updated="2025-07-26T03:46:27+00:00",
    tags=("transformers", "safetensors", "qwen3", "text-generation", "conversational"), cached=False,
)  # fmt: skip
LLAMA = FoundModel(
    id="meta-llama/Llama-3.2-1B-Instruct", author="meta-llama", downloads=3_104_221, likes=1045,
    gated=True, license="llama3.2", parameters=1_235_814_400, updated="2024-10-24T15:07:51+00:00",
    tags=("transformers", "safetensors", "llama"), cached=False,
)  # fmt: skip
AWQ = FoundModel(
    id="Qwen/Qwen2.5-0.5B-Instruct-AWQ", author="Qwen", downloads=48_810, likes=12, gated=False,
    license="apache-2.0", parameters=None, updated="2024-10-09T12:37:12+00:00",
    tags=("safetensors", "qwen2", "4-bit", "awq"), cached=False,
)  # fmt: skip
SMOL = FoundModel(
    id="HuggingFaceTB/SmolLM2-135M", author="HuggingFaceTB", downloads=0, likes=0, gated=False,
    license="", parameters=134_515_008, updated="2025-02-06T13:49:10+00:00", tags=(), cached=True,
)  # fmt: skip


def answer(*models: FoundModel, offline: bool = False) -> SearchResults:
    """Return the result of one search."""
    return SearchResults(models, offline)
