"""The `bitwright quantize` command of a job, quoted for a shell, with the options that differ from the defaults.

Settings without an option (rules of a bits map, some recipes) are returned as the contents of JSON files that the
command refers to; the caller writes them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import recipes
from core.bitsmap import BitsMap
from core.recipes import Recipe
from core.schemes import LayerScheme
from core.spec import JobSpec

MAP_FILE = "bits-map.json"
RECIPE_FILE = "recipe.json"
_TUNING = {
    "iters": "--iters",
    "lr": "--lr",
    "minmax_lr": "--minmax-lr",
    "samples": "--samples",
    "seqlen": "--seqlen",
    "batch_size": "--batch-size",
    "accumulate": "--accumulate",
    "learn_integers": "--learn-integers",
    "end_to_end": "--end-to-end",
}
_FIXED_INTEGERS = "--fixed-integers"
_NO_OPTION = ("start", "low_bit_lr_scale")
"""Settings of a recipe without an option."""


@dataclass(frozen=True)
class Command:
    """The words of a command, and the JSON files that it needs, by path."""

    words: tuple[str, ...]
    files: dict[Path, dict[str, Any]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The command as one line for a POSIX shell."""
        return shlex.join(self.words)


def command_of(spec: JobSpec, folder: Path) -> Command:
    """Return the command for a job. It reproduces the job except for the name and the purpose of the recipe.

    Args:
        spec: the job.
        folder: folder of the files that the command may need.
    """
    files: dict[Path, dict[str, Any]] = {}
    words = ["bitwright", "quantize", spec.model, "--output", spec.output]
    words += _recipe_words(spec.recipe, folder / RECIPE_FILE, files)
    words += _map_words(spec.bits_map, folder / MAP_FILE, files)
    if spec.calibration != "builtin":
        words += ["--calibration", spec.calibration]
    if spec.like:
        words += ["--like", spec.like]
    elif spec.formats != ("auto_round",):
        words += ["--format", ",".join(spec.formats)]
    if spec.device != "auto":
        words += ["--device", spec.device]
    words += ["--low-memory"] * spec.low_memory
    if spec.memory is not None:
        words += ["--memory", str(spec.memory)]
    words += ["--compile"] * spec.compile
    if spec.seed != 42:
        words += ["--seed", str(spec.seed)]
    if spec.pictures:
        words += ["--pictures", spec.pictures]
    if spec.imatrix:
        words += ["--imatrix", spec.imatrix]
    if spec.save_imatrix:
        words += ["--save-imatrix", spec.save_imatrix]
    if spec.name:
        words += ["--name", spec.name]
    return Command(tuple(words), files)


def _recipe_words(recipe: Recipe, path: Path, files: dict[Path, dict[str, Any]]) -> list[str]:
    """Return the options of the recipe.

    Uses the recipe of the same name if options can express the rest, else the recipe with the fewest options, else a
    file.
    """
    found: list[tuple[int, list[str]]] = []
    for name in recipes.NAMES:
        options = _differences(recipes.load(name), recipe)
        if options is None:
            continue
        words = ([] if name == "default" else ["--recipe", name]) + options
        if name == recipe.name:
            return words
        found.append((len(words), words))
    if found:
        return min(found)[1]
    files[path] = recipe.to_json()
    return ["--recipe", str(path)]


def _differences(base: Recipe, recipe: Recipe) -> list[str] | None:
    """Return the options that turn `base` into `recipe`, or None if this is not possible."""
    if any(getattr(base, key) != getattr(recipe, key) for key in _NO_OPTION):
        return None
    words: list[str] = []
    for key, option in _TUNING.items():
        value = getattr(recipe, key)
        if value == getattr(base, key):
            continue
        if value is None:  # an option can only set a number, not restore the derived default
            return None
        if isinstance(value, bool):
            words.append(option if value else _FIXED_INTEGERS)
        else:
            words += [option, repr(value)]
    return words


def _map_words(bits_map: BitsMap, path: Path, files: dict[Path, dict[str, Any]]) -> list[str]:
    if bits_map.rules or bits_map.layers:
        files[path] = bits_map.to_json()
        return ["--bits-map", str(path)]
    scheme, usual = bits_map.default, LayerScheme()
    words: list[str] = []
    if scheme.bits != usual.bits:
        words += ["--bits", str(scheme.bits)]
    if scheme.group_size != usual.group_size:
        words += ["--group-size", str(scheme.group_size)]
    if scheme.sym != usual.sym:
        words += ["--sym" if scheme.sym else "--asym"]
    return words
