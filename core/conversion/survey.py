"""Description of a model as the source of a conversion, and the formats that it can be converted to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["exact", "inexact", "no"]


@dataclass(frozen=True)
class ConversionOption:
    """One output format for one source.

    Attributes:
        format: name of the format.
        verdict: `exact`: every weight stays the same number; `inexact`: weights change; `no`: not possible.
        reason: why it is not exact, or another remark; may be "".
        nbytes: size of all tensors; 0 if the conversion is not possible.
    """

    format: str
    verdict: Verdict
    reason: str = ""
    nbytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "verdict": self.verdict, "reason": self.reason, "bytes": self.nbytes}


@dataclass(frozen=True)
class SourceSummary:
    """The model that is converted.

    Attributes:
        label: display name.
        origin: `hub`, `folder`, `gguf` or `demo`.
        path: of its folder or file.
        kind: its format (`GPTQ`, `GGUF`), or the dtype of its weights.
        layers: number of quantized layers by scheme.
        linears: number of linear layers.
        nbytes: size of the weight files.
        unpacked: whether its weights are quantized in a format that is unpacked to 16 bits, such as FP8.
    """

    label: str
    origin: str = ""
    path: str = ""
    kind: str = ""
    layers: dict[str, int] = field(default_factory=dict)
    linears: int = 0
    nbytes: int = 0
    unpacked: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "origin": self.origin,
            "path": self.path,
            "kind": self.kind,
            "layers": self.layers,
            "linears": self.linears,
            "bytes": self.nbytes,
        }


@dataclass(frozen=True)
class ConversionSurvey:
    """A source and an option for each output format."""

    source: SourceSummary
    options: tuple[ConversionOption, ...]

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source.to_json(), "rows": [option.to_json() for option in self.options]}
