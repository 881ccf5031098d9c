"""What is said and what can be known at once of a calibration text: its kind, whether it is there, how much is used.

Reads no text. Knows no widget.
"""

from __future__ import annotations

from typing import Any

from core.calibration import text
from core.errors import BadCalibration, BitwrightError
from core.recipes import Recipe

EXAMPLE = text.DEFAULT_DATASET
"""A data set on the Hub that suits most models."""


def kind_of(calibration: str) -> str:
    """`builtin`, `file` or `hub`."""
    try:
        return text.parse(calibration).kind
    except BitwrightError:
        return "file"  # it was a file when it was chosen


def named(kind: str, written: str) -> str:
    """The calibration argument that the user means, who said which kind it is.

    Raises:
        BadCalibration: there is no such file, or this is no id of a data set.
    """
    written = written.strip()
    if kind == "file":
        if not written:
            raise BadCalibration("No file is chosen yet.", "Until then the bundled text is used.")
        source = text.parse(written)
        if source.kind != "file" or not source.path.is_file():
            raise BadCalibration(f"There is no file {written}.", "Check the path.")
        return str(source.path.absolute())
    if not written:
        raise BadCalibration("No data set is named yet.", "Until then the bundled text is used.")
    if text.parse(written).kind != "hub":
        raise BadCalibration(f"{written} is a file, not a data set on the Hub.", f"An id looks like {EXAMPLE}.")
    return written


def use_text(recipe: Recipe) -> str:
    """How much of the text a run uses."""
    tokens = recipe.samples * recipe.seqlen
    if recipe.iters == 0 and not recipe.search_scale:
        return "Plain rounding does not look at the text."
    return f"A run uses {recipe.samples:,} rows of {recipe.seqlen:,} tokens: {tokens:,} tokens."


def found_text(values: dict[str, Any]) -> str:
    """What a preview found, in one line."""
    documents = f"{values['documents']:,} documents"
    if not values["tokens"]:
        return f"{documents} were looked at. Their tokens are counted once a model is on this machine."
    return f"{values['tokens']:,} tokens from {documents}, drawn from {values['available']:,} tokens of the text."
