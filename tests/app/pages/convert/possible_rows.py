"""What the service says of a model that can be converted, for tests."""

from __future__ import annotations

from typing import Any

ROWS: list[dict[str, Any]] = [
    {"format": "auto_round", "verdict": "exact", "reason": "", "bytes": 116_000_000},
    {"format": "auto_awq", "verdict": "no", "reason": "AWQ holds 4 bits only.", "bytes": 0},
    {"format": "gguf", "verdict": "exact", "reason": "30 layers take 4.5 bits.", "bytes": 119_000_000},
    {"format": "bf16", "verdict": "inexact", "reason": "14 bits do not fit into 8.", "bytes": 269_000_000},
    {"format": "auto_gptq", "verdict": "exact", "reason": "", "bytes": 117_000_000},
]
SURVEY: dict[str, Any] = {
    "source": {
        "label": "small", "origin": "folder", "path": "/m/small", "kind": "AutoRound", "layers": {"W4 g64 sym": 210},
        "linears": 210, "bytes": 116_000_000,
    },
    "rows": ROWS,
}  # fmt: skip


def converted(output: str, format_name: str = "gguf", *, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """The values of a `convert` call."""
    report = {
        "kind": "conversion", "format": format_name, "exact": error is None, "error": error, "layers": 210,
        "notes": [], "verified": {"layers": 210, "other_tensors": 62}, "output_bytes": 121_000_000,
    }  # fmt: skip
    return {"output": output, "seconds": 12.4, "report": report}


ERROR: dict[str, Any] = {
    "largest": 0.0312, "relative_rms": 0.0041, "tensors": 210,
    "worst": {"name": "model.layers.7.mlp.down_proj", "relative_rms": 0.0093},
}  # fmt: skip
