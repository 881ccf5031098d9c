"""A model card (README.md of a model) made fit to be laid out: without pictures, not endless, not too deep. Pure text.

What remains is still a stranger's text; `app.pages.model.card_view` shows it as data.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 20_000
"""Characters that are shown; laying out more would hold the window up."""
DEEPEST: Final = 8
"""Levels of quotes and lists that are kept; a stranger's thousands would nest as many frames."""

_EMPTY: Final = ("", "image", "image/png", "image/jpeg", "image/webp", "img", "alt text")
"""What stands for the description of a picture where nobody wrote one."""
_INWARD: Final = re.compile(r"(?<!!)\[([^\[\]\n]{1,300})\]\(#[^()\n]{0,300}\)")
_WIDE: Final = re.compile(r"^[^|\n]*(?:\|[^|\n]*){65,}$", re.MULTILINE)
"""A row of a table that nobody could read, and that would take a second to lay out."""
_PICTURE: Final = re.compile(r"!\[([^\[\]\n]{0,300})\]\([^()\n]{0,4000}\)")
_MARKERS: Final = re.compile(r"^(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))+", re.MULTILINE)
_MARKER: Final = re.compile(r"[ \t]*(?:>|[-+*]|\d{1,9}[.)])")


def fit_card(text: str) -> str:
    """The Markdown to lay out."""
    text = _MARKERS.sub(_shallow, text[: 2 * LONGEST])
    cut = len(text) > LONGEST
    text = _PICTURE.sub(_described, text[:LONGEST])
    text = _WIDE.sub(lambda found: found.group().replace("|", r"\|"), text)
    text = _INWARD.sub(r"\1", text)  # a table of contents; what is shown has no places to jump to
    if cut:
        text += "\n\n*The card goes on; the rest is on the model's page.*"
    return text.strip()


def _described(found: re.Match[str]) -> str:
    words = found.group(1).strip()
    return "(picture)" if words.lower() in _EMPTY else words


def _shallow(found: re.Match[str]) -> str:
    markers = list(_MARKER.finditer(found.group(0)))
    return found.group(0) if len(markers) <= DEEPEST else "".join(m.group(0) for m in markers[:DEEPEST]) + " "
