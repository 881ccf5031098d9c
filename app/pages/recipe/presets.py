"""Recipes that the user keeps: one JSON file each, in a folder of Bitwright's own. Knows files and no widget."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from core import recipes
from core.errors import BadInput, BitwrightError, OutputProblem
from core.files import write_json
from core.home import home
from core.recipes import Recipe

_NAME = re.compile(r"\w[\w .-]{0,59}")
_KEPT = "Kept by you:"


def folder() -> Path:
    """Where they lie."""
    return home() / "recipes"


def path_of(name: str) -> Path:
    """The file of the recipe called `name`."""
    return folder() / f"{name}.json"


def saved() -> dict[str, Recipe]:
    """The kept recipes by name, in the order of their names. A file that cannot be read is passed over."""
    found: dict[str, Recipe] = {}
    if not folder().is_dir():
        return found
    for path in sorted(folder().glob("*.json"), key=lambda path: path.stem.casefold()):
        try:
            found[path.stem] = replace(recipes.load(str(path)), name=path.stem)
        except BitwrightError:
            continue
    return found


def save(recipe: Recipe, name: str) -> Recipe:
    """Keep `recipe` under `name`, in place of what had that name; returns it as it was kept.

    Raises:
        BadInput: a name that no file can have, or one of Bitwright's own recipes.
        OutputProblem: the file cannot be written.
    """
    name = name.strip()
    if name in recipes.NAMES:
        raise BadInput(f"{name} is one of Bitwright's own recipes.", "Choose another name.")
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise BadInput(
            f"A recipe cannot be called {name!r}." if name else "The recipe has no name yet.",
            "Use up to 60 letters, figures, spaces, dots and dashes.",
        )
    kept = replace(recipe, name=name, purpose=_purpose(recipe))
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_json(path_of(name), kept.to_json())
    except OSError as error:
        raise OutputProblem(
            f"The recipe cannot be kept in {folder()}: {error.strerror}.", "Check the folder and its rights."
        ) from error
    return kept


def adopt(path: Path) -> Recipe:
    """Keep a copy of the recipe in a file, under its own name or, where that is taken, one with a number.

    Raises:
        BitwrightError: it is no recipe, or cannot be kept.
    """
    recipe = recipes.load(str(path.absolute()))
    own = recipe.name.strip()
    if own in recipes.NAMES and recipe == recipes.load(own):
        return recipe
    # a recipe written by hand may have no name of its own: then that of its file is the better one
    wanted = own if own not in recipes.NAMES and _NAME.fullmatch(own) else path.stem
    name, number, others = wanted, 1, saved()
    while name in recipes.NAMES or (name in others and not _same(others[name], recipe)):
        number += 1
        name = f"{wanted} {number}"
    return save(recipe, name)


def remove(name: str) -> None:
    """Delete the file of a kept recipe."""
    path_of(name).unlink(missing_ok=True)


def _same(one: Recipe, other: Recipe) -> bool:
    return replace(one, name="", purpose="") == replace(other, name="", purpose="")


def _purpose(recipe: Recipe) -> str:
    """What the card of a kept recipe says: its own words if somebody wrote some, else its figures."""
    ours = {recipes.load(name).purpose for name in recipes.NAMES}
    if recipe.purpose and recipe.purpose not in ours and not recipe.purpose.startswith(_KEPT):
        return recipe.purpose
    return f"{_KEPT} {recipe.iters:,} steps, {recipe.samples:,} x {recipe.seqlen:,} tokens."
