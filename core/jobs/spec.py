"""All that a run depends on, as one frozen value that is saved with the run. Pure data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import bitsmap, recipes
from core.bitsmap import BitsMap
from core.errors import BadInput
from core.files import read_json, write_json
from core.recipes import Recipe

FORMATS = ("auto_round", "auto_gptq")


@dataclass(frozen=True)
class JobSpec:
    """One quantization run. A run never reads a setting from anywhere else.

    Attributes:
        model: Hub id, folder, `.gguf` file, or `demo`.
        output: folder to be made; one format goes into it, several into sub-folders.
        recipe, bits_map: how the layers are tuned, and to what.
        calibration: `builtin`, a Hub data set id, or the path of a text, jsonl or parquet file.
        formats: names of the output formats.
        device: `auto`, `cpu`, `cuda:N` or `xpu:N`.
        seed: of the order in which samples are drawn.
        low_memory: keep the cached activations on disk and work in smaller micro-batches.
        compile: run each block through torch.compile (needs a C++ compiler on a CPU).
        name: what the user calls this job.
    """

    model: str
    output: str
    recipe: Recipe = field(default_factory=Recipe)
    bits_map: BitsMap = field(default_factory=BitsMap)
    calibration: str = "builtin"
    formats: tuple[str, ...] = ("auto_round",)
    device: str = "auto"
    seed: int = 42
    low_memory: bool = False
    compile: bool = False
    name: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) != len(self.formats):
            raise BadInput("Each output format may be named once, and one at least.", "Use --format auto_round.")
        for name in self.formats:
            if name not in FORMATS:
                raise BadInput(f"There is no output format {name!r}.", f"Choose from {', '.join(FORMATS)}.")
        if not self.model or not self.output:
            raise BadInput("A job needs a model and an output folder.", "Give both.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise BadInput(f"Seed {self.seed!r} is not possible.", "Choose a whole number from 0 to 2^63-1.")

    def output_of(self, format_name: str) -> Path:
        """Folder that receives one format."""
        return Path(self.output) if len(self.formats) == 1 else Path(self.output) / format_name

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "model": self.model,
            "output": self.output,
            "recipe": self.recipe.to_json(),
            "bits_map": self.bits_map.to_json(),
            "calibration": self.calibration,
            "formats": list(self.formats),
            "device": self.device,
            "seed": self.seed,
            "low_memory": self.low_memory,
            "compile": self.compile,
            "name": self.name,
        }

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def from_json(value: Any) -> JobSpec:
    """A job from its JSON value.

    Raises:
        BadInput: an unknown version, key or value.
    """
    if not isinstance(value, dict) or value.get("version") != 1:
        raise BadInput("This is not a job of version 1.", "It was made by another version of Bitwright.")
    rest = dict(value)
    try:
        rest["recipe"] = recipes.from_json(rest["recipe"])
        rest["bits_map"] = bitsmap.from_json(rest["bits_map"])
        rest["formats"] = tuple(rest["formats"])
        return JobSpec(**rest)
    except (KeyError, TypeError) as error:
        raise BadInput(f"The job lacks or misnames a part: {error}.", "It was made by another version.") from error


def load(path: Path) -> JobSpec:
    """The job saved at `path`."""
    return from_json(read_json(path))
