"""The saved recipes of the user: a JSON file for each, in the data folder of Bitwright."""

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
_KEPT = "Your recipe:"


def folder() -> Path:
    """Return the folder of the saved recipes."""
    return home() / "recipes"


def path_of(name: str) -> Path:
    """Return the path of the recipe `name`."""
    return folder() / f"{name}.json"


def saved() -> dict[str, Recipe]:
    """Return the saved recipes by name, sorted; files that cannot be read are skipped."""
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
    """Save `recipe` as `name`, replacing an earlier one, and return the saved recipe.

    Raises:
        BadInput: The name is not a valid file name, or that of a built-in recipe.
        OutputProblem: The file cannot be written.
    """
    name = name.strip()
    if name in recipes.NAMES:
        raise BadInput(f"{name} is a built-in recipe.", "Choose another name.")
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise BadInput(
            f"{name!r} is not a valid name for a recipe." if name else "The recipe has no name.",
            "Use up to 60 letters, digits, spaces, dots and dashes.",
        )
    kept = replace(recipe, name=name, purpose=_purpose(recipe))
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_json(path_of(name), kept.to_json())
    except OSError as error:
        raise OutputProblem(
            f"The recipe cannot be saved in {folder()}: {error.strerror}.", "Check the folder and its permissions."
        ) from error
    return kept


def adopt(path: Path) -> Recipe:
    """Import the recipe of a file under its own name, with a number appended if the name is used.

    Raises:
        BitwrightError: The file is not a recipe, or it cannot be saved.
    """
    recipe = recipes.load(str(path.absolute()))
    own = recipe.name.strip()
    if own in recipes.NAMES and recipe == recipes.load(own):
        return recipe
    # a recipe without a name gets that of its file
    wanted = own if own not in recipes.NAMES and _NAME.fullmatch(own) else path.stem
    name, number, others = wanted, 1, saved()
    while name in recipes.NAMES or (name in others and not _same(others[name], recipe)):
        number += 1
        name = f"{wanted} {number}"
    return save(recipe, name)


def remove(name: str) -> None:
    """Delete the file of a saved recipe."""
    path_of(name).unlink(missing_ok=True)


def _same(one: Recipe, other: Recipe) -> bool:
    return replace(one, name="", purpose="") == replace(other, name="", purpose="")


def _purpose(recipe: Recipe) -> str:
    """Return the text on the card of a saved recipe: its description, or else its parameters."""
    ours = {recipes.load(name).purpose for name in recipes.NAMES}
    if recipe.purpose and recipe.purpose not in ours and not recipe.purpose.startswith(_KEPT):
        return recipe.purpose
    return f"{_KEPT} {recipe.iters:,} steps, {recipe.samples:,} x {recipe.seqlen:,} tokens."
