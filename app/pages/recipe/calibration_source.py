"""The source of the calibration text: its kind, its validation, and texts about it.

Does not read the text.
"""

from __future__ import annotations

from core.calibration import text
from core.calibration.preview import Preview
from core.errors import BadCalibration, BitwrightError
from core.recipes import Recipe

EXAMPLE = text.DEFAULT_DATASET
"""A data set on the Hub that is suitable for most models."""


def kind_of(calibration: str) -> str:
    """Return the kind of a source: `builtin`, `file` or `hub`."""
    try:
        return text.parse(calibration).kind
    except BitwrightError:
        return "file"  # it was a file when it was selected


def named(kind: str, written: str) -> str:
    """Return the calibration argument for the input and its kind.

    Raises:
        BadCalibration: The file does not exist, or the id of the data set is invalid.
    """
    written = written.strip()
    if kind == "file":
        if not written:
            raise BadCalibration("No file is selected.", "Until then the bundled text is used.")
        source = text.parse(written)
        if source.kind != "file" or not source.path.is_file():
            raise BadCalibration(f"The file {written} does not exist.", "Check the path.")
        return str(source.path.absolute())
    if not written:
        raise BadCalibration("No data set is selected.", "Until then the bundled text is used.")
    if text.parse(written).kind != "hub":
        raise BadCalibration(f"{written} is a file, not a data set on the Hub.", f"An id looks like {EXAMPLE}.")
    return written


def use_text(recipe: Recipe) -> str:
    """Return the text about the number of tokens that a run uses."""
    tokens = recipe.samples * recipe.seqlen
    if not recipe.reads_text:
        return "Plain rounding does not use calibration text."
    return f"A run uses {recipe.samples:,} rows of {recipe.seqlen:,} tokens: {tokens:,} tokens."


def found_text(preview: Preview) -> str:
    """Return the result of a preview in one line."""
    documents = f"{preview.documents:,} documents"
    if not preview.tokens:
        return f"{documents} were read. Tokens are counted once a model is on this machine."
    return f"{preview.tokens:,} tokens from {documents}, drawn from {preview.available:,} tokens of the text."
