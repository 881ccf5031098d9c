"""Results of the service about possible conversions, for tests."""

from __future__ import annotations

from typing import Any

from core.conversion.survey import ConversionOption, ConversionSurvey, SourceSummary
from core.service.messages import ConvertedModel

ROWS = (
    ConversionOption("auto_round", "exact", "", 116_000_000),
    ConversionOption("auto_awq", "no", "AWQ holds 4 bits only."),
    ConversionOption("gguf", "exact", "30 layers take 4.5 bits.", 119_000_000),
    ConversionOption("bf16", "inexact", "14 bits do not fit into 8.", 269_000_000),
    ConversionOption("auto_gptq", "exact", "", 117_000_000),
)
SOURCE = SourceSummary("small", "folder", "/m/small", "AutoRound", {"W4 g64 sym": 210}, 210, 116_000_000)
SURVEY = ConversionSurvey(SOURCE, ROWS)


def converted(output: str, format_name: str = "gguf", *, error: dict[str, Any] | None = None) -> ConvertedModel:
    """Return the result of a conversion."""
    report = {
        "kind": "conversion", "format": format_name, "exact": error is None, "error": error, "layers": 210,
        "notes": [], "verification": {"layers": 210, "other_tensors": 62}, "output_bytes": 121_000_000,
    }  # fmt: skip
    return ConvertedModel(output, 12.4, report)


ERROR: dict[str, Any] = {
    "largest_difference": 0.0312, "relative_rms": 0.0041, "changed_tensors": 210,
    "worst_tensor": {"name": "model.layers.7.mlp.down_proj", "relative_rms": 0.0093},
}  # fmt: skip
