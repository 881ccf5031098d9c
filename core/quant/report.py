"""Report of a finished run: part of its `Done` event, and `bitwright.json` beside the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.calibration.tokens import Calibration
from core.estimation.sizes import effective_bits
from core.formats.engines import rejections
from core.formats.names import folder_name
from core.formats.stored import layer_labels
from core.inference.figures import Perplexity
from core.model.towers import Tower, tower_of
from core.model.tree import TOWER
from core.quant.block_tuning import TuningResult
from core.quant.output import Output
from core.quant.prepare import PreparedRun, settings_of
from core.quant.progress import peak_memory
from core.quant.verify import VerificationResult
from core.report.experts import MixtureTokens
from core.report.verdict import VERSION
from core.spec import JobSpec

_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class BlockFigures:
    """Result of one block."""

    name: str
    outcome: TuningResult
    seconds: float
    experts: Sequence[MixtureTokens] = ()

    def to_json(self) -> dict[str, Any]:
        experts = {"experts": [asdict(mixture) for mixture in self.experts]} if self.experts else {}
        return {"name": self.name, "seconds": self.seconds, **asdict(self.outcome), **experts}


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexities on the held-out windows.

    Attributes:
        original, quantized: perplexities of the two models.
        increase: mean increase of the loss, in nats per token.
        increase_error: standard error of `increase`, from the differences per token.
        vocabulary: rows of the embedding, which is the perplexity of a random guess.
    """

    original: Perplexity
    quantized: Perplexity
    increase: float
    increase_error: float
    vocabulary: int

    def to_json(self) -> dict[str, Any]:
        return {
            "original": self.original.value,
            "quantized": self.quantized.value,
            "original_standard_error": self.original.standard_error,
            "quantized_standard_error": self.quantized.standard_error,
            "loss_increase": self.increase,
            "loss_increase_standard_error": self.increase_error,
            "tokens": self.original.tokens,
            "seqlen": self.original.seqlen,
            "vocab_size": self.vocabulary,
            "sha256": self.original.sha256,
            "text": "bundled held-out text",
        }


def make_report(
    spec: JobSpec,
    ready: PreparedRun,
    calibration: Calibration,
    blocks: Sequence[BlockFigures],
    measured: PerplexityResult,
    verified: dict[str, VerificationResult],
    output: Output,
    seconds: float,
) -> dict[str, Any]:
    """Return the report as a JSON value.

    Args:
        measured: perplexities of the original and of the quantized model on the held-out windows.
        seconds: wall time of the whole run.
    """
    return {
        "version": VERSION,
        "model": ready.source.label,
        "origin": ready.source.origin,
        "source_note": ready.source.note,
        "architecture": ready.tree.architecture,
        "parameters": ready.tree.parameters,
        "towers": [{**asdict(tower), "bits": _tower_bits(ready, tower)} for tower in ready.tree.towers],
        "settings": settings_of(spec, ready.resolved),
        "seed": spec.seed,
        "bits_map": spec.bits_map.to_json(),
        "like": Path(spec.like).name,
        "layers_by_bits": layer_counts(ready),
        "fallbacks": {item.linear.name: item.fallback for item in ready.plans if item.fallback},
        "bits_per_weight": effective_bits(ready.plans, spec.formats[0]),
        "format_bits_per_weight": {name: effective_bits(ready.plans, name) for name in ready.formats},
        "notes": {name: list(item.notes) for name, item in ready.formats.items() if item.notes},
        "rejected_by": {name: rejections(ready.tree, ready.plans, name) for name in ready.formats},
        "calibration": {
            "source": calibration.source,
            "documents": calibration.documents,
            "tokens": calibration.tokens.numel(),
            "sha256": calibration.sha256,
        },
        "perplexity": measured.to_json(),
        "blocks": [block.to_json() for block in blocks],
        "layer_schemes": {name: layer_labels(item) for name, item in ready.formats.items()},
        "verification": {name: asdict(value) for name, value in verified.items()},
        "source_sha256": ready.store.fingerprint(),
        "source_bytes": ready.source.file_bytes or ready.tree.nbytes,
        "files": output.files,
        "output_bytes": {name: _bytes(output, name) for name in output.folders},
        "seconds": seconds,
        "peak_memory": peak_memory(),
    }


def layer_counts(ready: PreparedRun) -> dict[str, int]:
    """Return the number of linear layers for each number of bits, without those of towers that are copied."""
    counts: dict[str, int] = {}
    for item in ready.plans:
        if item.linear.block == TOWER and not item.scheme.quantized:
            continue
        key = str(item.scheme.bits)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _tower_bits(ready: PreparedRun, tower: Tower) -> dict[str, int]:
    """Return the number of the quantized linear layers of a tower for each number of bits."""
    quantized = (item for item in ready.quantized(TOWER) if tower_of([tower], item.linear.name) is not None)
    return dict(Counter(str(item.scheme.bits) for item in quantized))


def _bytes(output: Output, name: str) -> int:
    """Return the bytes of the weight files of a format, without the tokenizer, for comparison with `source_bytes`."""
    prefix = f"{folder_name(name)}/" if len(output.folders) > 1 else ""
    return sum(size for path, size in output.files.items() if path.startswith(prefix) and path.endswith(_WEIGHTS))
