"""Preparation of a model card for display: images removed, length and nesting limited. Pure functions.

The card is untrusted text; `app.pages.model.card_view` displays it as data.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 20_000
"""Maximum number of characters: the layout of more would block the window."""
DEEPEST: Final = 8
"""Maximum nesting of quotes and lists: each level becomes a frame of the document."""

_EMPTY: Final = ("", "image", "image/png", "image/jpeg", "image/webp", "img", "alt text")
"""Placeholders used as the description of an image."""
_INWARD: Final = re.compile(r"(?<!!)\[([^\[\]\n]{1,300})\]\(#[^()\n]{0,300}\)")
_WIDE: Final = re.compile(r"^[^|\n]*(?:\|[^|\n]*){65,}$", re.MULTILINE)
"""A table row that is too long to be readable and takes a second to lay out."""
_PICTURE: Final = re.compile(r"!\[([^\[\]\n]{0,300})\]\([^()\n]{0,4000}\)")
_MARKERS: Final = re.compile(r"^(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))+", re.MULTILINE)
_MARKER: Final = re.compile(r"[ \t]*(?:>|[-+*]|\d{1,9}[.)])")


def fit_card(text: str) -> str:
    """Return the Markdown to display."""
    text = _MARKERS.sub(_shallow, text[: 2 * LONGEST])
    cut = len(text) > LONGEST
    text = _PICTURE.sub(_described, text[:LONGEST])
    text = _WIDE.sub(lambda found: found.group().replace("|", r"\|"), text)
    text = _INWARD.sub(r"\1", text)  # internal links: the displayed document has no anchors
    if cut:
        text += "\n\n*This card is longer. See the model's page on the Hub for the rest.*"
    return text.strip()


def _described(found: re.Match[str]) -> str:
    words = found.group(1).strip()
    return "(picture)" if words.lower() in _EMPTY else words


def _shallow(found: re.Match[str]) -> str:
    markers = list(_MARKER.finditer(found.group(0)))
    return found.group(0) if len(markers) <= DEEPEST else "".join(m.group(0) for m in markers[:DEEPEST]) + " "
