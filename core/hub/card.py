"""A model's card: the README.md beside its weights, as Markdown. Knows no HTML and shows nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.errors import BitwrightError
from core.hub.download import cached, explain, http_error
from core.hub.patience import bounded
from core.hub.remote import read_file
from core.jobs.spec import looks_like_path
from core.model.source import DEMO

LIMIT_BYTES: Final = 1 << 20
"""A longer card is cut here."""

_FRONT_MATTER: Final = re.compile(r"\A\s*---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_LICENSE: Final = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


def read_card(model: str, should_stop: Callable[[], bool]) -> str:
    """The Markdown of a model's card without the block of metadata above it; "" where there is none.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`.

    Raises:
        HubUnreachable, ModelNotFound: a model that is only on the Hub, which did not answer or does not know it.
        Cancelled: `should_stop` said so.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if looks_like_path(model) or Path(model).exists():
        return _without_metadata(read_text(Path(model)))
    if model == DEMO:
        return ""
    folder = None
    try:
        folder = cached(model)
        if folder is not None and (folder / "README.md").is_file():
            return _without_metadata(read_text(folder))
        data = bounded(lambda: read_file(model, "README.md", LIMIT_BYTES), should_stop)
        return _without_metadata(data.decode("utf-8", "replace"))
    except EntryNotFoundError:
        return ""
    except (http_error(), OSError, ValueError) as error:
        if folder is not None:
            return ""  # the model is here, its card is not
        problem: BitwrightError = explain(model, error)
        raise problem from error


def read_text(folder: Path) -> str:
    """The README.md in a folder, metadata and all; "" where there is none."""
    try:
        with (folder / "README.md").open("rb") as stream:
            return stream.read(LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def license_of(text: str) -> str:
    """The licence that the metadata of a card name; "" where they name none."""
    front = _FRONT_MATTER.match(text)
    found = _LICENSE.search(front.group()) if front else None
    return found.group(1) if found else ""


def _without_metadata(text: str) -> str:
    return _FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1).lstrip("\n")
