"""The `bitwright quantize` command that does what a job says: quoted for a shell, only what differs from the defaults.

What no option can say (rules of a bits map, some recipes) goes into files that the command names; they are given as
values and their writing is the caller's. Knows the names of the options, which its tests hold against the real parser.
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
}
_NO_OPTION = ("search_scale", "low_bit_lr_scale")
"""What a recipe has and the command line cannot change: the recipe that is named must have it already."""


@dataclass(frozen=True)
class Command:
    """A command, word by word, and the JSON files that must lie where it says."""

    words: tuple[str, ...]
    files: dict[Path, dict[str, Any]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """For a POSIX shell, on one line."""
        return shlex.join(self.words)


def command_of(spec: JobSpec, folder: Path) -> Command:
    """The command for `spec`. The recipe's name and purpose are not part of it, the rest is.

    Args:
        folder: where the files lie that it may need.
    """
    files: dict[Path, dict[str, Any]] = {}
    words = ["bitwright", "quantize", spec.model, "--output", spec.output]
    words += _recipe_words(spec.recipe, folder / RECIPE_FILE, files)
    words += _map_words(spec.bits_map, folder / MAP_FILE, files)
    if spec.calibration != "builtin":
        words += ["--calibration", spec.calibration]
    if spec.formats != ("auto_round",):
        words += ["--format", ",".join(spec.formats)]
    if spec.device != "auto":
        words += ["--device", spec.device]
    words += ["--low-memory"] * spec.low_memory + ["--compile"] * spec.compile
    if spec.seed != 42:
        words += ["--seed", str(spec.seed)]
    if spec.name:
        words += ["--name", spec.name]
    return Command(tuple(words), files)


def _recipe_words(recipe: Recipe, path: Path, files: dict[Path, dict[str, Any]]) -> list[str]:
    """The recipe of the same name if options can say the rest, else that with the fewest options, else a file."""
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
    """Options that turn `base` into `recipe`; None where there are none that could."""
    if any(getattr(base, key) != getattr(recipe, key) for key in _NO_OPTION):
        return None
    words: list[str] = []
    for key, option in _TUNING.items():
        value = getattr(recipe, key)
        if value == getattr(base, key):
            continue
        if value is None:  # an option gives a number; there is no word for "follow the others" again
            return None
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
