"""Settings of a quantization run, saved as `spec.json` in its job folder. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core import bitsmap, recipes
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.files import expanded, read_json, write_json
from core.formats.grids import named_mix
from core.formats.names import FORMATS as FORMATS
from core.formats.names import folder_name
from core.model_id import absolute
from core.recipes import Recipe, usual

_DEVICE = re.compile(r"auto|cpu|(cuda|xpu)(:[0-9]{1,3})?|cuda:[0-9]{1,3}(,cuda:[0-9]{1,3})+", re.ASCII)


@dataclass(frozen=True)
class JobSpec:
    """All settings of a quantization run.

    Attributes:
        model: Hub id, folder, `.gguf` file, or `demo`.
        output: folder to be created; several formats are written to sub-folders.
        recipe, bits_map: hyper-parameters of tuning, and the schemes of the layers.
        calibration: `builtin`, a Hub data set id, or the path of a text, jsonl or parquet file.
        pictures: path of pairs of pictures and text, which a vision-language model is calibrated on besides the text;
            "" for none.
        formats: names of the output formats.
        device: `auto`, `cpu`, `cuda:N` or `xpu:N`; with `cuda:N,cuda:M`, several GPUs share the samples of each step.
        seed: random seed for the order of the calibration samples.
        low_memory: keep the activations on disk and use smaller micro-batches.
        memory: bytes of memory that the run may need at most; None: decided from the free memory.
        compile: run each block through torch.compile (needs a C++ compiler on a CPU).
        imatrix: path of an importance matrix of llama.cpp, whose mean squares of the inputs weight the search for
            scales; "" for those of the calibration text.
        save_imatrix: path of an importance matrix that the run writes; "" for none.
        like: path of a GGUF file, whose types, tokenizer and chat template the output gets; "" for none.
        name: name of the job given by the user.
    """

    model: str
    output: str
    recipe: Recipe = field(default_factory=usual)
    bits_map: BitsMap = field(default_factory=BitsMap)
    calibration: str = "builtin"
    formats: tuple[str, ...] = ("auto_round",)
    device: str = "auto"
    seed: int = 42
    low_memory: bool = False
    memory: int | None = None
    compile: bool = False
    imatrix: str = ""
    save_imatrix: str = ""
    like: str = ""
    pictures: str = ""
    name: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        texts = (
            self.model,
            self.output,
            self.calibration,
            self.device,
            self.imatrix,
            self.save_imatrix,
            self.like,
            self.pictures,
            self.name,
        )
        if not all(isinstance(text, str) for text in texts) or "\0" in self.output + self.model:
            raise BadInput(
                "Model, output, calibration, device, the paths of further files and the name of a job must be strings.",
                "Correct the job.",
            )
        if not self.formats or len(set(self.formats)) != len(self.formats):
            raise BadInput("Give one or more output formats, each only once.", "Use --format auto_round.")
        for name in self.formats:
            if name not in FORMATS:
                raise BadInput(f"Unknown output format {name!r}.", f"Choose from {', '.join(FORMATS)}.")
        named_mix(self.formats)
        if self.like and self.formats != ("gguf",):
            raise BadInput("With --like, the output is one GGUF file with the types of the other.", "Omit --format.")
        if self.like and self.bits_map != BitsMap():
            raise BadInput(
                "With --like, a GGUF file sets the type of every layer.",
                "Omit --bits, --group-size, --sym, --asym and --bits-map.",
            )
        if not self.model or not self.output:
            raise BadInput("A job needs a model and an output folder.", "Give both.")
        if not _DEVICE.fullmatch(self.device):
            hint = "Choose auto, cpu, cuda:N, xpu:N or several GPUs such as cuda:0,cuda:1."
            raise BadInput(f"There is no device {self.device!r}.", hint)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise BadInput(f"Seed {self.seed!r} is not possible.", "Choose a whole number from 0 to 2^63-1.")
        given = self.memory
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise BadInput(f"The memory limit {given!r} is not possible.", "Give a size such as 8GB.")

    def output_of(self, format_name: str) -> Path:
        """Return the output folder of a format."""
        if len(self.formats) == 1:
            return Path(self.output)
        return Path(self.output) / folder_name(format_name)

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
            "memory": self.memory,
            "compile": self.compile,
            "imatrix": self.imatrix,
            "save_imatrix": self.save_imatrix,
            "like": self.like,
            "pictures": self.pictures,
            "name": self.name,
        }

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def from_json(value: Any) -> JobSpec:
    """Return a job from its JSON value.

    Raises:
        BadInput: the version, a key or a value is unknown.
    """
    if not isinstance(value, dict) or value.get("version") != 1:
        raise BadInput("This is not a job of version 1.", "It was created by another version of Bitwright.")
    rest = dict(value)
    try:
        rest["recipe"] = recipes.from_json(rest["recipe"])
        rest["bits_map"] = bitsmap.from_json(rest["bits_map"])
        rest["formats"] = tuple(rest["formats"])
        return JobSpec(**rest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        hint = "It was created by another version of Bitwright."
        raise BadInput(f"The job has an invalid or missing value: {error}.", hint) from error


def load(path: Path) -> JobSpec:
    """Load the job saved at `path`."""
    return from_json(read_json(path))


def from_options(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "default",
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    bits_map: BitsMap | str | os.PathLike[str] | None = None,
    tower_bits: int | None = None,
    calibration: str | os.PathLike[str] = "builtin",
    formats: Sequence[str] | None = None,
    device: str = "auto",
    seed: int = 42,
    low_memory: bool = False,
    memory: int | None = None,
    compile: bool = False,
    imatrix: str | os.PathLike[str] = "",
    save_imatrix: str | os.PathLike[str] = "",
    like: str | os.PathLike[str] = "",
    pictures: str | os.PathLike[str] = "",
    name: str = "",
    **tuning: Any,
) -> JobSpec:
    """Return the job for the options of the command line or of Python.

    Args:
        recipe: name of a recipe, path of a recipe file, or a recipe.
        bits, group_size, sym, tower_bits: replace values of the bits map (defaults: 4, 128, True, 16) if not None.
        bits_map: a bits map, or the path of a JSON file.
        formats: names of the output formats; None for `auto_round`, or for `gguf` with `like`.
        tuning: keys of `Recipe` that replace those of the recipe if not None: iters, lr, minmax_lr, samples, seqlen,
            batch_size, accumulate, learn_integers, end_to_end.
        Other arguments: as in `JobSpec`. Existing paths are made absolute.

    Raises:
        BadInput: a value or a combination of values is invalid.
    """
    layers = bits_map if isinstance(bits_map, BitsMap) else BitsMap()
    if isinstance(bits_map, str | os.PathLike):
        layers = bitsmap.load(Path(bits_map))
    default = replace(layers.default, **Rule("given", bits, group_size, sym).overrides())
    return JobSpec(
        model=absolute(model),
        output=str(expanded(output).absolute()) if os.fspath(output) else "",
        recipe=_tuned_recipe(recipe, tuning),
        bits_map=replace(layers, default=default, towers=layers.towers if tower_bits is None else tower_bits),
        calibration=absolute(calibration),
        formats=(("gguf",) if like else ("auto_round",)) if formats is None else tuple(formats),
        device=device,
        seed=seed,
        low_memory=low_memory,
        memory=memory,
        compile=compile,
        imatrix=_absolute_file(imatrix),
        save_imatrix=_absolute_file(save_imatrix),
        like=_absolute_file(like),
        pictures=_absolute_file(pictures),
        name=name,
    )


def _tuned_recipe(recipe: str | Recipe, tuning: dict[str, Any]) -> Recipe:
    """Return a recipe with the values of `tuning` that are not None."""
    if isinstance(recipe, Recipe):
        return replace(recipe, **{key: value for key, value in tuning.items() if value is not None})
    return recipes.load(recipe, **tuning)


def _absolute_file(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file; "" stays empty."""
    return str(expanded(path).absolute()) if os.fspath(path) else ""
